/** Training VEAD (VisEdit Eq. 17-24, Appendix A.4): frozen states from prepare.ts, the objective compiled with Adam, checkpoints and resume. */

import { f32, i64, type Tensor } from '../../graph/dtype.ts';
import type { EditRecord } from '../../input/records.ts';
import { rowOf, spanFeeds, stackPadded } from '../../models/batch.ts';
import { checkTraining } from '../../models/memory.ts';
import { visualPlaces } from '../../models/sequence.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { OptimizerRule } from '../../nn/optimizers.ts';
import { Trainer } from '../../nn/trainer.ts';
import type { Random } from '../../random.ts';
import { padStates, stateBytes } from '../context/states.ts';
import { preparationGroups, trainingRandom, trainOnRecords } from '../context/training.ts';
import type { EditorWeights, Settings, TrainOptions } from '../editor.ts';
import { type AdapterParts, type AdapterShape, initialAdapter } from './adapter.ts';
import { type LossWeights, objective, groups as sampleGroups } from './objective.ts';
import { type CloserLocality, closerLocalities, type PreparedRecord, Preparer, withLocality } from './prepare.ts';

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
  startWeights?: string | undefined;
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

function hintAt(hint: VeadConfig['hint'], step: number): number {
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
  prepared: readonly PreparedRecord[],
  draw: StepDraw,
  hint: number,
  targets?: Float32Array,
  whole: readonly PreparedRecord[] = prepared,
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

/** What is trained, on what loss, and how each weight learns. */
function learned(vlm: Vlm, config: VeadConfig, shape: AdapterShape, initial: ReadonlyMap<string, Tensor<'float32'>>) {
  return {
    ...objective(vlm, config.layer, shape, config.losses, config.parts),
    initial: usedWeights(initial, config),
    rule: (name: string): OptimizerRule =>
      config.muonRate > 0 && isMatrix(name) ? { rule: 'muon', rate: config.muonRate / config.rate } : { rule: 'adam' },
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
  return Trainer.create({
    ...learned(vlm, config, shape, initial),
    ...(config.clip === null ? {} : { clip: config.clip }),
    parts: config.microBatch < config.batch,
    compile: vlm.engine.compile,
    half: vlm.engine.device.half,
    stepsPerRun: vlm.engine.device.stepsPerRun,
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

/** @param more what belongs to the weights beside the adapter */
export function trainVead(
  vlm: Vlm,
  records: readonly EditRecord[],
  config: VeadConfig,
  options: TrainOptions,
  more?: { settings: Settings; tensors: readonly (readonly [string, Tensor<'float32'>])[] },
): Promise<EditorWeights> {
  const random = trainingRandom('vead', options);
  const { decoder } = vlm;
  const { width, heads, influenceWidth } = config;
  const shape: AdapterShape = { hidden: decoder.hidden, width, heads, influenceWidth };
  const initial = initialAdapter(shape, random.fork('initial'), config.valueCopy);
  if (vlm.memory !== undefined) {
    const layersAbove = decoder.layers - 1 - config.layer;
    checkTraining(vlm.name, vlm.memory, { layersAbove, records: config.microBatch, budget: vlm.memoryBudget });
  }
  const closer = closerLocalities.filter((kind) => config.locality[kind] > 0);
  const groups = preparationGroups('vead', options, {
    count: records.length,
    batch: config.batch,
    fits: stateBytes(vlm, records.length * (sampleGroups.length + closer.length)) <= config.budget,
  });
  const preparer = new Preparer(vlm, records, { ...config, closer }, random.fork('noise'), groups);
  const training = learned(vlm, config, shape, initial);
  const drawLocality = (record: PreparedRecord, drawn: Random): PreparedRecord => {
    let u = drawn.uniform();
    for (const kind of closer) {
      u -= config.locality[kind];
      if (u < 0) return withLocality(record, kind);
    }
    return record;
  };
  return trainOnRecords<{ record: PreparedRecord; draw: StepDraw; hint: number }>(
    vlm,
    records,
    {
      editor: 'vead',
      config,
      settings: { ...veadSettings(config), ...more?.settings },
      ...training,
      fixed: new Map([...[...initial].filter(([name]) => !training.initial.has(name)), ...(more?.tensors ?? [])]),
      warmup: 1,
      // While the hint is on, the loss is that of an easier task.
      counts: (step) => hintAt(config.hint, step) === 0,
      samples: async (places, drawn, step) => {
        const prepared = await preparer.get(places);
        const draw = {
          choice: drawn.int(3),
          sampled: drawn.shuffle(Array.from({ length: fewestTokens(prepared) }, (_, i) => i)).slice(0, config.sampled),
        };
        const hint = hintAt(config.hint, step);
        return prepared.map((record) => ({ record: drawLocality(record, drawn), draw, hint }));
      },
      feeds: (part, whole) => {
        const { draw, hint } = whole[0]!;
        const of = (some: readonly { record: PreparedRecord }[]): PreparedRecord[] => some.map(({ record }) => record);
        return stepFeeds(vlm, of(part), draw, hint, undefined, of(whole));
      },
    },
    options,
  );
}

/** Visual tokens that every sample has. */
const fewestTokens = (prepared: readonly PreparedRecord[]): number =>
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
    clip: config.clip,
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
