/** How a server lives and ends: kills, drains, clients that leave, too many at once, work that takes too long. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { appendFileSync, cpSync, mkdirSync, readdirSync, rmSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Random } from '../../src/random.ts';
import { root, visedit } from '../cli/start.ts';
import { temporaryFolder } from '../tiny-world.ts';
import { ask, type Harness, isErrorBody, messages, requestOf, startHarness } from './harness.ts';

const ended = (child: ChildProcess): Promise<number | null> => new Promise((resolve) => child.on('close', resolve));

describe('as a process', () => {
  const folder = temporaryFolder();
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const served = ['serve', '--model', 'mini-llava', '--port', '0', '--data-dir', join(folder, 'data'), '--threads', '1'];
  async function start(words = served): Promise<{ child: ChildProcess; url: string; end: Promise<number | null> }> {
    const child = spawn(process.execPath, [`${root}bin/visedit`, ...words], { stdio: ['ignore', 'ignore', 'pipe'] });
    const end = ended(child);
    let text = '';
    const url = await new Promise<string>((resolve, reject) => {
      child.stderr!.on('data', (piece) => {
        text += piece;
        const found = /Serving .* at (http:\S+);/.exec(text)?.[1];
        if (found !== undefined) resolve(found);
      });
      void end.then(() => reject(new Error(text)));
    });
    return { child, url, end };
  }

  test('with --private-copy the files of a model may be cut off while it answers', async () => {
    const [mine, copies] = [join(folder, 'mine'), join(folder, 'copies')];
    cpSync(join(root, 'models/mini-llava'), mine, { recursive: true });
    // As a killed server leaves it.
    const gone = spawnSync(process.execPath, ['-e', '']).pid;
    mkdirSync(join(copies, `.private-copy.${gone}.x`), { recursive: true });
    const words = ['serve', '--model', mine, '--port', '0', '--data-dir', join(folder, 'more'), '--private-copy', copies];
    const { child, url, end } = await start(words);
    expect(readdirSync(copies)).toEqual([expect.stringContaining(`.private-copy.${child.pid}.`)]);
    const chat = { model: 'mine', messages: [{ role: 'user', content: 'hello' }], max_tokens: 8 };
    const before = await ask(url, 'POST', '/v1/chat/completions', chat);
    truncateSync(join(mine, 'model.safetensors'), 4096);
    const after = await ask(url, 'POST', '/v1/chat/completions', chat);
    expect([before.status, after.status]).toEqual([200, 200]);
    expect(after.json.choices).toEqual(before.json.choices);
    child.kill('SIGTERM');
    expect(await end).toBe(0);
    expect(readdirSync(copies)).toEqual([]);
  }, 180_000);

  test('an edit outlives kill -9 and gives the same answers after a restart; SIGTERM ends with 0', async () => {
    const harness = await startHarness();
    const edit = requestOf(harness.records.find(({ edit }) => edit === 'counterfactual')!);
    await harness.close();
    const first = await start();
    const made = await ask(first.url, 'POST', '/v1/edits', { model: 'mini-llava', set: 'kept', editor: 'vead', ...edit });
    expect(made.status).toBe(201);
    const chat = { model: 'mini-llava@kept', messages: messages(edit.prompt, edit.image), logprobs: true };
    const before = await ask(first.url, 'POST', '/v1/chat/completions', chat);
    first.child.kill('SIGKILL');
    await first.end;
    const second = await start();
    const after = await ask(second.url, 'POST', '/v1/chat/completions', chat);
    expect(after.json.choices).toEqual(before.json.choices);
    expect(after.json.choices[0].message.content).toBe(edit.target);
    expect((await ask(second.url, 'GET', `/v1/edits/${made.json.id}`)).json).toEqual(made.json);
    // Its sets are ledgers: looked at beside the server, changed when it is gone.
    const set = `${join(folder, 'data')}#kept`;
    const edits = async (word: string, ...more: string[]) => visedit(['edits', word, set, ...more, '--json', '--quiet']);
    const listed = JSON.parse((await edits('list')).stdout);
    expect(listed.sets[0].edits).toMatchObject([{ id: made.json.id, form: 'bare', enabled: true }]);
    const tested = JSON.parse((await edits('test')).stdout);
    expect([tested.failed, tested.edits.length]).toEqual([0, 1]);
    const refused = await edits('disable', '1');
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining(`in use by process ${second.child.pid}`)]);
    second.child.kill('SIGTERM');
    expect(await second.end).toBe(0);
    expect(JSON.parse((await edits('disable', '1')).stdout).entries).toEqual([{ id: made.json.id, enabled: false }]);
    const third = await start();
    expect((await ask(third.url, 'GET', '/v1/sets/mini-llava@kept')).json).toMatchObject({ revision: 2 });
    third.child.kill('SIGTERM');
    await third.end;
  }, 180_000);
});

const mounts = process.platform === 'linux' && process.getuid?.() === 0;
test.skipIf(!mounts)(
  'on a full disk changes are refused with 507, nothing is left of them, and edits can be deleted',
  async ({ skip }) => {
    const folder = temporaryFolder();
    if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', folder]).status !== 0)
      skip('no file system can be mounted here');
    try {
      const harness = await startHarness({ dataDir: folder });
      const edit = { model: 'mini-llava', editor: 'vead', probes: 'none', ...requestOf(harness.records[0]!) };
      const made = await harness.ask('POST', '/v1/edits', edit);
      expect(made.status).toBe(201);
      // Files of edits and pictures have no room; a line of the log may have.
      for (let size = 65_536; size >= 1024; size /= 2)
        try {
          for (;;) appendFileSync(join(folder, 'ballast'), Buffer.alloc(size));
        } catch {}
      const files = () => ['edits', 'pictures', 'uploads'].map((name) => readdirSync(join(folder, name)));
      const before = files();
      const file = `data:;base64,${Buffer.alloc(100_000, 1).toString('base64')}`;
      const image = await sharp({ create: { width: 90, height: 90, channels: 3, background: '#234' } })
        .png()
        .toBuffer();
      const picture = { image: `data:image/png;base64,${image.toString('base64')}` };
      for (const [path, body] of [
        ['/v1/edits', edit],
        ['/v1/edits', { model: 'mini-llava', file }],
        ['/v1/pictures', picture],
      ] as const) {
        const { status, json } = await harness.ask('POST', path, body);
        expect([path, status, json.error.code]).toEqual([path, 507, 'storage_full']);
      }
      expect(files()).toEqual(before);
      expect((await harness.ask('GET', '/v1/edits')).json.total).toBe(1);
      expect((await harness.ask('DELETE', `/v1/edits/${made.json.id}`)).status).toBe(200);
      expect((await harness.ask('GET', '/readyz')).status).toBe(200);
      await harness.close();
    } finally {
      spawnSync('umount', [folder]);
      rmSync(folder, { recursive: true, force: true });
    }
  },
  60_000,
);

test('what cannot be served is said before anything is opened, or with what to do', async () => {
  const open = await visedit(['serve', '--host', '0.0.0.0', '--data-dir', '/nowhere/data']);
  expect([open.code, open.stderr]).toEqual([1, expect.stringContaining('give a key with --key or VISEDIT_KEY')]);
  const lonely = await visedit(['serve', '--images', root]);
  expect([lonely.code, lonely.stderr]).toEqual([1, expect.stringContaining('one --images for each --data')]);
}, 60_000);

describe('under load', () => {
  let harness: Harness;
  let question: { prompt: string; image: string };
  /** work of many steps */
  let long: Record<string, unknown>;

  beforeAll(async () => {
    harness = await startHarness({ queue: 2, concurrency: 1 });
    const { image, prompt } = requestOf(harness.records[0]!);
    question = { image, prompt };
    long = { model: 'mini-llava', ...question, draws: 100, parts: ['visual'] };
  }, 60_000);
  afterAll(() => harness.close());
  test('a port that is taken is named', async () => {
    const { port } = new URL(harness.server.url);
    await expect(startHarness({ port: Number(port) })).rejects.toThrow(`port ${port} of 127.0.0.1 is taken`);
  }, 60_000);

  const chat = () =>
    harness.ask('POST', '/v1/chat/completions', { model: 'mini-llava', messages: messages(question.prompt, question.image) });

  test('who comes when the queue is full is told when to come again; the others are answered alike', async () => {
    const answers = await Promise.all(Array.from({ length: 12 }, chat));
    const refused = answers.filter(({ status }) => status === 429);
    const answered = answers.filter(({ status }) => status === 200);
    expect(refused.length + answered.length).toBe(12);
    expect(answered.length).toBeGreaterThanOrEqual(3);
    expect(refused.length).toBeGreaterThan(0);
    for (const { json, headers } of refused) {
      expect(json.error.code).toBe('queue_full');
      expect(Number(headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    }
    expect(new Set(answered.map(({ json }) => json.choices[0].message.content)).size).toBe(1);
  });

  test('a client that leaves stops its work, at the next step, and leaves no trace', async () => {
    const { services } = harness.server;
    const leaving = new AbortController();
    const body = JSON.stringify(long);
    const asked = fetch(`${harness.server.url}/v1/attributions`, {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/json' },
      signal: leaving.signal,
    });
    await expect.poll(() => services.queue.running, { interval: 5, timeout: 10_000 }).toBe(1);
    leaving.abort();
    await expect(asked).rejects.toThrow();
    await expect.poll(() => services.queue.running, { timeout: 10_000 }).toBe(0);
    expect((await chat()).status).toBe(200);

    // The same without HTTP, where the steps can be counted.
    const order = {
      under: { model: 'mini-llava', edits: [] },
      prompt: question.prompt,
      image: undefined,
      ...{ answer: [], position: 0, key: undefined, parts: ['visual' as const], layers: undefined, draws: 20, sigma: undefined },
      ...{ protocol: 'paper' as const, error: 0.04, budget: 1000, noiseAt: 'hidden' as const, seed: 0, top: 1, before: false },
    };
    const stop = new AbortController();
    const steps: string[] = [];
    const source = { url: question.image, param: 'image' };
    const work = services.inTurn('long', { signal: stop.signal }, (own) =>
      services.pictures.with([source], own, ([image]) =>
        services.inEngine('attribution', { ...order, image }, own, ({ note }) => {
          steps.push(note);
          if (steps.length === 2) stop.abort();
        }),
      ),
    );
    await expect(work).rejects.toThrow('nobody waits');
    // Eight steps in all.
    expect(steps.length).toBeLessThanOrEqual(4);
  });

  test('a stream that is left in the middle frees its turn', async () => {
    const leaving = new AbortController();
    const response = await fetch(`${harness.server.url}/v1/chat/completions`, {
      method: 'POST',
      body: JSON.stringify({ model: 'mini-llava', messages: messages('Describe the picture.', question.image), stream: true }),
      headers: { 'content-type': 'application/json' },
      signal: leaving.signal,
    });
    await response.body!.getReader().read();
    leaving.abort();
    await expect.poll(() => harness.server.services.queue.running, { timeout: 10_000 }).toBe(0);
    expect((await chat()).status).toBe(200);
  });

  test('an edit of many steps lets go within a step, when its job is cancelled, its client leaves, or the time is up; none of them is kept', async () => {
    const { services } = harness.server;
    const edit = { model: 'mini-llava', editor: 'ft-v', set: 'stopped', ...question, target: 'pizza', probes: 'none' };
    const letsGo = async (): Promise<number> => {
      const began = performance.now();
      await expect.poll(() => services.queue.running, { interval: 5, timeout: 20_000 }).toBe(0);
      return performance.now() - began;
    };
    // Programs are opened once; opening one is a step of its own.
    const whole = performance.now();
    expect((await harness.ask('POST', '/v1/edits', edit)).status).toBe(201);
    const took = performance.now() - whole;
    const random = new Random('cancelled');
    let kept = 1;
    for (let i = 0; i < 24; i++) {
      const job = (await harness.ask('POST', '/v1/edits', { ...edit, background: true })).json;
      await new Promise((resolve) => setTimeout(resolve, random.uniform() * 1.2 * took));
      const removed = (await harness.ask('DELETE', `/v1/jobs/${job.id}`)).json.state;
      expect(await letsGo()).toBeLessThan(2000);
      expect((await harness.ask('GET', `/v1/jobs/${job.id}`)).json?.state ?? 'done').toBe(removed);
      if (removed === 'done') kept++;
      expect((await harness.ask('GET', '/v1/edits?set=stopped')).json.total).toBe(kept);
    }
    for (let i = 0; i < 6; i++) {
      const leaving = new AbortController();
      const headers = { 'content-type': 'application/json' };
      const request = { method: 'POST', body: JSON.stringify(edit), headers, signal: leaving.signal };
      const asked = fetch(`${harness.server.url}/v1/edits`, request);
      setTimeout(() => leaving.abort(), random.uniform() * 0.8 * took);
      const answered = await asked.then(
        () => true,
        () => false,
      );
      await letsGo();
      // Who leaves while the answer is on its way may have made an edit.
      const { total } = (await harness.ask('GET', '/v1/edits?set=stopped')).json;
      expect(answered ? [kept + 1] : [kept, kept + 1]).toContain(total);
      kept = total;
    }
    expect(readdirSync(join(harness.folder, 'data', 'edits')).length).toBe((await harness.ask('GET', '/v1/edits')).json.total);
  }, 120_000);

  test('edits of seconds hold up no answer of milliseconds', async () => {
    await chat();
    const alone: number[] = [];
    const busy: number[] = [];
    const measured = async (times: number[]) => {
      const began = performance.now();
      expect((await chat()).status).toBe(200);
      times.push(performance.now() - began);
    };
    for (let i = 0; i < 9; i++) await measured(alone);
    const edit = { model: 'mini-llava', editor: 'ft-l', ...question, target: 'pizza', background: true };
    const jobs = [];
    for (let i = 0; i < 2; i++) jobs.push((await harness.ask('POST', '/v1/edits', { ...edit, set: `busy${i}` })).json.id);
    const isWorking = () => harness.server.services.queue.running > 0;
    while (isWorking() && busy.length < 30) await measured(busy);
    for (const id of jobs) await harness.ask('DELETE', `/v1/jobs/${id}`);
    await expect.poll(isWorking).toBe(false);
    const median = (times: number[]) => [...times].sort((a, b) => a - b)[Math.floor(times.length / 2)]!;
    console.log(JSON.stringify({ alone: median(alone), busy: median(busy), answers: busy.length }));
    expect(busy.length).toBeGreaterThan(2);
    expect(median(busy)).toBeLessThan(median(alone) + 400);
  }, 60_000);

  test('work that takes too long ends with 504, and the next request is answered', async () => {
    const slow = await startHarness({ timeout: 0.05 });
    const answer = await slow.ask('POST', '/v1/attributions', { ...long, before: false });
    expect([answer.status, answer.json.error.code]).toEqual([504, 'timeout']);
    await expect.poll(() => slow.server.services.queue.running).toBe(0);
    expect((await slow.ask('GET', '/readyz')).status).toBe(200);
    await slow.close();
  }, 60_000);

  test('while it drains, running work is finished, new requests are refused, and probes are answered', async () => {
    const draining = await startHarness({ drain: 60 });
    const running = draining.ask('POST', '/v1/attributions', { ...long, draws: 30 });
    await expect.poll(() => draining.server.services.queue.running, { interval: 5, timeout: 10_000 }).toBe(1);
    const stopped = draining.server.stop();
    const late = await draining.ask('GET', '/v1/models');
    expect([late.status, isErrorBody(late.json), late.headers.get('retry-after')]).toEqual([503, true, '5']);
    expect((await draining.ask('GET', '/readyz')).status).toBe(503);
    expect((await draining.ask('GET', '/healthz')).status).toBe(200);
    expect((await running).status).toBe(200);
    await stopped;
    await expect(draining.ask('GET', '/healthz')).rejects.toThrow();
    await draining.close();
  }, 60_000);

  test('work that does not finish in time when the server stops is told so', async () => {
    const hurried = await startHarness({ drain: 0 });
    const running = hurried.ask('POST', '/v1/attributions', long);
    await expect.poll(() => hurried.server.services.queue.running, { interval: 5, timeout: 10_000 }).toBe(1);
    await hurried.close();
    expect((await running).json.error.code).toBe('draining');
  }, 60_000);
});

test('weights that change under the server: 503 that names the file, never an answer of two models', async () => {
  const folder = temporaryFolder();
  const model = join(folder, 'my-model');
  cpSync(join(root, 'models/mini-llava'), model, { recursive: true });
  const own = await startHarness({ models: [model] });
  try {
    const chat = () =>
      own.ask('POST', '/v1/chat/completions', { model: 'my-model', messages: messages('what is a dog?'), max_tokens: 2 });
    expect((await chat()).status).toBe(200);
    const weights = join(model, 'model.safetensors');
    truncateSync(weights, statSync(weights).size - 4096);
    for (const body of [{}, { stream: true }]) {
      const { status, json, text } = await own.ask('POST', '/v1/chat/completions', {
        model: 'my-model',
        messages: messages('what is a cat?'),
        max_tokens: 2,
        ...body,
      });
      if (status !== 200) expect([status, json.error.code]).toEqual([503, 'weights_changed']);
      expect(text).toContain('my-model/model.safetensors was changed on the disk');
      expect(text).not.toContain(folder);
    }
    expect((await own.ask('GET', '/healthz')).status).toBe(200);
  } finally {
    await own.close();
    rmSync(folder, { recursive: true });
  }
});
