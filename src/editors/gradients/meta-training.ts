/**
 * Training of a hyper-network editor: epochs over the training records in seeded order, checkpoints and resume, and at each checkpoint the weights
 * whose smoothed loss (EMA 0.1) is the smallest so far are kept.
 */

import { join } from 'node:path';
import type { EditRecord } from '../../data/records.ts';
import type { Node, Tensor } from '../../graph/index.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { OptimizerRule } from '../../nn/optimizers.ts';
import { Trainer } from '../../nn/trainer.ts';
import { Random } from '../../random.ts';
import { compile } from '../../runtime/node.ts';
import type { Feeds } from '../../runtime/program.ts';
import { trainingLoop, warmHoldDecay } from '../../training/loop.ts';
import { type EditorWeights, modelId, type Settings, type TrainOptions } from '../editor.ts';
import { readEditorWeights, writeEditorWeights } from '../files.ts';
import { MetaSamples, metaFeeds, type Prepared } from './meta-samples.ts';

export interface MetaConfig {
  /** first layer whose weights change */
  from: number;
  steps: number;
  batch: number;
  rate: number;
  /** fraction of the steps at the constant rate before the linear decay to `lastRate` of it */
  hold: number;
  lastRate: number;
  clip: number;
  /** bytes of frozen states kept in memory */
  budget: number;
}

export interface MetaTraining {
  editor: string;
  config: MetaConfig;
  settings: Settings;
  loss: Node;
  metrics: Record<string, Node>;
  initial: ReadonlyMap<string, Tensor<'float32'>>;
  rule: (name: string) => OptimizerRule;
  /** what stays as it is and belongs to the weights */
  fixed: ReadonlyMap<string, Tensor<'float32'>>;
  /** the editor's own feeds of a batch */
  feeds: (prepared: readonly Prepared[], records: readonly EditRecord[], step: number) => Promise<Feeds>;
  /** numbers of the run's state that change with the steps, such as a multiplier */
  state?: {
    after(metrics: Readonly<Record<string, number>>): void;
    save(): Record<string, number>;
    restore(s: Record<string, number>): void;
  };
  /** the number whose smoothed value says which weights are the best; the loss when left out */
  judge?: (loss: number, metrics: Readonly<Record<string, number>>) => number;
}

export async function trainHyperNetwork(
  vlm: Vlm,
  records: readonly EditRecord[],
  training: MetaTraining,
  options: TrainOptions,
): Promise<EditorWeights> {
  const { editor, config, loss, metrics, initial, rule, fixed, state, judge } = training;
  const random = new Random(`${options.seed}/${editor}`);
  const trainer = await Trainer.create({
    loss,
    metrics,
    initial,
    rule,
    clip: config.clip,
    compile,
    options: { threads: options.threads, weights: (name) => (fixed.has(name) ? fixed.get(name) : vlm.weights(name)) },
  });
  const samples = new MetaSamples(vlm, records, config.from, config.budget);
  const perEpoch = Math.max(1, Math.floor(records.length / config.batch));
  const places = records.map((_, i) => i);
  let epoch = -1;
  let order: number[] = [];
  let smoothed = Number.NaN;
  let best = Number.POSITIVE_INFINITY;
  const settings = { ...training.settings, seed: String(options.seed), records: records.length };
  const path = join(options.out, 'weights.safetensors');
  const current = (): EditorWeights => ({
    editor,
    model: modelId(vlm),
    settings,
    tensors: new Map([...fixed, ...trainer.weights]),
  });
  await trainingLoop({
    trainer,
    steps: config.steps,
    dir: options.out,
    every: Math.min(500, Math.max(50, Math.round(config.steps / 10))),
    rate: warmHoldDecay(config.rate, config.steps, {
      warmup: Math.min(100, Math.ceil(config.steps / 20)),
      hold: config.hold,
      last: config.lastRate,
    }),
    config: { model: vlm.fingerprint, ...settings },
    resume: options.resume,
    signal: options.signal,
    feeds: async (step) => {
      const now = Math.floor((step - 1) / perEpoch);
      if (now !== epoch) {
        order = random.fork(`epoch ${now}`).shuffle(places);
        epoch = now;
      }
      const at = ((step - 1) % perEpoch) * config.batch;
      const chosen = order.slice(at, at + config.batch);
      const prepared = await samples.get(chosen);
      const own = await training.feeds(
        prepared,
        chosen.map((i) => records[i]!),
        step,
      );
      return { ...metaFeeds(vlm, prepared), ...own };
    },
    onStep: (step, value, found) => {
      const values = Object.fromEntries(Object.keys(metrics).map((name) => [name, (found[name]!.data as Float32Array)[0]!]));
      state?.after(values);
      const judged = judge?.(value, values) ?? value;
      smoothed = Number.isNaN(smoothed) ? judged : 0.1 * judged + 0.9 * smoothed;
      const all = { ...values, ...state?.save(), smoothed };
      options.onStep?.({ step, steps: config.steps, loss: value, metrics: all });
      return all;
    },
    onCheckpoint: () => {
      if (smoothed > best) return;
      best = smoothed;
      writeEditorWeights(path, current());
    },
    extra: {
      save: () => ({ ...state?.save(), smoothed, best }),
      restore: (s) => {
        smoothed = s.smoothed ?? Number.NaN;
        best = s.best ?? Number.POSITIVE_INFINITY;
        state?.restore(s);
      },
    },
  });
  await trainer.release();
  return readEditorWeights(path);
}
