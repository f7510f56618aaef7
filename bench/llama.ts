/**
 * `npm run bench:llama`: reading a prompt, and one more token, next to llama.cpp on the same cores in the same run: a LLaMA of 7B's width with random
 * weights in 4 bits. llama.cpp comes with node-llama-cpp, which is no dependency: `npm install --no-save node-llama-cpp`. Without it only our own
 * times are measured. Both sides take turns; the smallest time of each counts.
 *   --layers N (default 4)   --prompt N  tokens (default 620)   --tokens N  of answer (default 33)   --threads N (default 2)   --rounds N (default 2)
 *   --llama FILE  node-llama-cpp's dist/index.js, where it is not among the packages   --dir D (default runs/llama)   --json
 */
import { existsSync, mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { table } from '../apps/cli/table.ts';
import { randomLlava, writeRandomCheckpoint } from '../scripts/random-checkpoint.ts';
import { generate } from '../src/models/generate.ts';
import { loadModel } from '../src/models/load.ts';
import { quantize } from '../src/models/quantize.ts';
import { type LlamaSizes, writeRandomGguf } from './gguf.ts';

const { values: given } = parseArgs({
  options: {
    layers: { type: 'string', default: '4' },
    prompt: { type: 'string', default: '620' },
    tokens: { type: 'string', default: '33' },
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '2' },
    llama: { type: 'string' },
    dir: { type: 'string', default: 'runs/llama' },
    json: { type: 'boolean', default: false },
  },
});
const [layers, length, tokens, threads] = [given.layers, given.prompt, given.tokens, given.threads].map(Number) as [
  number,
  number,
  number,
  number,
];
const say = (line: string): void => void process.stderr.write(`${line}\n`);
const sizes: LlamaSizes = { hidden: 4096, mlp: 11008, layers, heads: 32, vocabulary: 32064, positions: 4096 };
/** Prompts of different words: nothing of an earlier one can be used again. */
const promptOf = (round: number): number[] => [
  1,
  ...Array.from({ length: length - 1 }, (_, i) => 300 + ((i * 37 + round * 101) % 400)),
];

interface Took {
  seconds: number;
  /** of the processor, on all threads */
  cpu: number;
}

/** Clock and processor time now, in seconds. */
const now = (): Took => {
  const { user, system } = process.cpuUsage();
  return { seconds: performance.now() / 1000, cpu: (user + system) / 1e6 };
};
const between = (start: Took, end: Took, times = 1): Took => ({
  seconds: (end.seconds - start.seconds) / times,
  cpu: (end.cpu - start.cpu) / times,
});

interface Turn {
  prompt: Took;
  /** one more token */
  more: Took;
}

interface Side {
  turn(round: number): Promise<Turn>;
  release(): Promise<void>;
}

async function openOurs(): Promise<Side> {
  const floats = join(given.dir, `llava-${layers}`);
  const rounded = `${floats}-int4`;
  if (!existsSync(rounded)) {
    say(`Writing ${rounded} ...`);
    const text = { vocab_size: sizes.vocabulary, max_position_embeddings: sizes.positions, num_hidden_layers: layers };
    const vision = {
      hidden_size: 64,
      intermediate_size: 64,
      num_hidden_layers: 1,
      num_attention_heads: 4,
      image_size: 28,
      patch_size: 14,
    };
    if (!existsSync(floats)) await writeRandomCheckpoint(floats, randomLlava(text, vision, { vision_feature_layer: -1 }));
    await quantize(floats, { out: rounded, dtype: 'int4' });
  }
  const vlm = loadModel(rounded, { threads, device: 'cpu' });
  const usual = vlm.layout({ prompt: 'x' });
  return {
    async turn(round) {
      const ids = promptOf(round);
      const batch = await vlm.batch([{ ...usual, ids, promptEnd: ids.length - 1 }]);
      const start = now();
      let read: Took | undefined;
      const onToken = (): undefined => {
        read ??= now();
      };
      await generate(vlm, batch, { maxNewTokens: tokens, eosIds: [], onToken });
      return { prompt: between(start, read!), more: between(read!, now(), tokens - 1) };
    },
    release: () => vlm.release(),
  };
}

/** What is used of node-llama-cpp. */
interface LlamaPackage {
  getLlama(options: Record<string, unknown>): Promise<{
    loadModel(options: Record<string, unknown>): Promise<{
      createContext(options: Record<string, unknown>): Promise<{
        getSequence(): {
          clearHistory(): Promise<void>;
          evaluateWithoutGeneratingNewTokens(ids: number[]): Promise<void>;
          evaluate(ids: number[], options: Record<string, unknown>): AsyncIterable<number>;
        };
      }>;
      dispose(): Promise<void>;
    }>;
  }>;
}

async function openLlama(): Promise<Side | undefined> {
  let found: LlamaPackage;
  try {
    const named: string = given.llama === undefined ? 'node-llama-cpp' : resolve(given.llama);
    found = (await import(named)) as LlamaPackage;
  } catch (error) {
    say(`node-llama-cpp is not here (npm install --no-save node-llama-cpp): only our own times. ${(error as Error).message}`);
    return undefined;
  }
  const path = join(given.dir, `llama-${layers}.gguf`);
  if (!existsSync(path)) {
    say(`Writing ${path} ...`);
    writeRandomGguf(path, sizes);
  }
  const llama = await found.getLlama({ gpu: false, build: 'never', logLevel: 'error' });
  const model = await llama.loadModel({ modelPath: path });
  const context = await model.createContext({ contextSize: length + tokens + 8, batchSize: length, threads });
  const sequence = context.getSequence();
  return {
    async turn(round) {
      await sequence.clearHistory();
      const start = now();
      // The last token is read with the first step.
      await sequence.evaluateWithoutGeneratingNewTokens(promptOf(round).slice(0, -1));
      const read = now();
      let count = 0;
      for await (const _ of sequence.evaluate([300], { temperature: 0 })) if (++count === tokens - 1) break;
      return { prompt: between(start, read), more: between(read, now(), tokens - 1) };
    },
    release: () => model.dispose(),
  };
}

mkdirSync(given.dir, { recursive: true });
const sides: Record<string, Side | undefined> = { visedit: await openOurs(), 'llama.cpp': await openLlama() };
const best: Record<string, Turn> = {};
for (let round = 0; round <= Number(given.rounds); round++)
  for (const [name, side] of Object.entries(sides)) {
    if (side === undefined) continue;
    const { prompt, more } = await side.turn(round);
    say(
      `${round === 0 ? 'warming up' : `turn ${round}`}, ${name}: prompt ${prompt.cpu.toFixed(2)} s, one more token ${more.cpu.toFixed(4)} s of the processor`,
    );
    // The first turn opens programs and reads weights.
    if (round === 0) continue;
    const before = best[name];
    const least = (a: Took, b: Took | undefined): Took => (b !== undefined && b.cpu < a.cpu ? b : a);
    best[name] = { prompt: least(prompt, before?.prompt), more: least(more, before?.more) };
  }
for (const side of Object.values(sides)) await side?.release();

if (given.json) process.stdout.write(`${JSON.stringify({ layers, length, tokens, threads, best })}\n`);
else {
  const [mine, other] = [best.visedit!, best['llama.cpp']];
  const row = (what: string, pick: (one: Turn) => Took, digits: number): string[] => [
    what,
    ...[mine, other].flatMap((one) =>
      one === undefined ? [] : [pick(one).cpu.toFixed(digits), pick(one).seconds.toFixed(digits)],
    ),
    ...(other === undefined ? [] : [(pick(mine).cpu / pick(other).cpu).toFixed(2)]),
  ];
  const head = [
    '',
    'visedit processor s',
    'seconds',
    ...(other === undefined ? [] : ['llama.cpp processor s', 'seconds', 'times']),
  ];
  const rows = [row(`prompt of ${length} tokens`, (one) => one.prompt, 2), row('one more token', (one) => one.more, 4)];
  process.stdout.write(`${layers} layers of width 4096 in 4 bits, ${threads} threads\n`);
  process.stdout.write(`${table({ head, rows, align: head.map((_, i) => (i === 0 ? 'left' : 'right')) })}\n`);
}
process.exit(0);
