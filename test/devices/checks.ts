/**
 * What must hold on every device, each check next to the processor's numbers: forward and gradient, generation, an edit and twenty training steps of
 * small models, loops, and products in half precision and in whole numbers. Plain functions, so that a machine without the test runner can run them.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { modelId } from '../../src/editors/editor.ts';
import { initialAdapter } from '../../src/editors/vead/adapter.ts';
import type { PreparedRecord } from '../../src/editors/vead/prepare.ts';
import { stepFeeds, veadTrainer } from '../../src/editors/vead/train.ts';
import { vead, veadConfig } from '../../src/editors/vead/vead.ts';
import { f32, i64, type Tensor } from '../../src/graph/dtype.ts';
import { add, constant, input, loop, matmul, sum } from '../../src/graph/index.ts';
import { unedited } from '../../src/models/answer.ts';
import { usualTokens } from '../../src/models/architecture.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Random } from '../../src/random.ts';
import { type DeviceChoice, engineOn } from '../../src/runtime/node.ts';
import { randomPicture, writeRandomLlava } from '../tiny-model.ts';

export interface Found {
  /** what was compared */
  readonly what: string;
  readonly value: number;
  /** the value must not be above it */
  readonly limit: number;
}

export interface Check {
  readonly name: string;
  run(device: DeviceChoice): Promise<Found[]>;
}

const question = 'What is in the middle? The answer is:';
const image = randomPicture('device', 24);

/** Opens a random model on both sides, with 4 layers and weights as floats or in half precision, and lends them to `use`. */
async function both<T>(device: DeviceChoice, half: boolean, use: (cpu: Vlm, other: Vlm) => Promise<T>): Promise<T> {
  const root = mkdtempSync(join(tmpdir(), 'visedit-device-'));
  const folder = writeRandomLlava(join(root, 'model'), { positions: 256, half, hidden: 64, mlp: 96 });
  const [cpu, other] = [loadModel(folder, { device: 'cpu', threads: 1 }), loadModel(folder, { device })];
  try {
    return await use(cpu, other);
  } finally {
    await cpu.release();
    await other.release();
    rmSync(root, { recursive: true, force: true });
  }
}

const largest = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let most = a.length === b.length ? 0 : Number.POSITIVE_INFINITY;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i]! - b[i]!));
  return most;
};
const dataOf = (t: Tensor | undefined): Float32Array => t!.data as Float32Array;

/** What a training step reads, of the right shapes, without preparing a record. */
function states(vlm: Vlm, seed: string): PreparedRecord {
  const random = new Random(seed);
  const { hidden, vocabulary } = vlm.decoder;
  const samples = ['a cat', 'a cat', 'a cat', 'an owl'].map((target) => {
    const sequence = vlm.layout({ prompt: question, image }, target);
    return { sequence, hidden: random.normals(sequence.ids.length * hidden, 1) };
  });
  const before = random.normals(samples[3]!.sequence.targetIds.length * vocabulary, 1);
  const influence = [0, 1, 2].map(() => new Float32Array(usualTokens(vlm.architecture)).fill(1));
  return { samples, before, closer: {}, influence };
}

/** Losses of steps of VEAD over the same states, and the weights after them. */
async function train(vlm: Vlm, steps: number): Promise<{ losses: number[]; weights: Float32Array }> {
  const config = veadConfig(vlm, { layer: 1, settings: { width: 16, influenceWidth: 12, heads: 4, batch: 2, rate: 1e-3 } });
  const shape = { hidden: vlm.decoder.hidden, width: 16, heads: 4, influenceWidth: 12 };
  const trainer = await veadTrainer(vlm, config, shape, initialAdapter(shape, new Random('start'), false));
  const feeds = stepFeeds(vlm, [states(vlm, 'first'), states(vlm, 'second')], { choice: 1, sampled: [0, 2, 3] }, 0);
  const losses: number[] = [];
  while (trainer.step < steps) {
    const count = Math.min(trainer.stepsPerRun, steps - trainer.step);
    const asked = Array.from({ length: count }, () => ({ batch: feeds, rate: config.rate }));
    for (const { loss } of await trainer.runSteps(asked)) losses.push(loss);
  }
  const weights = Float32Array.from([...trainer.weights.values()].flatMap(({ data }) => [...data]));
  await trainer.release();
  return { losses, weights };
}

/** Nodes of programs that ran on the host although they compute with numbers of the model, by operator. */
async function onHost(device: DeviceChoice): Promise<Map<string, number>> {
  const root = mkdtempSync(join(tmpdir(), 'visedit-profile-'));
  const folder = writeRandomLlava(join(root, 'model'), { positions: 256 });
  const vlm = loadModel(folder, { device, profile: join(root, 'profile') });
  await unedited(vlm).generate([{ image, prompt: question }], { maxNewTokens: 3, eosIds: [] });
  await vlm.release();
  const found = new Map<string, number>();
  let seen = 0;
  for (const name of readdirSync(root).filter((one) => one.startsWith('profile'))) {
    const events = JSON.parse(readFileSync(join(root, name), 'utf8')) as { cat: string; args?: Record<string, unknown> }[];
    for (const { args } of events.filter(({ cat }) => cat === 'Node')) {
      seen++;
      if (args?.provider !== 'CPUExecutionProvider') continue;
      // Shapes are computed on the host by every engine.
      const types = JSON.stringify(args.output_type_shape ?? []);
      if (!/"float/.test(types)) continue;
      const op = String(args.op_name);
      found.set(op, (found.get(op) ?? 0) + 1);
    }
  }
  rmSync(root, { recursive: true, force: true });
  if (seen === 0) throw new Error('the engine wrote no profile');
  return found;
}

export const checks: readonly Check[] = [
  {
    name: 'logits of a question with a picture',
    run: (device) =>
      both(device, false, async (cpu, other) => {
        const logits = async (vlm: Vlm) =>
          dataOf(await vlm.logits(await vlm.batch([vlm.layout({ prompt: question, image }, 'a cat')])));
        return [{ what: 'largest difference', value: largest(await logits(cpu), await logits(other)), limit: 5e-3 }];
      }),
  },
  {
    name: 'generation, one and several at once',
    run: (device) =>
      both(device, false, async (cpu, other) => {
        const ask = async (vlm: Vlm) => {
          const asked = [
            { image, prompt: question },
            { image: randomPicture('other', 24), prompt: `Look. ${question}` },
            { prompt: question },
          ];
          const answers = await unedited(vlm).generate(asked, { maxNewTokens: 8, eosIds: [] });
          return answers.flatMap(({ tokenIds }) => [...tokenIds]);
        };
        const [a, b] = [await ask(cpu), await ask(other)];
        return [{ what: 'other tokens', value: a.filter((id, i) => id !== b[i]).length, limit: 0 }];
      }),
  },
  {
    name: 'an edit and what it answers',
    run: (device) =>
      both(device, false, async (cpu, other) => {
        const answer = async (vlm: Vlm) => {
          const config = veadConfig(vlm, { layer: 1, settings: { width: 16, influenceWidth: 12, heads: 4 } });
          const shape = { hidden: vlm.decoder.hidden, width: 16, heads: 4, influenceWidth: 12 };
          const weights = {
            editor: 'vead',
            model: modelId(vlm),
            settings: { layer: config.layer, width: 16, heads: 4, influenceWidth: 12 },
            tensors: initialAdapter(shape, new Random('edit'), false),
          };
          const [edit] = await vead.edit(vlm, [{ image, prompt: question, target: 'a cat' }], weights);
          const answers = await vead.with(vlm, [edit!]).answerTargets([
            { image, prompt: question, target: 'a cat' },
            { prompt: question, target: 'a cat' },
          ]);
          return answers.flatMap(({ logProbs }) => [...logProbs]);
        };
        return [
          {
            what: 'largest difference of log-probabilities',
            value: largest(await answer(cpu), await answer(other)),
            limit: 5e-3,
          },
        ];
      }),
  },
  {
    name: 'twenty training steps',
    run: (device) =>
      both(device, false, async (cpu, other) => {
        const [a, b] = [await train(cpu, 20), await train(other, 20)];
        const relative = a.losses.map((loss, i) => Math.abs(loss - b.losses[i]!) / Math.abs(loss));
        return [
          { what: 'first loss, relative', value: relative[0]!, limit: 2e-3 },
          { what: 'largest of the losses, relative', value: Math.max(...relative), limit: 2e-2 },
          { what: 'does not learn', value: b.losses.at(-1)! < b.losses[0]! ? 0 : 1, limit: 0 },
        ];
      }),
  },
  {
    name: 'half precision: logits, and five training steps',
    run: (device) =>
      both(device, true, async (cpu, other) => {
        const logits = async (vlm: Vlm) =>
          dataOf(await vlm.logits(await vlm.batch([vlm.layout({ prompt: question, image }, 'a cat')])));
        const [a, b] = [await train(cpu, 5), await train(other, 5)];
        const relative = a.losses.map((loss, i) => Math.abs(loss - b.losses[i]!) / Math.abs(loss));
        return [
          { what: 'largest difference of logits', value: largest(await logits(cpu), await logits(other)), limit: 2e-2 },
          { what: 'largest of the losses, relative', value: Math.max(...relative), limit: 2e-2 },
        ];
      }),
  },
  {
    name: 'a loop',
    async run(device) {
      const engine = engineOn(device);
      const x = input('x', ['b', 64]);
      const w = input('w', [64, 64]);
      const { last, each } = loop(
        { turns: constant(i64([5], [])), symbol: 'n' },
        { x: { start: x }, rows: { start: x, shape: ['r', 64], end: ['q', 64] } },
        ({ x, rows }) => {
          const y = matmul(x!, w, false, true);
          return { next: { x: y, rows: add(sum(rows!, 0, true), rows!) }, each: { y: sum(y) } };
        },
      );
      const feeds = {
        x: f32(new Random('x').normals(2 * 64, 1), [2, 64]),
        w: f32(new Random('w').normals(64 * 64, 0.12), [64, 64]),
      };
      const results: Record<string, Tensor>[] = [];
      for (const own of [engineOn('cpu'), engine]) {
        const program = await own.compile({ x: last.x!, rows: last.rows!, y: each.y! });
        results.push(await program.run(feeds));
        await program.release();
      }
      return Object.keys(results[0]!).map((what) => {
        const [a, b] = results.map((result) => dataOf(result[what]));
        const size = Math.max(...a!.map(Math.abs));
        return { what, value: largest(a!, b!) / size, limit: 2e-3 };
      });
    },
  },
  {
    name: 'weights in whole numbers',
    async run(device) {
      const root = mkdtempSync(join(tmpdir(), 'visedit-device-'));
      const folder = writeRandomLlava(join(root, 'model'), { positions: 256, hidden: 64, mlp: 96, heads: 4 });
      const found: Found[] = [];
      for (const dtype of ['int4', 'int8'] as const) {
        const [cpu, other] = [loadModel(folder, { device: 'cpu', threads: 1, dtype }), loadModel(folder, { device, dtype })];
        const logits = async (vlm: Vlm) =>
          dataOf(await vlm.logits(await vlm.batch([vlm.layout({ prompt: question, image }, 'a cat')])));
        // The processor rounds activations to eight bits within these products; a card does not.
        found.push({
          what: `${dtype}: largest difference of logits`,
          value: largest(await logits(cpu), await logits(other)),
          limit: 0.15,
        });
        await cpu.release();
        await other.release();
      }
      rmSync(root, { recursive: true, force: true });
      return found;
    },
  },
  {
    name: 'nodes on the host',
    async run(device) {
      const found = await onHost(device);
      const names = [...found].map(([op, count]) => `${op} ${count}`).join(', ');
      return [{ what: `nodes on the host${names === '' ? '' : ` (${names})`}`, value: found.size, limit: 0 }];
    },
  },
];

/** Where the ICD of a Vulkan device on the processor lies: Debian's chromium brings one. */
export const swiftShader = '/usr/lib/chromium/vk_swiftshader_icd.json';
export const hasSwiftShader = existsSync(swiftShader);
