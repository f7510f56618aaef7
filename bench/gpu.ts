/**
 * What a card takes and gives, on a model of LLaVA-1.5-7B's shape in half precision: `npm run bench:gpu` (scripts/gpu/check.sh runs it on a machine
 * without a network). Each word is a part:
 *   install       the CUDA libraries, out of folders that are there or from the registry
 *   checks        test/devices/checks.ts on CUDA
 *   shapes DIR    a model folder without its weights, and shapes.json for scripts/gpu/random_weights.py
 *   weights DIR   its weights, where no PyTorch makes them
 *   ask DIR       forward of 620 positions, generation, memory with all programs open
 *   step DIR      a training step of VEAD over four records, layer 18, alone and several in one run
 *   copies DIR    on the processor: memory of a model whose programs are in one session, next to a session for each
 *   profile DIR   the same step with kernels one at a time: time by operator
 * Lines are printed as they come, and as one JSON document at the end.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  randomLlava,
  randomModelOf,
  weightMean,
  weightScale,
  writeCompanions,
  writeRandomCheckpoint,
} from '../scripts/random-checkpoint.ts';
import { initialAdapter } from '../src/editors/vead/adapter.ts';
import type { PreparedRecord } from '../src/editors/vead/prepare.ts';
import { stepFeeds, veadTrainer } from '../src/editors/vead/train.ts';
import { veadConfig } from '../src/editors/vead/vead.ts';
import { i64 } from '../src/graph/dtype.ts';
import { unedited } from '../src/models/answer.ts';
import { usualTokens } from '../src/models/architecture.ts';
import { type LoadOptions, loadModel, weightShapes } from '../src/models/load.ts';
import { gigabytes } from '../src/models/memory.ts';
import type { Vlm } from '../src/models/vlm.ts';
import { type DeviceName, devices } from '../src/onnx/device.ts';
import { Random } from '../src/random.ts';
import { installCuda } from '../src/runtime/install-cuda.ts';
import { engineFor } from '../src/runtime/node.ts';
import { tryDevice } from '../src/runtime/try-device.ts';
import { checks } from '../test/devices/checks.ts';
import { randomPicture } from '../test/tiny-model.ts';

const device = (process.env.VISEDIT_DEVICE ?? 'cuda') as DeviceName;
const [part = 'ask', dir = 'runs/gpu/llava-7b'] = process.argv.slice(2);
const measured: Record<string, number | string> = {};

function say(what: string, value: number | string, unit = ''): void {
  measured[what] = value;
  process.stderr.write(`${what}: ${typeof value === 'number' ? Number(value.toPrecision(4)) : value}${unit}\n`);
}

/** Bytes that are taken on the card, by all programs. */
function taken(): number {
  try {
    const text = execFileSync('nvidia-smi', ['--query-gpu=memory.used', '--format=csv,noheader,nounits'], { encoding: 'utf8' });
    return Number(text.split('\n')[0]) * 2 ** 20;
  } catch {
    return 0;
  }
}

/** Seconds of each run after the first, which opens what it needs. */
async function timed(what: string, runs: number, work: () => Promise<unknown>): Promise<void> {
  const began = performance.now();
  await work();
  say(`${what}, first`, (performance.now() - began) / 1000, ' s');
  const times: number[] = [];
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await work();
    times.push((performance.now() - start) / 1000);
  }
  times.sort((a, b) => a - b);
  say(`${what}, fastest`, times[0]!, ' s');
  say(`${what}, median`, times[times.length >> 1]!, ' s');
  say(`${what}, memory of the card`, gigabytes(taken()));
}

const image = randomPicture('gpu', 336);
/** A question that makes an input of 620 positions with its picture. */
function longQuestion(vlm: Vlm, length: number): string {
  let prompt = 'What is in the middle?';
  while (vlm.layout({ prompt, image }).ids.length < length) prompt += ' cat';
  return prompt;
}

const open = (options: LoadOptions = {}): Vlm => {
  const vlm = loadModel(dir, { device, ...options });
  const { card } = vlm.engine.device;
  say('device', `${vlm.engine.device.name}${card === undefined ? '' : `: ${card.name}, ${gigabytes(card.memory)}`}`);
  return vlm;
};

async function ask(): Promise<void> {
  const vlm = open();
  const prompt = longQuestion(vlm, 620);
  const batch = await vlm.batch([vlm.layout({ prompt, image })]);
  const rows = i64([batch.length - 1], [1]);
  const segment = { from: 0, to: vlm.decoder.layers, read: ['logits'], rows: true };
  say('positions', batch.length);
  await timed('forward, last logits', 5, async () => {
    const { logits } = await vlm.run(segment, batch, { rows });
    const row = logits!.data as Float32Array;
    measured['mean |logit|'] = row.reduce((sum, x) => sum + Math.abs(x), 0) / row.length;
  });
  say('mean |logit|', measured['mean |logit|']!);
  const answer = (maxNewTokens: number) => unedited(vlm).generate([{ image, prompt }], { maxNewTokens, eosIds: [] });
  await timed('one token', 2, () => answer(1));
  await timed('33 tokens', 2, () => answer(33));
  say('one more token', (Number(measured['33 tokens, fastest']) - Number(measured['one token, fastest'])) / 32, ' s');
  const shared = unedited(vlm, 18);
  await shared.generate([{ image, prompt }], { maxNewTokens: 4, eosIds: [] });
  await shared.answerTargets([{ image, prompt, target: 'a cat' }]);
  say('memory of the card with all programs open', gigabytes(taken()));
  await vlm.release();
  say('memory of the card after release', gigabytes(taken()));
}

/** What a step reads of a record, of the right shapes. */
function states(vlm: Vlm, seed: string, prompt: string): PreparedRecord {
  const random = new Random(seed);
  const { hidden, vocabulary } = vlm.decoder;
  const samples = ['a cat', 'a cat', 'a cat', 'a tree'].map((target) => {
    const sequence = vlm.layout({ prompt, image }, target);
    return { sequence, hidden: random.normals(sequence.ids.length * hidden, 0.5) };
  });
  return {
    samples,
    before: random.normals(samples[3]!.sequence.targetIds.length * vocabulary, 1),
    closer: {},
    influence: [0, 1, 2].map(() => new Float32Array(usualTokens(vlm.architecture)).fill(1)),
  };
}

async function step(options: LoadOptions = {}, runs = 6): Promise<void> {
  const vlm = open(options);
  const config = veadConfig(vlm, { settings: { batch: 4 } });
  const { width, heads, influenceWidth } = config;
  const shape = { hidden: vlm.decoder.hidden, width, heads, influenceWidth };
  const prompt = longQuestion(vlm, 616);
  const prepared = ['a', 'b', 'c', 'd'].map((seed) => states(vlm, seed, prompt));
  const sampled = Array.from({ length: config.sampled }, (_, i) => i);
  const began = performance.now();
  const feeds = stepFeeds(vlm, prepared, { choice: 0, sampled }, 0);
  say('layer', config.layer);
  say('feeds', (performance.now() - began) / 1000, ' s');
  const trainer = await veadTrainer(vlm, config, shape, initialAdapter(shape, new Random('gpu'), false));
  say('opening the step', (performance.now() - began) / 1000, ' s');
  await timed('step of 4', runs, async () => {
    const { loss, gradientNorm } = await trainer.run(feeds, config.rate);
    process.stderr.write(`loss ${loss}, gradient ${gradientNorm}\n`);
  });
  if (trainer.stepsPerRun > 1) {
    const count = trainer.stepsPerRun;
    const steps = Array.from({ length: count }, () => ({ batch: feeds, rate: config.rate }));
    const what = `${count} steps of 4 in one run`;
    await timed(what, Math.ceil(runs / 2), () => trainer.runSteps(steps));
    say('step of 4 among several', Number(measured[`${what}, fastest`]) / count, ' s');
  }
  await trainer.release();
  await vlm.release();
}

/** The programs of some questions on the processor, in one session or in several. */
async function ofQuestions(oneSession: boolean): Promise<void> {
  const own = { ...devices.cpu, wholeAnswers: true, oneSession };
  const vlm = loadModel(dir, { device: 'cpu', threads: 1, prepack: false, behind: () => engineFor(own) });
  const asked = [{ image: randomPicture('copies', 96), prompt: 'What is in the middle?' }];
  const tokens: number[][] = [];
  for (const share of [undefined, vlm.decoder.layers >> 1]) {
    const [answer] = await unedited(vlm, share).generate(asked, { maxNewTokens: 8, eosIds: [] });
    const [forced] = await unedited(vlm, share).answerTargets(asked.map((one) => ({ ...one, target: 'a tree' })));
    tokens.push(answer!.tokenIds, [...forced!.predictedIds]);
  }
  say('tokens', tokens.join(' '));
  const kilobytes = /^RssAnon:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  say(`memory, ${oneSession ? 'one session' : 'a session for each program'}`, gigabytes(Number(kilobytes) * 1024));
}

async function copies(): Promise<void> {
  const ways = ['copies-one', 'copies-each'];
  if (!existsSync(dir)) {
    const text = { hidden_size: 1024, intermediate_size: 2752, num_hidden_layers: 12, num_attention_heads: 16, vocab_size: 4000 };
    const vision = { hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 2, image_size: 96 };
    const model = randomLlava(
      { ...text, num_key_value_heads: 16, max_position_embeddings: 512 },
      { ...vision, patch_size: 14 },
      { vision_feature_layer: -2 },
    );
    await writeRandomCheckpoint(dir, model);
  }
  for (const way of ways) execFileSync(process.execPath, [...process.execArgv, process.argv[1]!, way, dir], { stdio: 'inherit' });
}

/** Time by operator and provider of every program that ran. */
async function profile(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-profile-'));
  await step({ profile: join(folder, 'step') }, 1);
  for (const name of readdirSync(folder)) {
    const events = JSON.parse(readFileSync(join(folder, name), 'utf8')) as {
      cat: string;
      name: string;
      ts: number;
      dur: number;
      args?: { op_name?: string; provider?: string; input_type_shape?: unknown };
    }[];
    // The first run chooses kernels: only the last one counts.
    const begin = Math.max(...events.filter(({ name }) => name === 'model_run').map(({ ts }) => ts));
    const [byOperator, byShape] = [
      new Map<string, { time: number; count: number }>(),
      new Map<string, { time: number; count: number }>(),
    ];
    for (const { cat, name, ts, dur, args } of events) {
      if (cat !== 'Node' || ts < begin || !name.endsWith('_kernel_time')) continue;
      const operator = `${args?.op_name} ${args?.provider?.slice(0, 4)}`;
      for (const [times, key] of [
        [byOperator, operator],
        [byShape, `${operator} ${JSON.stringify(args?.input_type_shape)}`],
      ] as const) {
        const before = times.get(key) ?? { time: 0, count: 0 };
        times.set(key, { time: before.time + dur / 1000, count: before.count + 1 });
      }
    }
    for (const times of [byOperator, byShape]) {
      const sorted = [...times].sort(([, a], [, b]) => b.time - a.time).slice(0, 30);
      for (const [key, { time, count }] of sorted) say(`${key}, ${count} times`, time, ' ms');
    }
  }
}

const parts: Record<string, () => Promise<void> | void> = {
  async install() {
    const { folder, libraries } = await installCuda();
    say('installed', `${folder}: ${libraries.length} libraries`);
    const report = await tryDevice(device);
    say('works', report.works ? 'yes' : (report.fault ?? 'no'));
    if (!report.works) process.exitCode = 1;
  },
  async checks() {
    for (const { name, run } of checks) {
      const began = performance.now();
      try {
        for (const { what, value, limit } of await run(device))
          say(`${value <= limit ? 'ok    ' : 'FAILED'} ${name}: ${what}`, value, ` (limit ${limit})`);
      } catch (error) {
        say(`FAILED ${name}`, (error as Error).message.slice(0, 600));
      }
      process.stderr.write(`  ${((performance.now() - began) / 1000).toFixed(1)} s\n`);
    }
  },
  shapes() {
    const model = randomModelOf('llava-1.5-7b');
    mkdirSync(dir, { recursive: true });
    writeCompanions(dir, model, model.architecture.decoder.vocabulary);
    const list = [...weightShapes(model.architecture)].map(([name, shape]) => [
      name,
      shape,
      weightScale(name, shape),
      weightMean(name),
    ]);
    writeFileSync(join(dir, 'shapes.json'), JSON.stringify(list));
  },
  weights: () => writeRandomCheckpoint(dir, randomModelOf('llava-1.5-7b')),
  ask,
  step: () => step(),
  profile,
  copies,
  'copies-one': () => ofQuestions(true),
  'copies-each': () => ofQuestions(false),
};

const run = parts[part];
if (run === undefined) throw new Error(`${part} is no part; one of: ${Object.keys(parts).join(', ')}`);
await run();
process.stdout.write(`${JSON.stringify({ part, ...measured })}\n`);
process.exit(process.exitCode ?? 0);
