/** `world pretrain`: trains a mini backbone on the world in two stages and writes it as a published-layout folder with its log and seed. */

import { existsSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { makeFolder, writeFileAtomic } from '../../src/files/atomic.ts';
import { holdFolder } from '../../src/files/hold-folder.ts';
import { openSafetensors } from '../../src/files/safetensors.ts';
import { readJsonAs, readJsonLines } from '../../src/files/schema.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import { rowView } from '../../src/input/image/views.ts';
import { anyPicture, type Picture } from '../../src/input/segments.ts';
import type { LaidToken, TextCodec } from '../../src/models/architecture.ts';
import { loadModel, modelFolder, weightShapes } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { checkpointFile, logFile, logLine, trainingLoop, warmHoldDecay } from '../../src/nn/loop.ts';
import { Atlas } from '../world/atlas.ts';
import { examScene } from '../world/exam.ts';
import { canvas } from '../world/scene.ts';
import { bosId, eosId, imageId, WorldEncoder } from '../world/vocabulary.ts';
import { decoderTrainer } from './decoder.ts';
import { rescaleResidual, writeMini } from './finish.ts';
import { homeFeatures } from './homes.ts';
import { initialWeights } from './initial.ts';
import { type Mini, minis } from './minis.ts';
import type { Prefix } from './pack.ts';
import type { DecoderStage } from './stages.ts';
import { probeShapes, type VisionStage, visionStage, visionTrainer } from './vision.ts';

export interface PretrainOptions {
  model: string;
  seed: string | number;
  out: string;
  /** settings other than the mini's own, by stage */
  settings?: { vision?: Partial<VisionStage> } & Readonly<Record<string, Partial<DecoderStage & VisionStage>>>;
  resume?: boolean;
  threads?: number;
  signal?: AbortSignal;
  onStep?: (stage: string, step: number, steps: number, line: { loss: number; [metric: string]: number }) => void;
}

export function miniNamed(model: string): Mini {
  const mini = minis[model];
  if (mini === undefined) throw new Error(`there is no mini ${JSON.stringify(model)}; minis: ${Object.keys(minis).join(', ')}`);
  return mini();
}

/** Beside the weights of a pretrained mini: seed, stages, curves, and by what its residual stream was divided. */
const trainingFile = 'training.json';

/** Weights that a mini takes over from built-in minis, under its own names, with the residual stream that those were trained with. */
function takeParts(mini: Mini): Map<string, Tensor<'float32'>> {
  const out = new Map<string, Tensor<'float32'>>();
  for (const { model, take } of mini.parts ?? []) {
    const dir = modelFolder(model);
    const file = openSafetensors(join(dir, 'model.safetensors'));
    const stored = new Map(
      [...file.entries].map(([name, entry]) => [name, file.readTensor(entry, { as: 'float32' }) as Tensor<'float32'>]),
    );
    const { residualFactor } = readJsonAs(join(dir, trainingFile), z.looseObject({ residualFactor: z.number() }));
    for (const [name, t] of rescaleResidual(miniNamed(basename(dir)), stored, 1 / residualFactor))
      for (const [own, part] of take(name, t)) out.set(own, part);
  }
  return out;
}

const ofTower = (mini: Mini, weights: ReadonlyMap<string, Tensor<'float32'>>): Map<string, Tensor<'float32'>> =>
  new Map([...weights].filter(([name]) => mini.isVision(name)));

/** Which layer is copied, and after which one the copy stands. */
const growth = { copy: 0, after: 2 };

/**
 * A decoder with one layer more: a copy of the first, which matches words against the picture, stands after the third, so that the picture is
 * read again. @param prefix of the names of the decoder's layers
 */
function withCopiedLayer(weights: ReadonlyMap<string, Tensor<'float32'>>, prefix: string): Map<string, Tensor<'float32'>> {
  const out = new Map<string, Tensor<'float32'>>();
  for (const [name, t] of weights) {
    const index = name.startsWith(prefix) ? Number.parseInt(name.slice(prefix.length), 10) : Number.NaN;
    const at = (i: number): string => `${prefix}${i}${name.slice(prefix.length + String(index).length)}`;
    out.set(index > growth.after ? at(index + 1) : name, t);
    if (index === growth.copy) out.set(at(growth.after + 1), t);
  }
  return out;
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
async function pretrainVision(mini: Mini, options: PretrainOptions): Promise<Map<string, Tensor<'float32'>>> {
  const stage = { ...visionStage, ...mini.vision, ...options.settings?.vision };
  const dir = join(options.out, 'vision');
  makeFolder(dir);
  const shapes = new Map([...visionShapes(mini), ...probeShapes(mini)]);
  const atlas = await Atlas.load();
  const initial = initialWeights(shapes, options.seed);
  const { trainer, feeds } = await visionTrainer(mini, initial, stage, atlas, options.seed, options.threads);
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
  return ofTower(mini, trainer.weights);
}

/** Starting weights of decoder and connector: taken from the minis that this one is put together from, otherwise drawn. */
async function startingWeights(
  mini: Mini,
  tower: ReadonlyMap<string, Tensor<'float32'>>,
  parts: ReadonlyMap<string, Tensor<'float32'>>,
  options: PretrainOptions,
): Promise<Map<string, Tensor<'float32'>>> {
  const shapes = new Map([...weightShapes(mini.architecture)].filter(([name]) => !mini.isVision(name)));
  const initial = initialWeights(shapes, options.seed, mini.mimetic);
  if (mini.queryTokens !== undefined && !parts.has(mini.queryTokens))
    initial.set(
      mini.queryTokens,
      await homeFeatures(mini.architecture, tower, await Atlas.load(), options.seed, options.threads),
    );
  for (const name of shapes.keys()) if (parts.has(name)) initial.set(name, parts.get(name)!);
  return initial;
}

/** One stage of lessons, from the weights of the one before; returns the weights of decoder and connector. */
async function lessonsStage(
  mini: Mini,
  name: string,
  stage: DecoderStage,
  initial: ReadonlyMap<string, Tensor<'float32'>>,
  tower: ReadonlyMap<string, Tensor<'float32'>>,
  options: PretrainOptions,
): Promise<Map<string, Tensor<'float32'>>> {
  const dir = join(options.out, name);
  const atlas = await Atlas.load();
  const { trainer, feeds, kinds } = await decoderTrainer(
    mini,
    tower,
    initial,
    stage,
    (grid) => miniPrefix(mini, grid, (stage.pairs ?? 0) > 0),
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
    rate: warmHoldDecay(stage.rate, stage.steps, { hold: stage.hold, warmup: stage.warmup }),
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
    asked.map((q, i) => vlm.layout({ prompt: q.prompt, image: { width: canvas, height: canvas, data: scenes[i]!.image } })),
  );
  const site = `layers.${Math.floor(vlm.decoder.layers / 2)}.out`;
  const x = (await vlm.run({ from: 0, to: vlm.decoder.layers, read: [site] }, batch))[site]!.data as Float32Array;
  return Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length);
}

export interface Pretrained {
  readonly folder: string;
  /** that the residual stream was scaled by */
  readonly factor: number;
  readonly seconds: number;
}

/**
 * Trains a mini backbone: all stages, then the folder `out` in its published layout, with `training.json` (seed, stages, curves) beside the weights.
 * Stopped and started again with the same options it goes on from its last checkpoint, kept in folders of `out` named after the stages.
 * @throws Error when there is no such mini, or `out` holds checkpoints of a run with other settings
 */
export async function pretrain(options: PretrainOptions): Promise<Pretrained> {
  const release = holdFolder(options.out);
  try {
    return await inStages(options);
  } finally {
    release();
  }
}

async function inStages(options: PretrainOptions): Promise<Pretrained> {
  const started = performance.now();
  const mini = miniNamed(options.model);
  const parts = takeParts(mini);
  const learnsTower = [...visionShapes(mini).keys()].some((name) => !parts.has(name));
  const tower = learnsTower ? await pretrainVision(mini, options) : ofTower(mini, parts);
  const stages: Record<string, unknown> = learnsTower
    ? { vision: { ...visionStage, ...mini.vision, ...options.settings?.vision } }
    : {};
  let learned: Map<string, Tensor<'float32'>> | undefined;
  let layers = 0;
  for (const lesson of mini.lessons) {
    const now = mini.withLayers(lesson.layers);
    if (learned === undefined) learned = await startingWeights(now, tower, parts, options);
    else if (lesson.layers === layers + 1) learned = withCopiedLayer(learned, mini.decoderLayer);
    else if (lesson.layers !== layers)
      throw new Error(`${mini.name}: stage ${lesson.name} jumps from ${layers} to ${lesson.layers} layers`);
    layers = lesson.layers;
    const settings = { ...lesson.settings, ...options.settings?.[lesson.name] };
    stages[lesson.name] = { layers, ...settings };
    learned = await lessonsStage(now, lesson.name, settings, learned, tower, options);
  }
  const trained = new Map([...tower, ...learned!]);
  const metadata = { model: mini.name, seed: String(options.seed) };
  const draft = join(options.out, 'unscaled');
  writeMini(mini, trained, draft, metadata);
  const vlm = loadModel(draft, { threads: options.threads });
  const factor = await residualScale(vlm, await Atlas.load());
  await vlm.release();
  writeMini(mini.withEpsilon(1 / factor ** 2), rescaleResidual(mini, trained, factor), options.out, metadata);
  rmSync(draft, { recursive: true });
  const curve = (stage: string): unknown[] =>
    readJsonLines(join(options.out, stage, logFile), logLine).filter(({ step }) => step % 50 === 0);
  const curves = Object.fromEntries(Object.keys(stages).map((stage) => [stage, curve(stage)]));
  writeFileAtomic(
    join(options.out, trainingFile),
    `${JSON.stringify({ ...metadata, stages, residualFactor: factor, curves })}\n`,
  );
  return { folder: options.out, factor, seconds: (performance.now() - started) / 1000 };
}

/** The world's encoder with a mini's special tokens, as its tokenizer writes texts. */
function codecOf({ bos, tokenizer }: Mini): TextCodec {
  const encoder = new WorldEncoder();
  const image = tokenizer?.image ?? '<image>';
  const special = new Map([
    [image, imageId],
    ...(tokenizer?.more ?? []).map((text, i): [string, number] => [text, encoder.size + i]),
  ]);
  const parts = new RegExp(`(${[...special.keys()].map((text) => text.replace(/[|]/g, '\\|')).join('|')})`);
  return {
    encode: (text, { special: framed = true } = {}) => [
      ...(framed && bos !== null ? [bos === '<s>' ? bosId : eosId] : []),
      ...text.split(parts).flatMap((part, i) => {
        const id = special.get(part);
        return id !== undefined ? [id] : part === '' ? [] : encoder.encode(part, i === 0);
      }),
    ],
    decode: (ids) => (ids[0] === imageId ? image : encoder.decode(ids)),
  };
}

/** The tokens around a picture in every prompt that has one, and before a text without. @param grid of its visual tokens, where pictures differ */
function promptPrefix(mini: Mini, grid: readonly [number, number], two: boolean): Prefix {
  const { architecture } = mini;
  const encoder = new WorldEncoder();
  const codec = codecOf(mini);
  const [height, width] = grid;
  const picture: Picture = {
    ...anyPicture,
    ...(architecture.fixed ?? { count: height * width, views: [rowView('whole', { left: 0, top: 0, width, height }, grid)] }),
  };
  const { count } = picture;
  const laid = (prompt: string, pictures: number): LaidToken[] => {
    const shown = new Array(pictures).fill({ picture });
    return architecture.layout([...shown, { text: pictures > 0 ? architecture.afterPicture + prompt : prompt }], codec);
  };
  /** The tokens before, between and after the pictures. */
  const around = (prompt: string, pictures: number): number[][] => {
    const out: number[][] = [[]];
    for (const token of laid(prompt, pictures))
      if (typeof token === 'number') out.at(-1)!.push(token);
      else out.push([]);
    return out;
  };
  const placesOf = (parts: readonly (readonly number[])[]): Pick<Prefix, 'places'> => {
    if (architecture.positions === undefined) return {};
    const ids: number[] = [];
    const spans = parts.slice(0, -1).map((part) => {
      ids.push(...part);
      const from = ids.length;
      ids.push(...new Array<number>(count).fill(-1));
      return [[from, ids.length] as const];
    });
    ids.push(...parts.at(-1)!);
    const { positions, positionDelta = 0 } = architecture.positions({ ids, pictures: spans.map(() => picture), spans });
    return { places: { axes: positions!, next: ids.length + positionDelta } };
  };
  // What follows the picture and does not come from the prompt is what an empty prompt leaves.
  const parts = around('', 1);
  const [before, after] = parts as [number[], number[]];
  const word = 'Which';
  const ids = around(word, 1)[1]!.join();
  const begins = [true, false].find((start) => ids === [...after, ...encoder.encode(word, start)].join());
  if (begins === undefined) throw new Error(`${architecture.name} does not end its input with the prompt`);
  const prefix = { before, after, visualTokens: count, begins, text: laid('', 0) as number[], ...placesOf(parts) };
  if (!two) return prefix;
  const both = around('', 2);
  return { ...prefix, second: { between: both[1]!, ...placesOf(both) } };
}

/**
 * The prefix that a mini's lessons are packed with.
 * @param grid of the visual tokens, where pictures differ @param two whether a second picture stands behind the first
 */
export function miniPrefix(mini: Mini, grid: readonly [number, number] = [1, 1], two = false): Prefix {
  const prefix = promptPrefix(mini, grid, two);
  return mini.bareFacts ? { ...prefix, text: [] } : prefix;
}

/** Weights of the tower that the features depend on. */
function visionShapes(mini: Mini): Map<string, readonly number[]> {
  return new Map([...weightShapes(mini.architecture)].filter(([name]) => mini.isVision(name)));
}
