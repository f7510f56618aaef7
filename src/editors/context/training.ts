/**
 * Training on records: epochs in seeded order, checkpoints and resume, batches whole or in parts, and at each checkpoint the weights whose smoothed
 * loss (EMA 0.1) is the smallest so far are kept.
 */

import type { Node, Tensor } from '../../graph/index.ts';
import type { EditRecord } from '../../input/records.ts';
import type { Vlm } from '../../models/vlm.ts';
import { trainingLoop, warmHoldDecay } from '../../nn/loop.ts';
import type { OptimizerRule } from '../../nn/optimizers.ts';
import { Trainer } from '../../nn/trainer.ts';
import { Random } from '../../random.ts';
import type { Feeds } from '../../runtime/program.ts';
import { checkModel, type EditorWeights, fingerprintOf, modelId, type Settings, type TrainOptions } from '../editor.ts';
import { readEditorWeights, trainedWeights, writeEditorWeights } from '../files.ts';

export interface RecordTrainingConfig {
  steps: number;
  batch: number;
  /** records whose gradients are computed at once */
  microBatch: number;
  rate: number;
  /** fraction of the steps at the constant rate before the linear decay to `lastRate` of it */
  hold: number;
  lastRate: number;
  clip: number | null;
  /** weights file that the training goes on from */
  startWeights?: string | undefined;
}

export interface RecordTraining<T> {
  editor: string;
  config: RecordTrainingConfig;
  settings: Settings;
  /** a sum over the batch, with weights of the whole batch */
  loss: Node;
  metrics: Record<string, Node>;
  initial: ReadonlyMap<string, Tensor<'float32'>>;
  /** how each weight learns; Adam when absent */
  rule?: (name: string) => OptimizerRule;
  /** steps that the rate takes to rise; a twentieth of all, at most 100, when absent */
  warmup?: number;
  /** numbers that a step leaves to the next, such as a multiplier; they go into the log */
  state?: {
    after(metrics: Readonly<Record<string, number>>): void;
    save(): Record<string, number>;
    restore(saved: Readonly<Record<string, number>>): void;
  };
  /** whose smoothed value says which weights are the best; the loss when left out */
  judged?: (metrics: Readonly<Record<string, number>>) => number;
  /** whether weights after this step may be the best ones; always when absent */
  counts?: (step: number) => boolean;
  /** what stays as it is and belongs to the weights */
  fixed: ReadonlyMap<string, Tensor<'float32'>>;
  /** what a step learns of its records, by their places in the list */
  samples: (places: readonly number[], random: Random, step: number) => Promise<readonly T[]>;
  /** of a part of a batch */
  feeds: (part: readonly T[], whole: readonly T[]) => Promise<Feeds> | Feeds;
}

/** `samples` that takes one record after the other. */
export const oneByOne =
  <T>(sample: (place: number, random: Random) => Promise<T>): RecordTraining<T>['samples'] =>
  async (places, random) => {
    const out: T[] = [];
    for (const place of places) out.push(await sample(place, random));
    return out;
  };

/** What orders records and draws of a training come from. */
export const trainingRandom = (editor: string, { seed }: Pick<TrainOptions, 'seed'>): Random => new Random(`${seed}/${editor}`);

/** What decides the weights that a training gives: all of its configuration but what memory it takes. */
export function trainingSettings({
  budget: _,
  microBatch: __,
  startWeights: ___,
  ...settings
}: RecordTrainingConfig & { budget: number }): Settings {
  return { ...settings } as Settings;
}

export async function trainOnRecords<T>(
  vlm: Vlm,
  records: readonly EditRecord[],
  training: RecordTraining<T>,
  options: TrainOptions,
): Promise<EditorWeights> {
  const { editor, config, metrics, fixed } = training;
  const { steps, batch, microBatch, rate, hold, lastRate } = config;
  const start = config.startWeights === undefined ? undefined : startOf(config.startWeights, vlm, editor, training.initial);
  const random = trainingRandom(editor, options);
  const trainer = await Trainer.create({
    loss: training.loss,
    metrics,
    initial: start?.initial ?? training.initial,
    rule: training.rule ?? (() => ({ rule: 'adam' })),
    ...(config.clip === null ? {} : { clip: config.clip }),
    parts: microBatch < batch,
    compile: vlm.engine.compile,
    half: vlm.engine.device.half,
    // What a step leaves to the next is a number of the host's.
    stepsPerRun: training.state === undefined ? vlm.engine.device.stepsPerRun : 1,
    options: {
      ...vlm.compileOptions,
      ...(options.threads === undefined ? {} : { threads: options.threads }),
      weights: (name) => fixed.get(name) ?? vlm.weights(name),
    },
  });
  const perEpoch = Math.max(1, Math.floor(records.length / batch));
  let epoch = -1;
  let order: number[] = [];
  let smoothed = Number.NaN;
  let best = Number.POSITIVE_INFINITY;
  const settings = {
    ...training.settings,
    seed: String(options.seed),
    records: records.length,
    ...(start === undefined ? {} : { startWeights: start.fingerprint }),
  };
  const path = trainedWeights(options.out);
  const keep = (): void =>
    writeEditorWeights(path, { editor, model: modelId(vlm), settings, tensors: new Map([...fixed, ...trainer.weights]) });
  const { warmup = Math.min(100, Math.ceil(steps / 20)) } = training;
  await trainingLoop({
    trainer,
    steps,
    dir: options.out,
    every: Math.min(500, Math.max(50, Math.round(steps / 10))),
    rate: warmHoldDecay(rate, steps, { warmup, hold, last: lastRate }),
    config: { model: vlm.fingerprint, ...settings },
    ...(options.resume === undefined ? {} : { resume: options.resume }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    feeds: async (step) => {
      const now = Math.floor((step - 1) / perEpoch);
      if (now !== epoch) {
        order = epochOrder(random, now, records.length);
        epoch = now;
      }
      const at = ((step - 1) % perEpoch) * batch;
      const drawn = random.fork(`step ${step}`);
      const whole = await training.samples(order.slice(at, at + batch), drawn, step);
      const parts: Feeds[] = [];
      for (let i = 0; i < whole.length; i += microBatch) parts.push(await training.feeds(whole.slice(i, i + microBatch), whole));
      return parts.length === 1 ? parts[0]! : parts;
    },
    onStep: (step, loss, found) => {
      const values = Object.fromEntries(Object.keys(metrics).map((name) => [name, (found[name]!.data as Float32Array)[0]!]));
      const judged = training.judged?.(values) ?? loss;
      smoothed = Number.isNaN(smoothed) ? judged : 0.1 * judged + 0.9 * smoothed;
      training.state?.after(values);
      const all = { ...values, ...training.state?.save(), smoothed };
      options.onStep?.({ step, steps, loss, metrics: all });
      return all;
    },
    onCheckpoint: () => {
      if (smoothed > best || training.counts?.(trainer.step) === false) return;
      best = smoothed;
      keep();
    },
    extra: {
      save: () => ({ ...training.state?.save(), smoothed, best }),
      restore: (saved) => {
        smoothed = saved.smoothed ?? Number.NaN;
        best = saved.best ?? Number.POSITIVE_INFINITY;
        training.state?.restore(saved);
      },
    },
  });
  if (best === Number.POSITIVE_INFINITY) keep();
  await trainer.release();
  return readEditorWeights(path);
}

/**
 * What a training goes on from.
 * @throws Error that says why the file's weights are not what this training learns
 */
function startOf(
  path: string,
  vlm: Vlm,
  editor: string,
  initial: RecordTraining<unknown>['initial'],
): { initial: RecordTraining<unknown>['initial']; fingerprint: string } {
  const weights = readEditorWeights(path);
  if (weights.editor !== editor) throw new Error(`${path} holds weights of the editor ${weights.editor}, not of ${editor}`);
  checkModel(path, weights.model, vlm);
  const tensors = [...initial].map(([name, { shape }]): [string, Tensor<'float32'>] => {
    const found = weights.tensors.get(name);
    const form = found === undefined ? 'none' : `[${found.shape.join(', ')}]`;
    if (found?.dtype !== 'float32' || form !== `[${shape.join(', ')}]`)
      throw new Error(
        `${path} cannot be gone on from: its ${name} has the shape ${form}, this training's [${shape.join(', ')}]; give the settings that it was trained with`,
      );
    return [name, found as Tensor<'float32'>];
  });
  return { initial: new Map(tensors), fingerprint: fingerprintOf(weights) };
}

/** Places in a seeded order of their own for every epoch. */
const epochOrder = (random: Random, epoch: number, count: number): number[] =>
  random.fork(`epoch ${epoch}`).shuffle(Array.from({ length: count }, (_, i) => i));

/**
 * Which records are prepared together: the batches of the first epoch, and what is left over. A record is prepared with the same others whenever it
 * is asked for: padding moves the last bits, and a resumed training must have the same ones. Where not all can be kept each is on its own, since
 * later epochs ask for it alone.
 * @param of.fits whether what is made of all records can be kept
 */
export function preparationGroups(
  editor: string,
  options: Pick<TrainOptions, 'seed'>,
  { count, batch, fits }: { count: number; batch: number; fits: boolean },
): number[][] {
  const order = epochOrder(trainingRandom(editor, options), 0, count);
  const size = fits ? batch : 1;
  return Array.from({ length: Math.ceil(count / size) }, (_, i) => order.slice(i * size, (i + 1) * size));
}

/** Keeps what is made for places in a list, in groups, within a budget of bytes; what goes beyond is made again when it is asked for. */
export class Kept<T> {
  readonly #known = new Map<number, T>();
  readonly #groupOf = new Map<number, readonly number[]>();
  /** the last group that did not fit: its members are asked for one after the other */
  #last = new Map<number, T>();
  #bytes = 0;

  /** @param groups every place in one of them */
  constructor(
    readonly make: (places: readonly number[]) => Promise<readonly T[]>,
    readonly bytesOf: (made: T) => number,
    readonly budget: number,
    groups: readonly (readonly number[])[],
  ) {
    for (const group of groups) for (const place of group) this.#groupOf.set(place, group);
  }

  async get(place: number): Promise<T> {
    const known = this.#known.get(place) ?? this.#last.get(place);
    if (known !== undefined) return known;
    const group = this.#groupOf.get(place)!;
    const made = await this.make(group);
    this.#last = new Map(group.map((member, i) => [member, made[i]!]));
    const bytes = made.reduce((sum, one) => sum + this.bytesOf(one), 0);
    if (this.#bytes + bytes <= this.budget) {
      for (const [member, one] of this.#last) this.#known.set(member, one);
      this.#bytes += bytes;
    }
    return this.#last.get(place)!;
  }
}
