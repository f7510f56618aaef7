/**
 * `npm run bench:modern`: one question about one picture of 640 by 480 pixels, as a whole command (`visedit generate`, everything opened), next to
 * transformers on the same cores in the same run where VISEDIT_PYTHON names a Python with torch, transformers and safetensors. Random weights of
 * published shapes; both sides read the same pixels and token ids. What is printed stands in docs/benchmarks.md.
 *   --shape SHAPE  a name of scripts/modern-shapes.ts (default smolvlm2-256m)   --dtype  float32, int8 or int4 (default float32); rounded by `visedit quantize`
 *   --torch  type of the weights in PyTorch (default: float32, or bfloat16 beside a rounded model)
 *   --tokens N (default 8)   --threads N (default 2)   --rounds N (default 1)   --dir D (default runs/real-size)   --json
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import sharp from 'sharp';
import { table } from '../apps/cli/table.ts';
import { randomModelOf, writeRandomCheckpoint } from '../scripts/random-checkpoint.ts';
import { packageVersion } from '../src/files/package-root.ts';
import { writeSafetensors } from '../src/files/safetensors.ts';
import { f32, i64, input, matmul, type Tensor } from '../src/graph/index.ts';
import { decodeImage } from '../src/input/image/decode.ts';
import { barePrompt } from '../src/models/chat.ts';
import { cacheNames, forward } from '../src/models/forward.ts';
import { loadModel } from '../src/models/load.ts';
import { quantize } from '../src/models/quantize.ts';
import { prefixOf, type Sequence } from '../src/models/sequence.ts';
import { Sites } from '../src/models/sites.ts';
import type { Vlm } from '../src/models/vlm.ts';
import { Weights } from '../src/nn/weights.ts';
import { Random } from '../src/random.ts';
import { compile } from '../src/runtime/node.ts';
import { randomPicture } from '../test/tiny-model.ts';
import { operations } from './operations.ts';

const { values: given } = parseArgs({
  options: {
    shape: { type: 'string', default: 'smolvlm2-256m' },
    dtype: { type: 'string', default: 'float32' },
    torch: { type: 'string' },
    tokens: { type: 'string', default: '8' },
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '1' },
    dir: { type: 'string', default: 'runs/real-size' },
    json: { type: 'boolean', default: false },
  },
});
const PROMPT = 'What is this?';
const tokens = Number(given.tokens);
const threads = Number(given.threads);
const say = (line: string): void => void process.stderr.write(`${line}\n`);

interface Measured {
  seconds: number;
  /** of the processor, on all threads */
  cpu: number;
  /** bytes, at most */
  resident: number;
  tokenIds: number[];
  opening?: number;
  versions?: string;
}

/** The folders of floats and of the type that is asked for, made where they are not there. */
async function folders(): Promise<{ floats: string; asked: string }> {
  const floats = join(given.dir, given.shape);
  if (!existsSync(join(floats, 'model.safetensors'))) {
    say(`Writing ${floats} ...`);
    rmSync(floats, { recursive: true, force: true });
    await writeRandomCheckpoint(floats, randomModelOf(given.shape));
  }
  if (given.dtype === 'float32') return { floats, asked: floats };
  if (given.dtype !== 'int8' && given.dtype !== 'int4') throw new Error(`--dtype ${given.dtype}: give float32, int8 or int4`);
  const asked = `${floats}-${given.dtype}`;
  if (!existsSync(asked)) {
    say(`Rounding it to ${given.dtype} ...`);
    await quantize(floats, { out: asked, dtype: given.dtype });
  }
  return { floats, asked };
}

/** The last line on stderr of a process of Node: what it took. */
const accounting = `data:text/javascript,${encodeURIComponent(
  `import { writeSync } from 'node:fs';
   process.on('exit', () => {
     const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
     writeSync(2, JSON.stringify({ cpu: (userCPUTime + systemCPUTime) / 1e6, resident: maxRSS * 1024 }) + '\\n');
   });`,
)}`;

/** `visedit generate`, from its start to its end. */
function ours(folder: string, picture: string): Measured {
  const words = ['generate', '--model', folder, '--image', picture, '--prompt', PROMPT, '--max-new-tokens', given.tokens];
  const bin = fileURLToPath(new URL('../bin/visedit', import.meta.url));
  const began = performance.now();
  const child = spawnSync(process.execPath, ['--import', accounting, bin, ...words, '--json'], {
    encoding: 'utf8',
    env: { ...process.env, VISEDIT_THREADS: given.threads, VISEDIT_DEVICE: 'cpu' },
  });
  const seconds = (performance.now() - began) / 1000;
  if (child.status !== 0) throw new Error(`visedit generate ended with code ${child.status}:\n${child.stderr}`);
  const took = JSON.parse(child.stderr.trim().split('\n').at(-1)!) as Pick<Measured, 'cpu' | 'resident'>;
  return { seconds, ...took, tokenIds: (JSON.parse(child.stdout) as { tokenIds: number[] }).tokenIds };
}

/** What transformers' forward of the model takes, by its names. */
function torchInputs({ architecture }: Vlm, { ids }: Sequence, pixels: Readonly<Record<string, Tensor>>, imageId: number) {
  const input_ids = i64(
    ids.map((id) => (id < 0 ? imageId : id)),
    [1, ids.length],
  );
  const values = pixels.pixels as Tensor<'float32'>;
  if (!/^qwen/.test(architecture.name)) return { input_ids, pixel_values: { ...values, shape: [1, ...values.shape] } };
  // [2, tokens, patches of a token]: rows and columns of the patches
  const places = Array.from(pixels.places!.data as BigInt64Array, Number);
  const sideOf = (part: number[]): number => part.reduce((a, b) => Math.max(a, b), 0) + 1;
  const [rows, columns] = [sideOf(places.slice(0, places.length / 2)), sideOf(places.slice(places.length / 2))];
  return {
    ...{ input_ids, pixel_values: values, image_grid_thw: i64([1, rows, columns], [1, 3]) },
    mm_token_type_ids: i64(
      ids.map((id) => (id < 0 ? 1 : 0)),
      [1, ids.length],
    ),
  };
}

/** The same question by transformers. */
function theirs(python: string, folder: string, inputs: string): Measured {
  const dtype = given.torch ?? (given.dtype === 'float32' ? 'float32' : 'bfloat16');
  const script = fileURLToPath(new URL('modern.py', import.meta.url));
  const out = execFileSync(python, [script, folder, inputs, dtype, given.tokens], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, OMP_NUM_THREADS: given.threads, MKL_NUM_THREADS: given.threads, PYTHONDONTWRITEBYTECODE: '1' },
  });
  return JSON.parse(out.trim().split('\n').at(-1)!) as Measured;
}

/** Floating-point operations of the image encoder, of reading the prompt, and of the tokens after the first. */
function operationsOf({ architecture, decoder }: Vlm, sequence: Sequence, pixels: Readonly<Record<string, Tensor>>) {
  const l = sequence.ids.length;
  const prefix = prefixOf(sequence);
  const own = architecture.pixels();
  const symbols: Record<string, number> = { b: 1, l, P: prefix, words: l - prefix, r: 1, v: sequence.pictures[0]!.count };
  for (const [name, node] of Object.entries(own))
    node.shape.forEach((dim, axis) => {
      if (typeof dim === 'string' && /^\w+$/.test(dim) && dim !== 'b') symbols[dim] = pixels[name]!.shape[axis - 1]!;
    });
  const encoder = operations({ visual: architecture.vision(own, new Weights(), new Sites()) }, symbols);
  const whole = { from: 0, to: decoder.layers, rows: true, read: ['logits', ...cacheNames('past', 0, decoder.layers - 1)] };
  const given = { decoder, runsOf: () => [] };
  const prompt = operations(forward(given, { ...whole, image: true, prefix: 'P' }), symbols);
  const step = forward(given, {
    ...{ from: 0, to: decoder.layers, image: false, length: 1, step: true, read: ['logits'] },
    cache: [{ name: 'past', length: 'p' }],
  });
  return { encoder, prompt, steps: (tokens - 1) * operations(step, { b: 1, p: l }) };
}

/** Operations in a second of the processor, on one core, of a float32 product of 2048 x 2048 x 2048: the best of four. */
async function productRate(): Promise<number> {
  const n = 2048;
  const random = new Random('rate');
  const square = (name: string) => input(name, [n, n]);
  const program = await compile({ y: matmul(square('a'), square('b')) }, { threads });
  const [a, b] = [f32(random.normals(n * n, 1), [n, n]), f32(random.normals(n * n, 1), [n, n])];
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 4; i++) {
    const before = process.cpuUsage();
    await program.run({ a, b });
    const { user, system } = process.cpuUsage(before);
    best = Math.min(best, (user + system) / 1e6);
  }
  await program.release();
  return (2 * n ** 3) / best;
}

const dir = mkdtempSync(join(tmpdir(), 'visedit-bench-'));
try {
  const { floats, asked } = await folders();
  const picture = join(dir, 'photo.png');
  const { data } = randomPicture('photo', 32);
  await sharp(data, { raw: { width: 32, height: 32, channels: 3 } })
    .resize(640, 480, { fit: 'fill' })
    .png()
    .toFile(picture);

  const vlm = loadModel(floats, { device: 'cpu' });
  const image = await decodeImage(picture);
  const sequence = vlm.layout(barePrompt(vlm, PROMPT, [image]));
  const pixels = vlm.processor(image).pixels();
  const counted = operationsOf(vlm, sequence, pixels);
  await vlm.release();

  const python = process.env.VISEDIT_PYTHON;
  const inputs = join(dir, 'inputs.safetensors');
  if (python === undefined || python === '')
    say('VISEDIT_PYTHON names no Python with transformers: only our own times are measured.');
  else {
    const { image_token_id: imageId } = randomModelOf(given.shape).config as { image_token_id: number };
    writeSafetensors(inputs, torchInputs(vlm, sequence, pixels, imageId));
  }
  const best: Record<'visedit' | 'transformers', Measured | undefined> = { visedit: undefined, transformers: undefined };
  const keep = (side: keyof typeof best, measured: Measured): void => {
    say(`  ${side}: ${measured.seconds.toFixed(1)} s (processor ${measured.cpu.toFixed(1)} s)`);
    if (!(measured.seconds > (best[side]?.seconds ?? Number.POSITIVE_INFINITY))) best[side] = measured;
  };
  for (let round = 0; round < Number(given.rounds); round++) {
    keep('visedit', ours(asked, picture));
    if (existsSync(inputs)) keep('transformers', theirs(python!, floats, inputs));
  }
  const rate = await productRate();
  const operationsInAll = counted.encoder + counted.prompt + counted.steps;
  const machine = `${cpus()[0]!.model}, ${threads} threads`;
  const { visedit: mine, transformers: other } = best;
  const equal = other === undefined ? undefined : other.tokenIds.filter((id, i) => id === mine!.tokenIds[i]).length;
  if (given.json) {
    const about = { shape: given.shape, dtype: given.dtype, tokens, threads, machine };
    process.stdout.write(`${JSON.stringify({ ...about, visedit: mine, transformers: other, operations: counted, rate })}\n`);
  } else {
    const tera = (x: number): string => (x / 1e12).toFixed(2);
    const row = (name: string, m: Measured): string[] => [
      name,
      m.seconds.toFixed(1),
      m.cpu.toFixed(1),
      (m.resident / 1e9).toFixed(2),
    ];
    const rows = [row(`visedit ${packageVersion}, ${given.dtype}`, mine!), ...(other ? [row(other.versions!, other)] : [])];
    process.stdout.write(`${given.shape}, ${sequence.ids.length} tokens of input, ${tokens} of answer; ${machine}\n`);
    process.stdout.write(
      `${table({ head: ['', 'seconds', 'processor seconds', 'resident GB'], rows, align: ['left', 'right', 'right', 'right'] })}\n\n`,
    );
    process.stdout.write(
      `Products: image encoder ${tera(counted.encoder)} · 10^12 operations, prompt ${tera(counted.prompt)}, further tokens ${tera(counted.steps)}. At the ${(rate / 1e9).toFixed(0)} · 10^9 a second that one core just did in a float32 product of 2048 x 2048 x 2048, all of them are ${(operationsInAll / rate).toFixed(1)} processor seconds.\n`,
    );
    if (other?.opening !== undefined)
      process.stdout.write(
        `transformers opened the model in ${other.opening.toFixed(1)} s of its time; its start of Python is not counted.\n`,
      );
    if (equal !== undefined) process.stdout.write(`Tokens that both sides gave: ${equal} of ${tokens}.\n`);
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}
process.exit(0);
