/** Training VEAD (VisEdit Eq. 17-24, Appendix A.4): frozen states from prepare.ts, the objective compiled with Adam, checkpoints and resume. */

import { join } from 'node:path';
import { f32, i64, type Tensor } from '../../graph/dtype.ts';
import type { EditRecord } from '../../input/records.ts';
import { rowOf, spanFeeds, stackPadded } from '../../models/batch.ts';
import { checkTraining } from '../../models/memory.ts';
import { visualPlaces } from '../../models/sequence.ts';
import type { Vlm } from '../../models/vlm.ts';
import { trainingLoop, warmHoldDecay } from '../../nn/loop.ts';
import { Trainer } from '../../nn/trainer.ts';
import { padStates, stateBytes } from '../context/states.ts';
import { epochOrder, preparationGroups, trainingRandom } from '../context/training.ts';
import { type EditorWeights, modelId, type Settings, type TrainOptions } from '../editor.ts';
import { writeEditorWeights } from '../files.ts';
import { type AdapterParts, type AdapterShape, initialAdapter } from './adapter.ts';
import { type LossWeights, objective, groups as sampleGroups } from './objective.ts';
import { type CloserLocality, closerLocalities, type Prepared, Preparer, withLocality } from './prepare.ts';

export interface VeadConfig {
  layer: number;
  /** L_h, the layers whose visual attribution the mapper learns */
  traced: readonly number[];
  width: number;
  heads: number;
  influenceWidth: number;
  steps: number;
  batch: number;
  /** records whose gradients are computed at once; below `batch` they are added up, which takes less memory */
  microBatch: number;
  rate: number;
  /** beyond the paper: matrices learn by Muon at this rate, which follows the schedule of `rate`; 0: by Adam, as everything else */
  muonRate: number;
  /** fraction of the steps at the constant rate before the linear decay to `lastRate` of it; 1 is the paper's constant rate */
  hold: number;
  lastRate: number;
  clip: number | null;
  /** visual positions drawn per step, |N_s| */
  sampled: number;
  draws: number;
  sigma: number;
  losses: LossWeights;
  parts: AdapterParts;
  /**
   * Beyond the paper: attention of the cross-attention starts on the target's tokens. `bias` is added to the logits of all other positions until
   * step `until`, then goes linearly to 0 at step `end`; the trained editor has no such term. 0 switches it off (the paper's own schedule).
   */
  hint: { bias: number; until: number; end: number };
  /** beyond the paper: `end · value` starts as the identity */
  valueCopy: boolean;
  /** beyond the paper: how often a locality sample that stands closer to the edit takes the place of the usual one (0 and 0: never) */
  locality: Readonly<Record<CloserLocality, number>>;
  /** bytes of frozen activations kept in memory */
  budget: number;
}

export function hintAt(hint: VeadConfig['hint'], step: number): number {
  if (hint.bias === 0 || step >= hint.end) return 0;
  if (step <= hint.until) return hint.bias;
  return (hint.bias * (hint.end - step)) / (hint.end - hint.until);
}

/** One step's choices: which rel/gen sample feeds the mapper's losses (0-2), and the visual positions N_s. */
export interface StepDraw {
  choice: number;
  sampled: readonly number[];
}

/**
 * Feeds of the objective for prepared records.
 * @param whole the batch that these are a part of: every token weighs as it does there
 */
export function stepFeeds(
  vlm: Vlm,
  prepared: readonly Prepared[],
  draw: StepDraw,
  hint: number,
  targets?: Float32Array,
  whole: readonly Prepared[] = prepared,
): Record<string, Tensor> {
  const d = vlm.decoder.hidden;
  const n = vlm.decoder.vocabulary;
  const e = prepared.length;
  const all = [0, 1, 2, 3].flatMap((g) => prepared.map((p) => p.samples[g]!));
  const { batch, feeds } = padStates(vlm, all);
  const signal = stackPadded(prepared.map(({ samples: [edit] }) => f32(edit!.hidden, [edit!.sequence.ids.length, d])));
  const signalLength = signal.shape[1]!;
  const signalBias = new Float32Array(e * signalLength);
  prepared.forEach(({ samples }, i) => {
    const { ids, promptEnd } = samples[0]!.sequence;
    const at = i * signalLength;
    if (hint !== 0) signalBias.fill(hint, at, at + promptEnd + 1);
    signalBias.fill(-1e9, at + ids.length, at + signalLength);
  });
  const rows: number[] = [];
  const labels: number[] = [];
  const groupOf: number[] = [];
  const locRows: number[] = [];
  all.forEach(({ sequence }, row) => {
    const g = Math.floor(row / e);
    sequence.targetIds.forEach((id, i) => {
      const at = rowOf(batch, row, sequence.promptEnd + i);
      if (g === 3) {
        locRows.push(at);
        return;
      }
      rows.push(at);
      labels.push(id);
      groupOf.push(g);
    });
  });
  const r = rows.length;
  const parts = new Float32Array(3 * r);
  const tokens = (g: number): number => whole.reduce((total, p) => total + p.samples[g]!.sequence.targetIds.length, 0);
  const sizes = [0, 1, 2].map(tokens);
  groupOf.forEach((g, i) => {
    parts[g * r + i] = 1 / sizes[g]!;
  });
  const edits = whole.length;
  const ends = new Float32Array(edits * d);
  const others = new Float32Array(e * edits);
  whole.forEach((p, n) => {
    const { sequence, hidden } = p.samples[0]!;
    ends.set(hidden.subarray(sequence.promptEnd * d, (sequence.promptEnd + 1) * d), n * d);
    prepared.forEach((own, i) => {
      if (own !== p) others[i * edits + n] = 1 / (edits * (edits - 1));
    });
  });
  const k = locRows.length;
  const before = new Float32Array(k * n);
  let cursor = 0;
  for (const p of prepared) {
    before.set(p.before, cursor);
    cursor += p.before.length;
  }
  const t = draw.sampled.length;
  const target = new Float32Array(e * t);
  prepared.forEach((p, i) => {
    const c = draw.sampled.map((at, j) => (targets === undefined ? p.influence[draw.choice]![at]! : targets[i * t + j]!) + 1e-12);
    const total = c.reduce((a, b) => a + b, 0);
    c.forEach((x, j) => {
      target[i * t + j] = x / total;
    });
  });
  return {
    ...feeds,
    ...spanFeeds(
      [0, 2, 3].flatMap((g) => prepared.map((p) => p.samples[g]!.sequence)),
      batch.prefix,
    ),
    signal,
    signalBias: f32(signalBias, [e, signalLength]),
    signalEnds: i64(
      prepared.map((p, i) => i * signalLength + p.samples[0]!.sequence.promptEnd),
      [e],
    ),
    rows: i64(rows, [r]),
    labels: i64(labels, [r]),
    parts: f32(parts, [3, r]),
    locRows: i64(locRows, [k]),
    before: f32(before, [k, n]),
    locWeights: f32(new Float32Array(k).fill(1 / tokens(3)), [k]),
    share: f32([e / whole.length], []),
    ends: f32(ends, [edits, d]),
    others: f32(others, [e, edits]),
    choice: i64(
      prepared.map((_, i) => draw.choice * e + i),
      [e],
    ),
    sampled: i64(
      prepared.flatMap(() => draw.sampled),
      [e, t],
    ),
    target: f32(target, [e, t]),
  };
}

/** The compiled training step over given starting weights. */
export function veadTrainer(
  vlm: Vlm,
  config: VeadConfig,
  shape: AdapterShape,
  initial: ReadonlyMap<string, Tensor<'float32'>>,
  threads?: number,
): Promise<Trainer> {
  const { loss, metrics } = objective(vlm, config.layer, shape, config.losses, config.parts);
  return Trainer.create({
    loss,
    metrics,
    initial: usedWeights(initial, config),
    rule: (name) =>
      config.muonRate > 0 && isMatrix(name) ? { rule: 'muon', rate: config.muonRate / config.rate } : { rule: 'adam' },
    ...(config.clip === null ? {} : { clip: config.clip }),
    parts: config.microBatch < config.batch,
    compile: vlm.engine.compile,
    half: vlm.engine.device.half,
    options: { ...vlm.compileOptions, ...(threads === undefined ? {} : { threads }), weights: vlm.weights },
  });
}

const isMatrix = (name: string): boolean => name.endsWith('.weight') && !/(^|\.)ln_/.test(name);

/** Without a part its weights do not take part in the loss. */
function usedWeights(initial: ReadonlyMap<string, Tensor<'float32'>>, { parts }: VeadConfig): Map<string, Tensor<'float32'>> {
  const unused = (name: string): boolean =>
    (!parts.influenceMapper && name.startsWith('influence_mapper.')) ||
    (!parts.crossAttention && /^(cross_att_[kv]_mlp|ln_edit_reps)\./.test(name));
  return new Map([...initial].filter(([name]) => !unused(name)));
}

export const bestFile = 'weights.safetensors';

export async function trainVead(
  vlm: Vlm,
  records: readonly EditRecord[],
  config: VeadConfig,
  options: TrainOptions,
): Promise<EditorWeights> {
  const random = trainingRandom('vead', options);
  const { decoder } = vlm;
  const shape: AdapterShape = {
    hidden: decoder.hidden,
    width: config.width,
    heads: config.heads,
    influenceWidth: config.influenceWidth,
  };
  const initial = initialAdapter(shape, random.fork('initial'), config.valueCopy);
  if (vlm.memory !== undefined) {
    const layersAbove = decoder.layers - 1 - config.layer;
    checkTraining(vlm.name, vlm.memory, { layersAbove, records: config.microBatch, budget: vlm.memoryBudget });
  }
  const trainer = await veadTrainer(vlm, config, shape, initial, options.threads);
  const closer = closerLocalities.filter((kind) => config.locality[kind] > 0);
  const groups = preparationGroups('vead', options, {
    count: records.length,
    batch: config.batch,
    fits: stateBytes(vlm, records.length * (sampleGroups.length + closer.length)) <= config.budget,
  });
  const preparer = new Preparer(vlm, records, { ...config, closer }, random.fork('noise'), groups);
  const perEpoch = Math.max(1, Math.floor(records.length / config.batch));
  let orderEpoch = -1;
  let order: number[] = [];
  // Smoothed loss (EMA 0.1): the checkpoint with the smallest one is kept.
  let smoothed = Number.NaN;
  let best = Number.POSITIVE_INFINITY;
  const settings = { ...veadSettings(config), seed: String(options.seed), records: records.length };
  const weightsPath = join(options.out, bestFile);
  const current = (): EditorWeights => ({
    editor: 'vead',
    model: modelId(vlm),
    settings,
    tensors: new Map([...initial, ...trainer.weights]),
  });
  let kept = current();
  await trainingLoop({
    trainer,
    steps: config.steps,
    dir: options.out,
    every: Math.min(500, Math.max(50, Math.round(config.steps / 10))),
    rate: warmHoldDecay(config.rate, config.steps, { warmup: 1, hold: config.hold, last: config.lastRate }),
    config: { model: vlm.fingerprint, ...settings },
    resume: options.resume,
    signal: options.signal,
    feeds: async (step) => {
      const epoch = Math.floor((step - 1) / perEpoch);
      if (epoch !== orderEpoch) {
        order = epochOrder(random, epoch, records.length);
        orderEpoch = epoch;
      }
      const at = ((step - 1) % perEpoch) * config.batch;
      const prepared = await preparer.get(order.slice(at, at + config.batch));
      const drawn = random.fork(`step ${step}`);
      const draw = {
        choice: drawn.int(3),
        sampled: drawn.shuffle(Array.from({ length: fewestTokens(prepared) }, (_, i) => i)).slice(0, config.sampled),
      };
      const given = prepared.map((record) => {
        let u = drawn.uniform();
        for (const kind of closer) {
          u -= config.locality[kind];
          if (u < 0) return withLocality(record, kind);
        }
        return record;
      });
      const hint = hintAt(config.hint, step);
      if (config.microBatch >= config.batch) return stepFeeds(vlm, given, draw, hint);
      const parts = Array.from({ length: Math.ceil(given.length / config.microBatch) }, (_, i) =>
        given.slice(i * config.microBatch, (i + 1) * config.microBatch),
      );
      return parts.map((part) => stepFeeds(vlm, part, draw, hint, undefined, given));
    },
    onStep: (step, loss, metrics) => {
      smoothed = Number.isNaN(smoothed) ? loss : 0.1 * loss + 0.9 * smoothed;
      const values = Object.fromEntries(Object.entries(metrics).map(([name, { data }]) => [name, (data as Float32Array)[0]!]));
      options.onStep?.({ step, steps: config.steps, loss, metrics: { ...values, smoothed } });
      return { ...values, smoothed };
    },
    onCheckpoint: () => {
      // While the hint is on, the loss is that of an easier task.
      if (hintAt(config.hint, trainer.step) !== 0 || smoothed > best) return;
      best = smoothed;
      kept = current();
      writeEditorWeights(weightsPath, kept);
    },
    extra: {
      save: () => ({ smoothed, best }),
      restore: (state) => {
        smoothed = state.smoothed ?? Number.NaN;
        best = state.best ?? Number.POSITIVE_INFINITY;
      },
    },
  });
  await trainer.release();
  if (best === Number.POSITIVE_INFINITY) {
    kept = current();
    writeEditorWeights(weightsPath, kept);
  }
  return kept;
}

/** Visual tokens that every sample has. */
const fewestTokens = (prepared: readonly Prepared[]): number =>
  Math.min(...prepared.flatMap(({ samples }) => samples.map(({ sequence }) => visualPlaces(sequence).length)));

/** What the weights file says of how they were made. */
export function veadSettings(config: VeadConfig): Settings {
  const { losses, parts } = config;
  return {
    layer: config.layer,
    traced: config.traced,
    width: config.width,
    heads: config.heads,
    influenceWidth: config.influenceWidth,
    steps: config.steps,
    batch: config.batch,
    rate: config.rate,
    muonRate: config.muonRate,
    hold: config.hold,
    lastRate: config.lastRate,
    ...(config.clip === null ? {} : { clip: config.clip }),
    sampled: config.sampled,
    draws: config.draws,
    sigma: config.sigma,
    losses: [losses.rel, losses.gen, losses.loc, losses.up, losses.down, losses.attribution, losses.others],
    influenceMapper: parts.influenceMapper,
    crossAttention: parts.crossAttention,
    hint: [config.hint.bias, config.hint.until, config.hint.end],
    valueCopy: config.valueCopy,
    localitySameImage: config.locality.sameImage,
    localitySameQuestion: config.locality.sameQuestion,
  };
}
