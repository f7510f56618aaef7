/** `world pretrain`: trains a mini backbone on the world in two stages and writes it as a published-layout folder with its log and seed. */

import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '../checkpoints/atomic.ts';
import { openSafetensors } from '../checkpoints/safetensors.ts';
import { Atlas } from '../data/world/atlas.ts';
import { examScene } from '../data/world/exam.ts';
import { canvas } from '../data/world/scene.ts';
import { bosId, eosId, imageId, WorldEncoder } from '../data/world/vocabulary.ts';
import type { Tensor } from '../graph/dtype.ts';
import type { Architecture } from '../models/architecture.ts';
import { loadModel, weightShapes } from '../models/load.ts';
import type { Vlm } from '../models/vlm.ts';
import { checkpointFile, type LogLine, logFile, trainingLoop, warmHoldDecay } from '../training/loop.ts';
import { alignStage, type DecoderStage, decoderStage, decoderTrainer, polishStage, refineStage } from './decoder.ts';
import { rescaleResidual, writeMini } from './finish.ts';
import { homeFeatures } from './homes.ts';
import { initialWeights } from './initial.ts';
import { type Mini, minis } from './minis.ts';
import type { Prefix } from './pack.ts';
import { probeShapes, type VisionStage, visionStage, visionTrainer } from './vision.ts';

export type Stage = 'vision' | 'decoder' | 'refine' | 'align' | 'polish';

export interface PretrainOptions {
  model: string;
  seed: string | number;
  out: string;
  vision?: Partial<VisionStage>;
  decoder?: Partial<DecoderStage>;
  refine?: Partial<DecoderStage>;
  align?: Partial<DecoderStage>;
  polish?: Partial<DecoderStage>;
  resume?: boolean;
  threads?: number;
  signal?: AbortSignal;
  onStep?: (stage: Stage, step: number, steps: number, line: { loss: number; [metric: string]: number }) => void;
}

export function miniNamed(model: string): Mini {
  const mini = minis[model];
  if (mini === undefined) throw new Error(`there is no mini ${JSON.stringify(model)}; minis: ${Object.keys(minis).join(', ')}`);
  return mini();
}

/** Weights of a stage's last checkpoint, by name. */
export function trainedWeights(dir: string): Map<string, Tensor<'float32'>> {
  const file = openSafetensors(join(dir, checkpointFile));
  const out = new Map<string, Tensor<'float32'>>();
  for (const [name, entry] of file.entries)
    if (name.startsWith('w:')) out.set(name.slice(2), file.readTensor(entry, { as: 'float32' }) as Tensor<'float32'>);
  return out;
}

/** Stage 1; returns the tower's weights. */
export async function pretrainVision(mini: Mini, options: PretrainOptions): Promise<Map<string, Tensor<'float32'>>> {
  const stage = { ...visionStage, ...mini.vision, ...options.vision };
  const dir = join(options.out, 'vision');
  mkdirSync(dir, { recursive: true });
  const shapes = new Map([...visionShapes(mini), ...probeShapes(mini.architecture, mini.visionWidth)]);
  const atlas = await Atlas.load();
  const initial = initialWeights(shapes, options.seed);
  const { trainer, feeds } = await visionTrainer(
    mini.architecture,
    initial,
    stage,
    mini.visionWidth,
    atlas,
    options.seed,
    options.threads,
  );
  await trainingLoop({
    trainer,
    feeds,
    dir,
    steps: stage.steps,
    rate: warmHoldDecay(stage.rate, stage.steps),
    every: 200,
    config: { model: mini.name, seed: String(options.seed), ...stage },
    resume: options.resume ?? existsSync(join(dir, checkpointFile)),
    signal: options.signal,
    onStep: (step, loss, metrics) => {
      const right = (metrics.right!.data as Float32Array)[0]!;
      options.onStep?.('vision', step, stage.steps, { loss, right });
      return { right };
    },
  });
  await trainer.release();
  return new Map([...trainer.weights].filter(([name]) => mini.isVision(name)));
}

/** Stage 2; returns the weights of decoder and connector. */
export async function pretrainDecoder(
  mini: Mini,
  tower: ReadonlyMap<string, Tensor<'float32'>>,
  options: PretrainOptions,
): Promise<Map<string, Tensor<'float32'>>> {
  const shapes = new Map([...weightShapes(mini.architecture)].filter(([name]) => !mini.isVision(name)));
  const atlas = await Atlas.load();
  const initial = initialWeights(shapes, options.seed, mini.mimetic);
  if (mini.queryTokens !== undefined)
    initial.set(mini.queryTokens, await homeFeatures(mini.architecture, tower, atlas, options.seed, options.threads));
  return lessonsStage('decoder', { ...decoderStage, ...mini.decoder, ...options.decoder }, initial, mini, tower, options);
}

/** Stage 3, from the weights of stage 2. */
export function refine(
  mini: Mini,
  tower: ReadonlyMap<string, Tensor<'float32'>>,
  initial: ReadonlyMap<string, Tensor<'float32'>>,
  options: PretrainOptions,
): Promise<Map<string, Tensor<'float32'>>> {
  return lessonsStage('refine', { ...refineStage, ...mini.refine, ...options.refine }, initial, mini, tower, options);
}

/** Stage 4, from the weights of stage 3. */
export function align(
  mini: Mini,
  tower: ReadonlyMap<string, Tensor<'float32'>>,
  initial: ReadonlyMap<string, Tensor<'float32'>>,
  options: PretrainOptions,
): Promise<Map<string, Tensor<'float32'>>> {
  return lessonsStage('align', { ...alignStage, ...mini.align, ...options.align }, initial, mini, tower, options);
}

/** Stage 5, from the weights of stage 4. */
export function polish(
  mini: Mini,
  tower: ReadonlyMap<string, Tensor<'float32'>>,
  initial: ReadonlyMap<string, Tensor<'float32'>>,
  options: PretrainOptions,
): Promise<Map<string, Tensor<'float32'>>> {
  return lessonsStage('polish', { ...polishStage, ...mini.polish, ...options.polish }, initial, mini, tower, options);
}

async function lessonsStage(
  name: Exclude<Stage, 'vision'>,
  stage: DecoderStage,
  initial: ReadonlyMap<string, Tensor<'float32'>>,
  mini: Mini,
  tower: ReadonlyMap<string, Tensor<'float32'>>,
  options: PretrainOptions,
): Promise<Map<string, Tensor<'float32'>>> {
  const dir = join(options.out, name);
  const atlas = await Atlas.load();
  const prefix = miniPrefix(mini);
  const { trainer, feeds, kinds } = await decoderTrainer(
    mini.architecture,
    tower,
    initial,
    stage,
    mini.visionWidth,
    prefix,
    atlas,
    `${options.seed}${name === 'decoder' ? '' : `/${name}`}`,
    options.threads,
  );
  // Running accuracy per lesson kind, for the eye.
  const running = new Map<string, number>();
  await trainingLoop({
    trainer,
    feeds,
    dir,
    steps: stage.steps,
    rate: warmHoldDecay(stage.rate, stage.steps, { hold: stage.hold }),
    every: 100,
    config: { model: mini.name, seed: String(options.seed), ...stage },
    resume: options.resume ?? existsSync(join(dir, checkpointFile)),
    signal: options.signal,
    onStep: (step, loss, metrics) => {
      const hits = metrics.hits!.data as Float32Array;
      const sums = new Map<string, [number, number]>();
      kinds().forEach((kind, i) => {
        const [right, count] = sums.get(kind) ?? [0, 0];
        sums.set(kind, [right + hits[i]!, count + 1]);
      });
      for (const [kind, [right, count]] of sums) {
        const before = running.get(kind) ?? right / count;
        running.set(kind, 0.95 * before + 0.05 * (right / count));
      }
      const line = { answers: (metrics.answers!.data as Float32Array)[0]!, ...Object.fromEntries([...running].sort()) };
      options.onStep?.(name, step, stage.steps, { loss, ...line });
      return step % 50 === 0 ? line : { answers: line.answers };
    },
  });
  await trainer.release();
  return trainer.weights;
}

/** Root mean square of the residual stream halfway up, over scenes of the world. */
async function residualScale(vlm: Vlm, atlas: Atlas): Promise<number> {
  const scenes = Array.from({ length: 16 }, (_, i) => examScene(atlas, 'residual', i));
  const asked = scenes.map((s) => s.questions[0]!);
  const batch = await vlm.batch(
    asked.map((q) => vlm.layout(q.prompt, true)),
    scenes.map((s) => ({ width: canvas, height: canvas, data: s.image })),
  );
  const site = `layers.${Math.floor(vlm.decoder.layers / 2)}.out`;
  const x = (await vlm.run({ from: 0, to: vlm.decoder.layers, outputs: [site] }, batch))[site]!.data as Float32Array;
  return Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length);
}

/**
 * All stages, then the folder `out` in its published layout, with `training.json` (seed, stages, curves) beside the weights.
 * Stopped and started again with the same options it goes on from its last checkpoint, kept in folders of `out` named after the stages.
 */
export async function pretrain(options: PretrainOptions): Promise<{ folder: string; factor: number; seconds: number }> {
  const started = performance.now();
  const mini = miniNamed(options.model);
  const tower = await pretrainVision(mini, options);
  let learned = await pretrainDecoder(mini, tower, options);
  for (const stage of [refine, align, polish]) learned = await stage(mini, tower, learned, options);
  const trained = new Map([...tower, ...learned]);
  const metadata = { model: mini.name, seed: String(options.seed) };
  const draft = join(options.out, 'unscaled');
  writeMini(mini, trained, draft, metadata);
  const vlm = loadModel(draft, { threads: options.threads });
  const factor = await residualScale(vlm, await Atlas.load());
  await vlm.release();
  writeMini(mini.withEpsilon(1 / factor ** 2), rescaleResidual(mini, trained, factor), options.out, metadata);
  rmSync(draft, { recursive: true });
  const curve = (stage: string): unknown[] =>
    readFileSync(join(options.out, stage, logFile), 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as LogLine)
      .filter(({ step }) => step % 50 === 0);
  const log = {
    ...metadata,
    stages: {
      vision: { ...visionStage, ...mini.vision, ...options.vision },
      decoder: { ...decoderStage, ...mini.decoder, ...options.decoder },
      refine: { ...refineStage, ...mini.refine, ...options.refine },
      align: { ...alignStage, ...mini.align, ...options.align },
      polish: { ...polishStage, ...mini.polish, ...options.polish },
    },
    residualFactor: factor,
    vision: curve('vision'),
    decoder: curve('decoder'),
    refine: curve('refine'),
    align: curve('align'),
    polish: curve('polish'),
  };
  writeFileAtomic(join(options.out, 'training.json'), `${JSON.stringify(log)}\n`);
  return { folder: options.out, factor, seconds: (performance.now() - started) / 1000 };
}

/** The tokens around the picture in every prompt that has one, and before a text without. */
export function promptPrefix(architecture: Architecture, bos: Mini['bos'] = '<s>'): Prefix {
  const encoder = new WorldEncoder();
  const first = bos === '<s>' ? bosId : eosId;
  const codec = {
    encode: (text: string, { special = true } = {}): number[] => [
      ...(special ? [first] : []),
      ...text
        .split('<image>')
        .flatMap((part, i) => [...(i > 0 ? [imageId] : []), ...(part === '' ? [] : encoder.encode(part, i === 0))]),
    ],
    decode: (ids: readonly number[]): string => (ids[0] === imageId ? '<image>' : encoder.decode(ids)),
  };
  // What follows the picture and does not come from the prompt is what an empty prompt leaves.
  const { before, after } = architecture.layout('', true, codec);
  const word = 'Which';
  const ids = architecture.layout(word, true, codec).after.join();
  const begins = [true, false].find((start) => ids === [...after, ...encoder.encode(word, start)].join());
  if (begins === undefined) throw new Error(`${architecture.name} does not end its input with the prompt`);
  return { before, after, visualTokens: architecture.visualTokens, begins, text: architecture.layout('', false, codec).after };
}

/** The prefix that a mini's lessons are packed with. */
export function miniPrefix({ architecture, bos, bareFacts = false }: Mini): Prefix {
  const prefix = promptPrefix(architecture, bos);
  return bareFacts ? { ...prefix, text: [] } : prefix;
}

/** Weights of the tower that the features depend on. */
export function visionShapes(mini: Mini): Map<string, readonly number[]> {
  return new Map([...weightShapes(mini.architecture)].filter(([name]) => mini.isVision(name)));
}
