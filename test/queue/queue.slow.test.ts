/** Records evaluated by workers through a real Redis: the bytes of a local run, whatever is killed meanwhile; what is wrong is said. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Random } from '../../src/random.ts';
import { root as clone, visedit } from '../cli/start.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { type TinyWorld, temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const hasRedis = spawnSync('redis-server', ['--version']).status === 0;
if (!hasRedis) {
  const message = 'no redis-server was found, which the tests of the queue need (Debian: apt-get install redis-server)';
  if (process.env.CI) throw new Error(message);
  console.warn(`${message}; they are skipped`);
}

const folder = temporaryFolder();
const at = (...parts: string[]): string => join(folder, ...parts);
const started = new Set<ChildProcess>();
let world: TinyWorld;
let port: number;
let url: string;
let redis: ChildProcess;

function start(program: string, words: readonly string[], env: Record<string, string> = {}): ChildProcess & { said: string } {
  const child = Object.assign(spawn(program, words, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] }), {
    said: '',
  });
  for (const stream of [child.stdout!, child.stderr!])
    stream.on('data', (piece: Buffer) => {
      child.said += piece.toString();
    });
  started.add(child);
  return child;
}

const until = async (holds: () => boolean, what: string): Promise<void> => {
  for (let i = 0; i < 3000; i++) {
    if (holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`waited a minute for ${what}`);
};

const worker = (): ChildProcess & { said: string } =>
  start(process.execPath, [`${clone}bin/visedit`, 'worker', '--queue', url], { VISEDIT_QUEUE_LOCK: '3000' });

const words = (out: string, ...more: string[]): string[] => [
  ...['evaluate', '--model', at('model'), '--editor', 'ft-l', '--data', world.test, '--images', world.images],
  ...['--batch', '2', '--max-new-tokens', '8', '--out', at(out), ...more],
];
const records = (out: string): string => readFileSync(at(out, 'records.jsonl'), 'utf8');

async function startRedis(): Promise<void> {
  redis = start('redis-server', [
    '--port',
    String(port),
    '--bind',
    '127.0.0.1',
    '--save',
    '',
    '--appendonly',
    'no',
    '--dir',
    folder,
  ]);
  await until(() => (redis as ChildProcess & { said: string }).said.includes('Ready to accept connections'), 'Redis');
}

beforeAll(async () => {
  if (!hasRedis) return;
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  port = (server.address() as { port: number }).port;
  server.close();
  url = `redis://127.0.0.1:${port}`;
  writeRandomLlava(at('model'), { positions: 256 });
  world = await writeTinyWorld(at('world'), { vqaTest: 24 });
  await startRedis();
  expect((await visedit(words('local', '--jobs', '2'))).code).toBe(0);
});

afterAll(async () => {
  for (const child of started) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

test.skipIf(!hasRedis)(
  'workers that are killed lose no record, and the records are those of a local run',
  async () => {
    const random = new Random('workers');
    let workers = [worker(), worker()];
    const run = visedit(words('shared', '--queue', url));
    let kills = 0;
    const lines = (): number => (existsSync(at('shared', 'records.jsonl')) ? records('shared').split('\n').length - 1 : 0);
    const killing = (async () => {
      for (const enough of [2, 8, 14]) {
        await until(() => lines() >= enough, `${enough} records`);
        await new Promise((resolve) => setTimeout(resolve, 300 * random.uniform()));
        const [first, ...rest] = workers;
        first!.kill('SIGKILL');
        kills++;
        workers = [...rest, worker()];
      }
    })();
    const ended = await run;
    await killing;
    expect([ended.code, ended.code === 0 ? '' : ended.stderr]).toEqual([0, '']);
    expect(kills).toBe(3);
    expect(records('shared')).toBe(records('local'));
    const [last] = workers;
    last!.kill('SIGTERM');
    expect((await once(last!, 'exit'))[0]).toBe(0);
    for (const one of workers) one.kill('SIGKILL');
  },
  300_000,
);

test.skipIf(!hasRedis)(
  'a worker passes over what is no batch, loads no code that it was not given, and works on',
  async () => {
    const one = worker();
    const queue = new Queue('visedit', { connection: { url } });
    const job = { model: at('model'), editor: at('evil.mjs'), data: world.test, images: world.images, batch: 2, maxNewTokens: 8 };
    writeFileSync(at('evil.mjs'), `import { writeFileSync } from 'node:fs'; writeFileSync(${JSON.stringify(at('ran'))}, '');`);
    const identity = { model: { name: 'm', fingerprint: 'f' }, editor: { id: 'evil' } };
    const times = (): number => one.said.split('passed over: the batch in the queue').length - 1;
    for (const data of [null, { job }, { job, identity, batch: 0 }]) await queue.add('batch', data);
    await until(() => times() === 3, 'three batches that are passed over');
    await queue.close();
    expect(existsSync(at('ran'))).toBe(false);
    one.kill('SIGTERM');
    expect((await once(one, 'exit'))[0]).toBe(0);
  },
  300_000,
);

test.skipIf(!hasRedis)(
  'a run that is killed goes on where it was',
  async () => {
    const one = worker();
    const child = start(process.execPath, [`${clone}bin/visedit`, ...words('broken', '--queue', url)]);
    await until(() => existsSync(at('broken', 'records.jsonl')) && records('broken').includes('\n'), 'a record');
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect((await visedit(words('broken', '--resume', '--queue', url))).code).toBe(0);
    expect(records('broken')).toBe(records('local'));
    one.kill('SIGKILL');
  },
  300_000,
);

test.skipIf(!hasRedis)(
  'a worker whose files are others ends and says what differs',
  async () => {
    const one = worker();
    const queue = new Queue('visedit', { connection: { host: '127.0.0.1', port } });
    const { identity } = JSON.parse(readFileSync(at('local', 'manifest.json'), 'utf8'));
    const job = { model: at('model'), editor: 'ft-l', data: world.test, images: world.images, batch: 2, maxNewTokens: 8 };
    const other = { ...identity, model: { ...identity.model, fingerprint: 'another' } };
    await queue.add('batch', { job, identity: other, batch: 0 }, { attempts: 1 });
    const [code] = await once(one, 'exit');
    expect([code, one.said]).toEqual([
      1,
      expect.stringMatching(/not those of the run:\n {2}model\.fingerprint: there "another", here "/),
    ]);
    await queue.obliterate({ force: true });
    await queue.close();
  },
  120_000,
);

test.skipIf(!hasRedis)(
  'Redis that is full, goes away or is not there is told',
  async () => {
    const client = new Redis(url);
    await client.config('SET', 'maxmemory', '1');
    const full = await visedit(words('full', '--queue', url));
    expect([full.code, full.stderr]).toEqual([1, expect.stringMatching(/Redis is full and takes no batches/)]);
    await client.config('SET', 'maxmemory', '0');
    client.disconnect();
    const waiting = start(process.execPath, [`${clone}bin/visedit`, ...words('alone', '--queue', url)], {
      VISEDIT_QUEUE_PATIENCE: '2',
    });
    await until(() => waiting.said.includes('no worker takes batches'), 'the warning that nobody works');
    redis.kill('SIGKILL');
    const [code] = await once(waiting, 'exit');
    expect([code, waiting.said]).toEqual([
      1,
      expect.stringMatching(/did not come back\. What was finished is kept\. Run again with --resume/),
    ]);
    const none = await visedit(words('none', '--queue', url));
    expect([none.code, none.stderr]).toEqual([
      1,
      expect.stringMatching(/no Redis answers at redis:.*apt-get install redis-server/),
    ]);
    await startRedis();
  },
  300_000,
);
