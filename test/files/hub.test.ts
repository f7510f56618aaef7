/** `pull` against a hub on this machine. */
import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, expect, test } from 'vitest';
import { hubFolder, neededFiles, type PullOptions, pull } from '../../src/files/hub.ts';
import { loadModel } from '../../src/models/load.ts';
import { Random } from '../../src/random.ts';
import { root } from '../cli/start.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { type Hub, type HubOptions, startHub } from './hub-server.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-hub-'));
afterAll(() => rmSync(scratch, { recursive: true }));
const model = writeRandomLlava(join(scratch, 'source'));
const files: Record<string, Buffer> = Object.fromEntries(
  readdirSync(model).map((name) => [name, readFileSync(join(model, name))]),
);
const others = {
  'README.md': Buffer.from('# read me'),
  'pytorch_model.bin': Buffer.alloc(100),
  'onnx/model.onnx': Buffer.alloc(10),
};
const weights = files['model.safetensors']!;

let hub: Hub | undefined;
let count = 0;
afterEach(() => hub?.close());
const start = async (given: Partial<HubOptions> = {}): Promise<Hub> => {
  hub = await startHub({ files: { ...files, ...others }, ...given });
  return hub;
};
const fresh = (): string => join(scratch, `out-${count++}`);
const fetchTo = (out: string, more: PullOptions = {}) =>
  pull('org/model', { out, endpoint: hub!.endpoint, retryDelay: 1, ...more });

test('fetches what is read and nothing else, checked, and the folder opens', async () => {
  const { requests } = await start();
  const out = fresh();
  const seen: [number, number | undefined][] = [];
  const result = await fetchTo(out, { onProgress: (done, total) => void seen.push([done, total]) });
  expect(readdirSync(out).sort()).toEqual([...Object.keys(files), '.visedit-pull.json'].sort());
  for (const [name, data] of Object.entries(files)) expect(readFileSync(join(out, name)).equals(data), name).toBe(true);
  expect(result.commit).toBe('a'.repeat(40));
  expect(result.files.find(({ name }) => name === 'model.safetensors')).toEqual({
    name: 'model.safetensors',
    bytes: weights.length,
    sha256: true,
  });
  expect(seen.at(-1)).toEqual([result.bytes, result.bytes]);
  expect(loadModel(out, { threads: 1 }).architecture.name).toBe('llava');
  // Again: nothing is fetched.
  const before = requests.filter(({ method, path }) => method === 'GET' && !path.startsWith('/api/')).length;
  await fetchTo(out);
  expect(requests.filter(({ method, path }) => method === 'GET' && !path.startsWith('/api/'))).toHaveLength(before);
});

test('config.json is read first: a model that cannot be opened is refused before anything else is fetched', async () => {
  const { requests } = await start();
  const out = fresh();
  const refuse = (): never => {
    throw new Error('not this one');
  };
  await expect(fetchTo(out, { checkConfig: refuse })).rejects.toThrow('not this one');
  expect(existsSync(out)).toBe(false);
  const asked = requests.filter(({ path }) => path.includes('/resolve/')).map(({ path }) => path.split('/').at(-1));
  expect(new Set(asked)).toEqual(new Set(['config.json']));
  // What was fetched before stays.
  writePart(out, 'model.safetensors', 5000);
  await expect(fetchTo(out, { checkConfig: refuse })).rejects.toThrow('not this one');
  expect(statSync(join(out, 'model.safetensors.part')).size).toBe(5000);
  const read: unknown[] = [];
  const result = await fetchTo(out, { checkConfig: (path) => read.push(JSON.parse(readFileSync(path, 'utf8'))) });
  expect(read).toEqual([JSON.parse(files['config.json']!.toString())]);
  expect(result.files.map(({ name }) => name).sort()).toEqual(Object.keys(files).sort());
  expect(loadModel(out, { threads: 1 }).architecture.name).toBe('llava');
});

test('a connection that breaks again and again is taken up where it broke', async () => {
  const { requests } = await start({ cut: { after: 10_000, times: 4 } });
  const out = fresh();
  await fetchTo(out);
  expect(readFileSync(join(out, 'model.safetensors')).equals(weights)).toBe(true);
  const ranges = requests.filter(({ range }) => range !== undefined).map(({ range }) => range);
  expect(ranges).toContain('bytes=10000-');
  expect(ranges).toContain('bytes=20000-');
});

test('a server without HEAD, ranges and hashes', async () => {
  await start({ plain: true, cut: { after: 10_000, times: 1 } });
  const out = fresh();
  await fetchTo(out);
  expect(readFileSync(join(out, 'model.safetensors')).equals(weights)).toBe(true);
});

test('a connection that always breaks: the message says what to do, and what came is kept', async () => {
  await start({ cut: { after: 0, times: 1000 } });
  const out = fresh();
  writePart(out, 'config.json', 5);
  await expect(fetchTo(out)).rejects.toThrow(/config\.json broke off .*What is there is kept; run the same command to go on/);
  expect(statSync(join(out, 'config.json.part')).size).toBe(5);
});

/** A folder as a killed download leaves it. */
function writePart(out: string, name: string, length: number, change = (data: Buffer): Buffer => data): void {
  mkdirSync(out, { recursive: true });
  const all = { ...files };
  const etag = (key: string): string => hashes[key]!;
  const manifest = {
    id: 'org/model',
    revision: 'main',
    complete: false,
    files: Object.fromEntries(Object.keys(all).map((key) => [key, { size: all[key]!.length, etag: etag(key) }])),
  };
  writeFileSync(join(out, '.visedit-pull.json'), JSON.stringify(manifest));
  writeFileSync(join(out, `${name}.part`), change(Buffer.from(files[name]!.subarray(0, length))));
}
const hashes: Record<string, string> = {};
{
  const probe = await startHub({ files });
  const out = join(scratch, 'probe');
  await pull('org/model', { out, endpoint: probe.endpoint });
  await probe.close();
  const manifest = JSON.parse(readFileSync(join(out, '.visedit-pull.json'), 'utf8'));
  for (const [name, { etag }] of Object.entries<{ etag: string }>(manifest.files)) hashes[name] = etag;
}

test.each(['../victim.txt', '/etc/victim', 'sub/../../victim.txt', '.hidden', 'a/b/c', ''])(
  'a record of a download that names %j: nothing is deleted or written',
  async (name) => {
    await start();
    const out = fresh();
    const victim = join(scratch, 'victim.txt');
    writeFileSync(victim, 'mine');
    writePart(out, 'config.json', 5);
    const path = join(out, '.visedit-pull.json');
    const manifest = JSON.parse(readFileSync(path, 'utf8'));
    writeFileSync(path, JSON.stringify({ ...manifest, files: { ...manifest.files, [name]: {} } }));
    const before = readdirSync(out).sort();
    await expect(fetchTo(out)).rejects.toThrow(/is not empty, and not a download of org\/model/);
    expect(readFileSync(victim, 'utf8')).toBe('mine');
    expect(readdirSync(out).sort()).toEqual(before);
  },
);

test('a folder or a file in the download that is a link leads nowhere', async () => {
  await start();
  const elsewhere = join(scratch, 'elsewhere');
  mkdirSync(elsewhere, { recursive: true });
  writeFileSync(join(elsewhere, 'config.json'), 'mine');
  const out = fresh();
  writePart(out, 'config.json', 5);
  const path = join(out, '.visedit-pull.json');
  const manifest = JSON.parse(readFileSync(path, 'utf8'));
  symlinkSync(elsewhere, join(out, 'sub'));
  writeFileSync(path, JSON.stringify({ ...manifest, files: { ...manifest.files, 'sub/config.json': {} } }));
  await expect(fetchTo(out)).rejects.toThrow(/sub is a link that leads out of/);
  writeFileSync(path, JSON.stringify(manifest));
  rmSync(join(out, 'config.json.part'));
  symlinkSync(join(elsewhere, 'config.json'), join(out, 'config.json.part'));
  await fetchTo(out);
  expect(readFileSync(join(elsewhere, 'config.json'), 'utf8')).toBe('mine');
  expect(readFileSync(join(out, 'config.json')).equals(files['config.json']!)).toBe(true);
});

test('a part of other contents is thrown away, a damaged one found out by the hash', async () => {
  const { requests, options } = await start();
  const out = fresh();
  writePart(out, 'model.safetensors', 5000, (data) => data.fill(7));
  await expect(fetchTo(out)).rejects.toThrow(
    /model\.safetensors arrived damaged: its SHA-256 is [0-9a-f]{64}, the hub says [0-9a-f]{64}/,
  );
  expect(existsSync(join(out, 'model.safetensors'))).toBe(false);
  expect(existsSync(join(out, 'model.safetensors.part'))).toBe(false);
  await fetchTo(out);
  expect(readFileSync(join(out, 'model.safetensors')).equals(weights)).toBe(true);

  const next = fresh();
  writePart(next, 'model.safetensors', 5000);
  const changed = Buffer.from(weights);
  changed[changed.length - 1]! ^= 1;
  options.files = { ...options.files, 'model.safetensors': changed };
  requests.length = 0;
  await fetchTo(next);
  expect(requests.filter(({ range }) => range !== undefined)).toEqual([]);
  expect(readFileSync(join(next, 'model.safetensors')).equals(changed)).toBe(true);
});

test('damage on the way', async () => {
  await start({ damage: true });
  await expect(fetchTo(fresh())).rejects.toThrow(/model\.safetensors arrived damaged/);
});

test.each([
  [
    'no such model',
    { status: 404, errorCode: 'RepoNotFound' },
    /there is no model org\/model with a revision main at http.*check its name \(HTTP 404\)/,
  ],
  [
    'no such model, as the hub says it to strangers',
    { status: 401, errorCode: 'RepoNotFound' },
    /there is no public model org\/model .*HTTP 401/,
  ],
  [
    'gated',
    { status: 401, errorCode: 'GatedRepo' },
    /org\/model is gated or private: accept its terms at .*org\/model and set HF_TOKEN/,
  ],
  ['gated, refused', { status: 403 }, /gated or private/],
  ['no such revision', { status: 404, errorCode: 'RevisionNotFound' }, /org\/model has no revision main/],
  ['a hub that is ill', { status: 503 }, /answered HTTP 503 .*try again later/],
])('%s', async (_, given, message) => {
  await start(given);
  const out = fresh();
  await expect(fetchTo(out)).rejects.toThrow(message);
  expect(existsSync(out)).toBe(false);
});

test('no network, wrong addresses and names', async () => {
  const closed = await start();
  await closed.close();
  await expect(fetchTo(fresh())).rejects.toThrow(
    /cannot reach http:\/\/127\.0\.0\.1:\d+ \(ECONNREFUSED\); check the network, or name another hub with --endpoint/,
  );
  await expect(fetchTo(fresh(), { endpoint: 'ftp://x' })).rejects.toThrow(/is not the address of a hub/);
  for (const id of ['model', '../model', 'org/..', 'org/a/b', 'org/na me', ''])
    await expect(pull(id)).rejects.toThrow(/is not the name of a hub model; give ORG\/NAME/);
});

test('a disk that is too small is found before anything is fetched', async () => {
  const { requests } = await start();
  const out = fresh();
  await expect(fetchTo(out, { freeBytes: () => 1000 })).rejects.toThrow(
    /org\/model needs \d+\.\d+ GB more, .* has 0\.00 GB free/,
  );
  expect(requests.filter(({ method, path }) => method === 'GET' && !path.startsWith('/api/'))).toEqual([]);
  expect(existsSync(out)).toBe(false);
});

test('a model without weights, and a folder of something else, are refused', async () => {
  await start({ files: { 'config.json': files['config.json']!, 'model.gguf': Buffer.alloc(3) } });
  await expect(fetchTo(fresh())).rejects.toThrow(
    /org\/model has no weights that are read here .*it has config\.json, model\.gguf/,
  );
  hub!.options.files = files;
  await expect(fetchTo(model)).rejects.toThrow(/is not empty, and not a download of org\/model/);
});

test('the token goes to the hub and nowhere else', async () => {
  const other = await startHub({ files });
  const { requests, endpoint } = await start({ store: other.endpoint });
  process.env.HF_TOKEN = 'a-word';
  try {
    await fetchTo(fresh(), { endpoint });
    expect(requests.every(({ authorization }) => authorization === 'Bearer a-word')).toBe(true);
    expect(other.requests.map(({ path, authorization }) => [path, authorization])).toEqual([
      ['/org/model/elsewhere/model.safetensors', undefined],
    ]);
  } finally {
    delete process.env.HF_TOKEN;
    await other.close();
  }
});

test('which files are needed', () => {
  const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors', 'model.safetensors.index.json'];
  const bins = ['pytorch_model-00001-of-00002.bin', 'pytorch_model-00002-of-00002.bin', 'pytorch_model.bin.index.json'];
  expect(neededFiles(['config.json', '.gitattributes', ...shards, ...bins])).toEqual([
    'config.json',
    shards[2],
    shards[0],
    shards[1],
  ]);
  expect(neededFiles(['config.json', ...bins, 'training_args.bin'])).toEqual(['config.json', bins[2], bins[0], bins[1]]);
  expect(
    neededFiles(['model.safetensors', ...shards, '../model.safetensors', 'a/../../model.safetensors', 'fp16/model.safetensors']),
  ).toEqual(['model.safetensors']);
  const set = [
    'model_config.yaml',
    'eva_vit_g.pth',
    'bert_config.json',
    'vicuna/config.json',
    'vicuna/pytorch_model.bin',
    'vicuna/tokenizer.model',
  ];
  expect(neededFiles([...set, 'notes.txt', 'vicuna/README.md']).sort()).toEqual([...set].sort());
});

/** bin/visedit, killed when it has this much. */
async function killedPull(home: string, endpoint: string, part: string, bytes: number): Promise<void> {
  const child = spawn(process.execPath, [`${root}bin/visedit`, 'pull', 'org/model', '--endpoint', endpoint], {
    env: { ...process.env, HOME: home },
    stdio: 'ignore',
  });
  const ended = new Promise((resolve) => child.on('close', resolve));
  while ((statSync(part, { throwIfNoEntry: false })?.size ?? 0) < bytes && child.exitCode === null)
    await new Promise((resolve) => setTimeout(resolve, 5));
  child.kill('SIGKILL');
  await ended;
}

test('a killed download goes on in a new process, and the model is found by its name', { timeout: 180_000 }, async () => {
  const home = join(scratch, 'home');
  mkdirSync(home);
  const noise = Buffer.from(new Random('noise').normals(400_000, 1).buffer);
  const { requests, options, endpoint } = await start({ files: { ...files, 'tokenizer.model': noise }, trickle: 20_000 });
  const out = join(home, '.cache', 'visedit', 'org', 'model');
  await killedPull(home, endpoint, join(out, 'tokenizer.model.part'), 100_000);
  const left = statSync(join(out, 'tokenizer.model.part')).size;
  expect(left).toBeGreaterThanOrEqual(100_000);
  expect(left).toBeLessThan(noise.length);

  const visedit = (words: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> =>
    new Promise((resolve) => {
      const child = spawn(process.execPath, [`${root}bin/visedit`, ...words], {
        env: { ...process.env, HOME: home, NO_COLOR: '1' },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let [stdout, stderr] = ['', ''];
      child.stdout.on('data', (piece) => {
        stdout += piece;
      });
      child.stderr.on('data', (piece) => {
        stderr += piece;
      });
      child.on('close', (code) => resolve({ code, stdout, stderr }));
    });
  const unfinished = await visedit(['inspect', 'org/model']);
  expect(unfinished.code).toBe(1);
  expect(unfinished.stderr).toContain('is not finished; go on with: visedit pull org/model');

  delete options.trickle;
  requests.length = 0;
  const { code, stdout, stderr } = await visedit(['pull', 'org/model', '--endpoint', endpoint, '--json']);
  expect(code, stderr).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ id: 'org/model', revision: 'main', out });
  expect(requests.filter(({ range }) => range !== undefined).map(({ range }) => range)).toContain(`bytes=${left}-`);
  expect(readFileSync(join(out, 'tokenizer.model')).equals(noise)).toBe(true);
  expect(readdirSync(out).filter((name) => name.endsWith('.part'))).toEqual([]);
  expect((await visedit(['inspect', 'org/model', '--json'])).code).toBe(0);

  const theirs = { model_type: 'llava', mm_vision_tower: 'openai/clip-vit-large-patch14-336' };
  options.files = { ...options.files, 'config.json': Buffer.from(JSON.stringify(theirs)) };
  const elsewhere = join(home, 'elsewhere');
  const refused = await visedit(['pull', 'org/model', '--endpoint', endpoint, '--out', elsewhere]);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(/org\/model: config\.json is of a LLaVA in the layout of its authors' code/);
  expect(existsSync(elsewhere)).toBe(false);
  expect((await visedit(['inspect', 'org/other'])).stderr).toContain('or fetch it from a hub: visedit pull org/other');
  expect(hubFolder('org/model')).toMatch(/\.cache\/visedit\/org\/model$/);
});
