/** Sequential editing against edits that are chained by hand. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { recipeOf } from '../../lab/recipes.ts';
import type { Edit, EditRequest } from '../../src/editors/editor.ts';
import { readEditorWeights, writeEditorWeights } from '../../src/editors/files.ts';
import { ftL } from '../../src/editors/ft-l.ts';
import { vead } from '../../src/editors/vead/vead.ts';
import { askedOf, type RecordResult } from '../../src/evaluation/metrics.ts';
import { runEvaluation } from '../../src/evaluation/runner.ts';
import { runSequential, sequentialFolder, sequentialPoints, underAll } from '../../src/evaluation/sequential.ts';
import { readResults } from '../../src/evaluation/store.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { loadRecords } from '../../src/input/records.ts';
import { loadModel } from '../../src/models/load.ts';
import { visedit } from '../cli/start.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { type TinyWorld, temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
const at = (...parts: string[]): string => join(root, ...parts);
const model = at('model');
let world: TinyWorld;
const job = (editor: string, weights?: string) => ({
  model,
  editor,
  weights,
  data: world.test,
  images: world.images,
  batch: 2,
  maxNewTokens: 4,
});

beforeAll(async () => {
  writeRandomLlava(model, { positions: 256 });
  world = await writeTinyWorld(at('world'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

test('points are powers of ten and the number itself', () => {
  expect(sequentialPoints(1)).toEqual([1]);
  expect(sequentialPoints(10)).toEqual([1, 10]);
  expect(sequentialPoints(250)).toEqual([1, 10, 100, 250]);
});

test.each(['ft-l', 'vead'])('%s: every point equals the chain of the edits so far, made one by one', async (id) => {
  const editor = id === 'vead' ? vead : ftL;
  const vlm = loadModel(model, { threads: 1 });
  const weights =
    id === 'vead'
      ? await vead.train!(vlm, loadRecords(world.train, world.images), {
          out: at('trained'),
          seed: 1,
          steps: 3,
          batch: 4,
          settings: { ...recipeOf(vlm.decoder, 'vead').train, width: 32, influenceWidth: 24 },
        })
      : undefined;
  const path = at('weights.safetensors');
  if (weights !== undefined) writeEditorWeights(path, weights);
  const { points, manifest } = await runSequential(job(id, weights === undefined ? undefined : path), 3, {
    out: at(id),
    threads: 1,
  });
  expect(points.map(({ edits }) => edits)).toEqual([1, 3]);
  const madeOn = id === 'vead' ? 'the unedited model' : 'the model under the edits before';
  expect(manifest).toMatchObject({ finished: true, identity: { sequential: { edits: 3, madeOn } }, costs: { edits: 3 } });
  const records = loadRecords(world.test, world.images).slice(0, 3);
  const edits: Edit[] = [];
  const next =
    editor.sequence?.(vlm, weights) ?? (async (request: EditRequest) => (await editor.edit(vlm, [request], weights))[0]!);
  for (const { request } of records) edits.push(await next({ ...request, image: await decodeImage(request.image) }));
  for (const n of [1, 3]) {
    const edited = n === 1 ? editor.with(vlm, [edits[0]!]) : editor.chain!(vlm, edits.slice(0, n));
    const results = readResults(at(id, `after-${n}`));
    expect(results.map(({ index }) => index)).toEqual(records.slice(0, n).map(({ index }) => index));
    for (const [i, record] of records.slice(0, n).entries()) {
      for (const { kind, query } of askedOf(record)) {
        const image = query.image === null ? undefined : await decodeImage(query.image);
        const asked = { image, prompt: query.prompt, target: query.target };
        const [[forced], [free]] = [await edited.answerTargets([asked]), await edited.generate([asked], { maxNewTokens: 4 })];
        const found = (results[i] as RecordResult).queries[kind]!;
        expect(found.text, `${kind} of record ${i} after ${n}`).toBe(free!.text);
        expect(found.probability[1]).toBeCloseTo(Math.exp(forced!.logProbs.reduce((a, b) => a + b, 0)), 5);
      }
    }
  }
  await vlm.release();
});

test.each(['ft-l', 'vead'])(
  '%s: with restarts every run begins with the unedited model; each edit is asked for at its own moment too',
  async (id) => {
    const editor = id === 'vead' ? vead : ftL;
    const path = id === 'vead' ? at('weights.safetensors') : undefined;
    const asked = { ...job(id, path), limit: 8 };
    const options = { out: at(`${id}-restarts`), threads: 1, restarts: true, moments: 3 };
    const { points, manifest } = await runSequential(asked, 3, options);
    // Eight records are eight runs of one edit and two of three; the last two records make no run of three.
    expect(points.map(({ edits, evaluation, own }) => [edits, evaluation.count, own?.count])).toEqual([
      [1, 8, undefined],
      [3, 6, 6],
    ]);
    expect(manifest.identity.sequential).toMatchObject({ edits: 3, restarts: true, moments: 3 });
    const single = await runEvaluation(asked, { out: at(`${id}-single`), threads: 1 });
    expect(points[0]!.evaluation).toEqual(single.evaluation);

    const vlm = loadModel(model, { threads: 1 });
    const weights = path === undefined ? undefined : readEditorWeights(path);
    const records = loadRecords(world.test, world.images).slice(0, 6);
    for (const run of [records.slice(0, 3), records.slice(3)]) {
      const next =
        editor.sequence?.(vlm, weights) ?? (async (request: EditRequest) => (await editor.edit(vlm, [request], weights))[0]!);
      const edits: Edit[] = [];
      for (const { request } of run) edits.push(await next({ ...request, image: await decodeImage(request.image) }));
      for (const [i, { index, request }] of run.entries()) {
        const query = { ...request, image: await decodeImage(request.image) };
        for (const [own, until] of [
          [false, 3],
          [true, i + 1],
        ] as const) {
          const results = readResults(at(`${id}-restarts`, sequentialFolder(3, own)));
          const [forced] = await underAll(editor, vlm, edits.slice(0, until)).answerTargets([query]);
          const found = results.find((one) => one.index === index)!.queries.reliability!;
          expect(found.probability[1]).toBeCloseTo(Math.exp(forced!.logProbs.reduce((a, b) => a + b, 0)), 5);
        }
      }
    }
    await vlm.release();

    // A sample asks for some records of every length; what they answer is what they answered beside all others, and the interval is over them.
    const sampled = await runSequential(asked, 3, { ...options, out: at(`${id}-sample`), sample: 2 });
    expect(sampled.points.map(({ edits, evaluation, own }) => [edits, evaluation.count, own?.count])).toEqual([
      [1, 2, undefined],
      [3, 2, 2],
    ]);
    expect(sampled.manifest.identity.sequential).toMatchObject({ sample: 2 });
    for (const { edits, evaluation, interval } of sampled.points) {
      const all = new Map(readResults(at(`${id}-restarts`, `after-${edits}`)).map((one) => [one.index, one]));
      for (const { index, queries } of readResults(at(`${id}-sample`, `after-${edits}`)))
        expect(queries.reliability!.text).toBe(all.get(index)!.queries.reliability!.text);
      expect(interval!.low).toBeLessThanOrEqual(evaluation.average);
      expect(interval!.high).toBeGreaterThanOrEqual(evaluation.average);
    }

    // What a stop leaves: one batch of the second run, and nothing of the moments.
    const whole = readFileSync(at(`${id}-restarts`, 'after-3', 'records.jsonl'), 'utf8');
    const lines = whole.split('\n');
    writeFileSync(at(`${id}-restarts`, 'after-3', 'records.jsonl'), `${[3, 4, 5].map((i) => lines[i]).join('\n')}\n`);
    rmSync(at(`${id}-restarts`, 'after-3', 'summary.json'));
    rmSync(at(`${id}-restarts`, 'own-3'), { recursive: true });
    const again = await runSequential(asked, 3, { ...options, resume: true });
    expect(again.points).toEqual(points);
    expect(readFileSync(at(`${id}-restarts`, 'after-3', 'records.jsonl'), 'utf8')).toBe(whole);
  },
);

test('as a command: goes on after a stop with the same bytes, says what cannot be', async () => {
  const words = (...more: string[]): string[] => [
    ...['evaluate', '--model', model, '--editor', 'ft-l', '--data', world.test, '--images', world.images],
    ...['--batch', '2', '--max-new-tokens', '4', '--threads', '1', '--out', at('ft-l'), ...more],
  ];
  const bytes = (): string[] => ['after-1', 'after-3'].map((folder) => readFileSync(at('ft-l', folder, 'records.jsonl'), 'utf8'));
  const before = [...bytes(), readFileSync(at('ft-l', 'summary.json'), 'utf8')];
  rmSync(at('ft-l', 'summary.json'));
  rmSync(at('ft-l', 'after-3', 'summary.json'));
  // What a kill leaves: the first batch, and half of the next.
  const path = at('ft-l', 'after-3', 'records.jsonl');
  const [first, second] = readFileSync(path, 'utf8').split('\n');
  rmSync(path);
  writeFileSync(path, `${first}\n${second}\n{"index":2,"tar`);
  const { code, stdout, stderr } = await visedit(words('--sequential', '3', '--resume', '--json'));
  expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' });
  expect((JSON.parse(stdout) as { points: unknown[] }).points).toHaveLength(2);
  expect([...bytes(), readFileSync(at('ft-l', 'summary.json'), 'utf8')]).toEqual(before);
  const many = await visedit(words('--sequential', '99', '--resume'));
  expect(many.stderr).toContain('asks for more edits than the 11 records there are');
  expect((await visedit(words('--restarts', '--resume'))).stderr).toContain('--restarts is about edits that stay in the model');
  const jobs = await visedit(words('--sequential', '3', '--jobs', '2'));
  expect(jobs.stderr).toContain('works in one process');
  const vlm = loadModel(model, { threads: 1 });
  expect(() => underAll({ ...ftL, chain: undefined } as never, vlm, [{}, {}] as never)).toThrow('edits of ft-l do not combine');
  await vlm.release();
});
