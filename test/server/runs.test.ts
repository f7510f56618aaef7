/** Evaluations, trainings and data sets as the server shows them; no model is opened. */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildApp } from '../../apps/server/app.ts';
import type { App } from '../../apps/server/routes/app-types.ts';
import { thinned } from '../../apps/server/runs.ts';
import { Services } from '../../apps/server/services.ts';
import { type Cell, writeCell } from '../../lab/reproduce/cell-store.ts';
import { otherWording } from '../../lab/world/wording.ts';
import { writeFileAtomic } from '../../src/files/atomic.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const folder = temporaryFolder();
let services: Services;
let app: App;

// biome-ignore lint/suspicious/noExplicitAny: tests look into answers of any route
const get = async (path: string): Promise<{ status: number; json: any }> => {
  const response = await app.request(path, { headers: { host: 'localhost' } });
  return { status: response.status, json: await response.json() };
};

const line = (step: number, more: object = {}): object => ({
  step,
  loss: 1 / step,
  rate: 0.1,
  gradientNorm: 1,
  seconds: 0.5,
  ...more,
});
const log = (path: string, lines: readonly object[]): void =>
  writeFileAtomic(path, lines.map((one) => `${JSON.stringify(one)}\n`).join(''));
const result = (index: number, accuracy: number): object => ({
  index,
  kind: index % 2 === 0 ? 'place' : 'count',
  target: `t${index}`,
  queries: {
    reliability: { accuracy, text: 'a', exact: accuracy === 1, textBefore: 'b', accuracyBefore: 0, probability: [0.1, accuracy] },
  },
});

beforeAll(async () => {
  const world = await writeTinyWorld(join(folder, 'world'), { vqaTrain: 0 });
  const [evaluated, training] = [join(folder, 'runs', 'tables', 'vead-vqa'), join(folder, 'runs', 'training')];
  mkdirSync(evaluated, { recursive: true });
  mkdirSync(training, { recursive: true });
  const sha256 = createHash('sha256').update(readFileSync(world.test)).digest('hex');
  const identity = {
    model: { name: 'mini-llava', fingerprint: 'f' },
    editor: { id: 'vead', weights: null },
    data: { file: 'vqa_test.json', sha256, records: 3 },
  };
  const timings = { seconds: 5, perItem: 1, sessions: [{ started: '2026-01-01T00:00:00Z', seconds: 5, done: 3 }] };
  writeFileSync(
    join(evaluated, 'manifest.json'),
    JSON.stringify({ command: 'visedit evaluate', identity, finished: true, timings }),
  );
  writeFileSync(join(evaluated, 'summary.json'), JSON.stringify({ reliability: 0.5, average: 0.6, count: 3, kinds: {} }));
  log(join(evaluated, 'records.jsonl'), [result(0, 0.5), result(1, 1), result(2, 0)]);
  writeFileSync(
    join(training, 'manifest.json'),
    JSON.stringify({
      command: 'visedit train',
      identity: { ...identity, editor: 'vead', options: { steps: 100 } },
      finished: false,
      timings,
    }),
  );
  log(join(training, 'log.jsonl'), [line(1), line(2), line(3)]);
  writeCell(join(folder, 'runs', 'table1'), {
    place: 'mini-llava/vqa/mend/seed-1',
    manifest: { command: 'visedit reproduce', finished: true, identity: { ...identity, editor: { id: 'mend', seed: 1 } } },
    evaluation: { reliability: 0.7, average: 0.8, count: 3 },
    curve: [line(1), line(2)],
    records: '',
  } as unknown as Cell);
  // What is no run is not shown, and what is damaged does no harm.
  mkdirSync(join(folder, 'runs', 'damaged'));
  writeFileSync(join(folder, 'runs', 'damaged', 'manifest.json'), '{');
  services = new Services(
    {
      models: [],
      dataDir: join(folder, 'data'),
      host: 'localhost',
      port: 0,
      runs: [join(folder, 'runs'), join(folder, 'nowhere')],
      datasets: [{ data: world.test, images: world.images }],
    },
    pino({ level: 'silent' }),
  );
  app = buildApp(services);
});
afterAll(async () => {
  await services.close();
  rmSync(folder, { recursive: true, force: true });
});

test('runs are listed with what they are', async () => {
  await get('/v1/datasets/vqa_test/records?limit=1');
  const { json } = await get('/v1/runs');
  const by = Object.fromEntries(json.data.map((run: { id: string }) => [run.id, run]));
  expect(Object.keys(by).sort()).toEqual([
    'runs~damaged',
    'runs~table1~mini-llava~vqa~mend~seed-1',
    'runs~tables~vead-vqa',
    'runs~training',
  ]);
  expect(by['runs~table1~mini-llava~vqa~mend~seed-1']).toMatchObject({
    ...{ kind: 'evaluation', state: 'finished', editor: 'mend', model: 'mini-llava', dataset: 'vqa_test' },
    ...{ summary: { reliability: 0.7, average: 0.8 }, count: 3, loss: 0.5 },
  });
  const curve = await get('/v1/runs/runs~table1~mini-llava~vqa~mend~seed-1/log');
  expect(curve.json.data.map(({ step }: { step: number }) => step)).toEqual([1, 2]);
  expect((await get('/v1/runs/runs~table1~mini-llava~vqa~mend~seed-1/records')).json.data).toEqual([]);
  expect(by['runs~tables~vead-vqa']).toMatchObject({
    kind: 'evaluation',
    state: 'finished',
    editor: 'vead',
    model: 'mini-llava',
    dataset: 'vqa_test',
    summary: { reliability: 0.5, average: 0.6 },
    count: 3,
    seconds: 5,
  });
  expect(by['runs~training']).toMatchObject({ kind: 'training', state: 'running', steps: { done: 3, total: 100 }, loss: 1 / 3 });
  expect(by['runs~damaged']).toMatchObject({ editor: null, model: null });
  const whole = await get('/v1/runs/runs~tables~vead-vqa');
  expect(whole.json).toMatchObject({ manifest: { command: 'visedit evaluate' }, summary_full: { kinds: {} } });
});

test('records are sorted by any column and paged', async () => {
  const indices = async (query: string) =>
    (await get(`/v1/runs/runs~tables~vead-vqa/records?${query}`)).json.data.map(({ index }: { index: number }) => index);
  expect(await indices('')).toEqual([0, 1, 2]);
  expect(await indices('sort=reliability.accuracy')).toEqual([2, 0, 1]);
  expect(await indices('sort=reliability.probability&order=desc&limit=2')).toEqual([1, 0]);
  expect(await indices('sort=kind&offset=1')).toEqual([0, 2]);
  const wrong = await get('/v1/runs/runs~tables~vead-vqa/records?sort=constructor');
  expect([wrong.status, wrong.json.error.param]).toEqual([400, 'sort']);
});

test('a curve as numbers, thinned, and as a drawing', async () => {
  const { json } = await get('/v1/runs/runs~training/log?after=1');
  expect(json.data.map(({ step }: { step: number }) => step)).toEqual([2, 3]);
  const svg = await app.request('/v1/runs/runs~training/log?format=svg', { headers: { host: 'localhost' } });
  expect(await svg.text()).toMatch(/^<svg /);
  expect(thinned([1, 2, 3, 4, 5, 6, 7], 3)).toEqual([1, 4, 7]);
  expect(thinned([1, 2], 5)).toEqual([1, 2]);
});

test('a training is watched while it runs, until the server is about to stop', async () => {
  const response = await app.request('/v1/runs/runs~training/events?after=2', { headers: { host: 'localhost' } });
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  const until = async (what: string): Promise<void> => {
    while (!text.includes(what)) {
      const { value, done } = await reader.read();
      if (done) throw new Error(`the stream ended before ${what}: ${text}`);
      text += value;
    }
  };
  await until('event: run');
  expect(text).toMatch(/^event: log\ndata: \[\{"step":3,/);
  log(join(folder, 'runs', 'training', 'log.jsonl'), [line(1), line(2), line(3), line(4, { accuracy: 0.5 })]);
  await until('"step":4');
  expect(services.eventStreams).toBe(1);
  services.watching.abort();
  while (!(await reader.read()).done);
  expect(services.eventStreams).toBe(0);
});

test('records of a data set: found by words, sorted, each with its pictures', async () => {
  const { json } = await get('/v1/datasets/vqa_test/records?limit=200&sort=target&order=desc');
  const targets = json.data.map(({ request }: { request: { target: string } }) => request.target);
  expect(targets).toEqual([...targets].sort().reverse());
  const word = targets[0] as string;
  const found = (await get(`/v1/datasets/vqa_test/records?q=${encodeURIComponent(word.toUpperCase())}`)).json;
  expect(found.total).toBeGreaterThan(0);
  expect(found.total).toBeLessThanOrEqual(json.total);
  const [first] = found.data;
  expect((await get(`/v1/datasets/vqa_test/records/${first.index}`)).json).toEqual(first);
  const picture = await app.request(first.queries.modalLocality.image, { headers: { host: 'localhost' } });
  expect([picture.status, picture.headers.get('content-type')]).toEqual([200, 'image/png']);
  expect(first.queries.textLocality.image).toBeNull();
});

test('other wordings of a question keep what it asks', () => {
  expect(otherWording('What is at the top left? The answer is:')).toBe('What is in the top left cell? The answer is:');
  expect(otherWording('What do you see left of the polar bear?')).toBe('What can be seen left of the polar bear?');
  expect(otherWording('Tell me a story.')).toBeUndefined();
});
