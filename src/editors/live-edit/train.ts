/**
 * Training LiveEdit (Eq. 8-16) over the frozen states at the edit layer. A batch gives for each record its request, a rephrased prompt, a rephrased
 * picture and an image locality. Losses, all of weight 1:
 *   ℓ_rel, ℓ_gen   cross-entropy of the answer under the record's own expert and the first few of the batch
 *   ℓ_loc          KL(after ‖ before) on the answer of the locality under the first few experts of the batch
 *   soft routing   of pairs (input, edit) of one record, S = their prompts' similarities [b, b]:
 *                  −log softmax_row(S)_bb, and −log σ(S_bb) − log(1 − σ(S_b,b−1))
 *   hard routing   row b = softmax of [the visual similarities to the batch's edits, that to the sentinel]: −log of the own edit's for pairs
 *                  that belong together, −log of the sentinel's for pairs of which one side is a locality
 * The forward starts after the edit layer, as inference does, so a state without an expert stays what it is.
 */

import { z } from 'zod';
import { f32, i64, type Tensor } from '../../graph/dtype.ts';
import {
  add,
  concat,
  crossEntropy,
  gather,
  input,
  klDivergence,
  log,
  matmul,
  mean,
  mul,
  mulDim,
  type Node,
  reshape,
  sigmoid,
  slice,
  softmax,
  sub,
  sum,
  takeLast,
} from '../../graph/index.ts';
import type { EditRecord } from '../../input/records.ts';
import { usualTokens } from '../../models/architecture.ts';
import { rowOf } from '../../models/batch.ts';
import { deepInputs } from '../../models/deep.ts';
import { placeInputs as layoutInputs, splitStates, textInPlace, walkSplit } from '../../models/forward.ts';
import { checkTraining } from '../../models/memory.ts';
import { Sites } from '../../models/sites.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { OptimizerRule } from '../../nn/optimizers.ts';
import { Weights } from '../../nn/weights.ts';
import type { Random } from '../../random.ts';
import { padStates, stateBytes } from '../context/states.ts';
import { preparationGroups, trainingRandom, trainingSettings, trainOnRecords } from '../context/training.ts';
import type { EditorWeights, TrainOptions } from '../editor.ts';
import { clipping, flag, headsDivide, layerOf, real, recordTraining, size, trainingConfig, whole } from '../settings.ts';
import { groups } from '../vead/objective.ts';
import { type CloserLocality, closerLocalities, type PreparedRecord, Preparer, withLocality } from '../vead/prepare.ts';
import { experts, extract, initialLiveEdit, type LiveEditShape, residual, similarityScale } from './modules.ts';
import { placeFeeds, placeInputs } from './places.ts';

/** The layer of the published models, 21 of 32, at its share of the depth. */
const suggestedLayer = ({ decoder: { layers } }: Vlm): number =>
  Math.max(0, Math.min(layers - 2, Math.round((22 / 32) * layers) - 1));

const share = (meaning: string) => real(meaning, { min: 0, max: 1 }).default(0);

const fields = (vlm: Vlm) => ({
  layer: layerOf(vlm, 'l_e, the decoder layer whose output the experts are added to, from 0', {
    last: vlm.decoder.layers - 2,
    option: '--layer',
    fits: `a layer must come after it, and ${vlm.name} has ${vlm.decoder.layers}`,
  }).default(suggestedLayer(vlm)),
  width: size('d_m, the width of keys and attention').default(1024),
  heads: size('attention heads').default(8),
  rank: size('r, neurons of an expert').default(4),
  keys: size('k, vectors of a key').default(4),
  scale: real('s, what experts are divided by, with √r', { above: 0 }).default(5),
  ...recordTraining({ steps: 40_000, batch: 8, rate: 1e-4, hold: 0.25, lastRate: 0.1, budget: 2e9 }),
  clip: clipping(1).unwrap().nullable().default(null),
  muonRate: real('beyond the paper: matrices learn by Muon at this rate; 0: by Adam').default(0),
  copyStart: flag(
    'beyond the paper: V starts as a copy of states, and the extractor of inputs as a copy of that of edits',
  ).default(false),
  learnEnd: flag('beyond the paper: the end of the answer is learned, too, so that free answers end').default(false),
  most: whole(
    'beyond the paper: the most experts that act on a query, those with the closest keys; 0: all that are kept',
  ).default(0),
  localitySameImage: share('beyond the paper: share of draws with another question about the same picture'),
  localitySameQuestion: share('beyond the paper: share of draws with the same question about another picture'),
});

export const liveEditSchema = (vlm: Vlm) => z.object(fields(vlm)).superRefine(headsDivide);

export type LiveEditConfig = z.output<ReturnType<typeof liveEditSchema>> & { microBatch: number };

/** A batch comes whole: its records are edits to each other. */
export function liveEditConfig(vlm: Vlm, options: Partial<TrainOptions> = {}): LiveEditConfig {
  const config = trainingConfig('live-edit', liveEditSchema(vlm), options);
  return { ...config, microBatch: config.batch };
}

type Group = (typeof groups)[number];

/** Which samples of a record stand for an input and for an edit. */
interface Pair {
  readonly input: Group;
  readonly edit: Group;
}

/** What a step draws for one record. */
export interface RecordDraw {
  /** of reliability, generality and locality: experts of the batch's first records that act, too */
  readonly experts: readonly [number, number, number];
  readonly neighbour: Pair;
  readonly prototype: Pair;
}

/** The draws of the release, for a batch of this size. */
export function drawRecord(random: Random, batch: number): RecordDraw {
  const generality = (): Group => (['textGenerality', 'modalGenerality'] as const)[random.int(2)]!;
  const inScope = (): Group => (random.int(2) === 0 ? 'reliability' : generality());
  const any = (): Group => (['reliability', generality(), 'modalLocality'] as const)[random.int(3)]!;
  const count = (): number => random.int(batch + 1);
  const counts = [count(), count(), count()] as const;
  const first = any();
  const neighbour = { input: first, edit: first === 'modalLocality' ? first : inScope() };
  const near = inScope();
  const prototype: Pair = random.int(2) === 0 ? { input: near, edit: 'modalLocality' } : { input: 'modalLocality', edit: near };
  return { experts: counts, neighbour, prototype };
}

const small = 1e-8;
const logOf = (x: Node): Node => log(add(x, small));

/**
 * Inputs: hidden [4b, l, d] in the order of `groups`, positions, bias; those of `deepInputs`; places.*; acting [4b, b], which of the batch's experts act on a row; rows, labels [r] and parts
 * [3, r] (weights of each row in ℓ_rel, ℓ_gen text, ℓ_gen modal); locRows [k], before [k, n], locWeights [k]; neighbour.input, .edit and prototype.input,
 * .edit [b], rows of the samples of each pair; before-last [b, 1], the record before in the batch.
 */
export function liveEditObjective(vlm: Vlm, layer: number, shape: LiveEditShape): { loss: Node; metrics: Record<string, Node> } {
  const { decoder, usualPrefix: prefix } = vlm;
  const d = decoder.hidden;
  const w = new Weights();
  const b = mulDim(groups.length, 'e');
  const { length: l, positions, bias } = layoutInputs(decoder, prefix, b);
  const hidden = input('hidden', [b, l, d]);
  const places = placeInputs(b, l);
  const asked = extract(w, 'inpt_extractor', hidden, places, shape);
  const stored = extract(w, 'edit_extractor', hidden, places, shape);
  const requests = (x: Node): Node => slice(x, 0, 0, 'e');
  const { u, v } = experts(
    w,
    requests(hidden),
    { visual: requests(places.visual), prompt: requests(places.prompt), all: requests(places.all) },
    shape,
  );
  const similarity = (x: Node, y: Node): Node => mul(matmul(x, y, false, true), similarityScale(shape));

  // Soft routing among the experts that act on a row.
  const acting = input('acting', [b, 'e']);
  const scores = similarity(asked.prompt, requests(stored.prompt));
  const chosen = softmax(add(scores, mul(sub(acting, 1), 1e9)));
  const weights = mul(mul(chosen, sigmoid(scores)), acting);
  const { rank } = shape;
  const neurons = mulDim('e', rank);
  const perNeuron = reshape(mul(reshape(weights, [b, 'e', 1]), input('ones', [1, 1, rank])), [b, neurons]);
  const flatten = (x: Node): Node => reshape(x, [1, neurons, d]);
  const changed = add(hidden, residual(w, hidden, flatten(u), flatten(v), perNeuron, shape));

  const x = walkSplit(decoder, layer + 1, decoder.layers, splitStates(changed, prefix), {
    ...{ weights: new Weights(), sites: new Sites(), positions, bias, length: prefix, blocks: vlm.runsOf(prefix) },
    deep: deepInputs(decoder, b, l),
  });
  const flat = reshape(textInPlace(x, prefix), [mulDim(b, l), d]);
  const frozen = new Weights();
  const ce = crossEntropy(decoder.head(gather(flat, input('rows', ['r'], 'int64')), frozen), input('labels', ['r'], 'int64'));
  const terms = reshape(matmul(input('parts', [3, 'r']), reshape(ce, ['r', 1])), [3]);
  const [rel, textGen, modalGen] = [0, 1, 2].map((i) => reshape(slice(terms, 0, i, i + 1), [])) as [Node, Node, Node];
  const after = decoder.head(gather(flat, input('locRows', ['k'], 'int64')), frozen);
  const loc = sum(mul(klDivergence(after, input('before', ['k', decoder.vocabulary])), input('locWeights', ['k'])));

  const pick = (from: Node, name: string): Node => gather(from, input(name, ['e'], 'int64'));
  const own = input('own', ['e', 1], 'int64');
  const at = (table: Node, index: Node): Node => reshape(takeLast(table, index), ['e']);
  const near = similarity(pick(asked.prompt, 'neighbour.input'), pick(stored.prompt, 'neighbour.edit'));
  const softRelative = mul(mean(logOf(at(softmax(near), own))), -1);
  const sure = sigmoid(near);
  const others = at(sure, input('othersOf', ['e', 1], 'int64'));
  const softAbsolute = mul(mean(add(logOf(at(sure, own)), logOf(sub(1, others)))), -1);
  const rows = (pair: 'neighbour' | 'prototype'): Node => {
    const mine = pick(asked.visual, `${pair}.input`);
    const sentinel = mul(sum(mul(mine, pick(asked.sentinel!, `${pair}.input`)), 1, true), similarityScale(shape));
    return softmax(concat([similarity(mine, pick(stored.visual, `${pair}.edit`)), sentinel], 1));
  };
  const hardNeighbour = mul(mean(logOf(at(rows('neighbour'), own))), -1);
  const prototypes = rows('prototype');
  const hardPrototype = mul(mean(logOf(slice(prototypes, 1, 'e', prototypes.dim(1)))), -1);
  const metrics = { rel, textGen, modalGen, loc, softRelative, softAbsolute, hardNeighbour, hardPrototype };
  return { loss: Object.values(metrics).reduce((a, c) => add(a, c)), metrics };
}

/** Feeds of the objective for a batch. */
export function liveEditFeeds(
  vlm: Vlm,
  prepared: readonly PreparedRecord[],
  draws: readonly RecordDraw[],
  rank: number,
  learnEnd = false,
): Record<string, Tensor> {
  const e = prepared.length;
  const all = groups.flatMap((_, g) => prepared.map(({ samples }) => samples[g]!));
  const { batch, feeds } = padStates(vlm, all);
  const acting = new Float32Array(all.length * e);
  const kinds = [0, 1, 1, 2] as const;
  all.forEach((_, row) => {
    const [g, i] = [Math.floor(row / e), row % e];
    acting.fill(1, row * e, row * e + draws[i]!.experts[kinds[g]!]);
    if (groups[g] !== 'modalLocality') acting[row * e + i] = 1;
  });
  const rows: number[] = [];
  const labels: number[] = [];
  const weightOf: { g: number; weight: number }[] = [];
  const locRows: number[] = [];
  const locWeights: number[] = [];
  all.forEach(({ sequence: { targetIds, promptEnd } }, row) => {
    const g = Math.floor(row / e);
    const isLocality = groups[g] === 'modalLocality';
    const ids = learnEnd && !isLocality ? [...targetIds, ...vlm.eosIds.slice(0, 1)] : targetIds;
    const weight = 1 / (e * ids.length);
    ids.forEach((label, i) => {
      const at = rowOf(batch, row, promptEnd + i);
      if (isLocality) {
        locRows.push(at);
        locWeights.push(weight);
      } else {
        rows.push(at);
        labels.push(label);
        weightOf.push({ g, weight });
      }
    });
  });
  const parts = new Float32Array(3 * rows.length);
  weightOf.forEach(({ g, weight }, i) => {
    parts[g * rows.length + i] = weight;
  });
  const n = vlm.decoder.vocabulary;
  const before = new Float32Array(locRows.length * n);
  let at = 0;
  for (const one of prepared) {
    before.set(one.before, at);
    at += one.before.length;
  }
  const places = (of: (draw: RecordDraw) => Group): Tensor =>
    i64(
      draws.map((draw, i) => groups.indexOf(of(draw)) * e + i),
      [e],
    );
  return {
    ...feeds,
    ...placeFeeds(batch),
    acting: f32(acting, [all.length, e]),
    ones: f32(new Float32Array(rank).fill(1), [1, 1, rank]),
    rows: i64(rows, [rows.length]),
    labels: i64(labels, [rows.length]),
    parts: f32(parts, [3, rows.length]),
    locRows: i64(locRows, [locRows.length]),
    before: f32(before, [locRows.length, n]),
    locWeights: f32(locWeights, [locRows.length]),
    own: i64(
      prepared.map((_, i) => i),
      [e, 1],
    ),
    othersOf: i64(
      prepared.map((_, i) => (i + e - 1) % e),
      [e, 1],
    ),
    'neighbour.input': places(({ neighbour }) => neighbour.input),
    'neighbour.edit': places(({ neighbour }) => neighbour.edit),
    'prototype.input': places(({ prototype }) => prototype.input),
    'prototype.edit': places(({ prototype }) => prototype.edit),
  };
}

function started(shape: LiveEditShape, random: Random, copies: boolean): Map<string, Tensor<'float32'>> {
  const initial = initialLiveEdit(shape, random);
  if (!copies) return initial;
  const value = initial.get('moegen_r.ca_lora.v_mlp.weight')!.data;
  for (let i = 0; i < value.length; i++) value[i] = i % (shape.hidden + 1) === 0 ? 1 : 0;
  initial.get('moegen_r.ca_lora.v_mlp.bias')!.data.fill(0);
  for (const [name, { data }] of initial)
    if (name.startsWith('edit_extractor.')) initial.get(name.replace('edit', 'inpt'))!.data.set(data);
  return initial;
}

const isMatrix = (name: string): boolean => name.endsWith('_mlp.weight');

export function trainLiveEdit(vlm: Vlm, records: readonly EditRecord[], options: TrainOptions): Promise<EditorWeights> {
  const config = liveEditConfig(vlm, options);
  const { width, heads, rank, keys, scale, layer } = config;
  const random = trainingRandom('live-edit', options);
  const shape: LiveEditShape = {
    ...{ hidden: vlm.decoder.hidden, width, heads, rank, keys, scale },
    sentinel: usualTokens(vlm.architecture),
  };
  if (vlm.memory !== undefined)
    checkTraining(vlm.name, vlm.memory, {
      layersAbove: vlm.decoder.layers - 1 - layer,
      records: config.batch,
      budget: vlm.memoryBudget,
    });
  const shares: Readonly<Record<CloserLocality, number>> = {
    sameImage: config.localitySameImage,
    sameQuestion: config.localitySameQuestion,
  };
  const closer = closerLocalities.filter((kind) => shares[kind] > 0);
  const together = preparationGroups('live-edit', options, {
    count: records.length,
    batch: config.batch,
    fits: stateBytes(vlm, records.length * (groups.length + closer.length)) <= config.budget,
  });
  const prepare = { layer, traced: [], draws: 1, sigma: 0, closer, budget: config.budget };
  const preparer = new Preparer(vlm, records, prepare, random, together);
  const drawLocality = (record: PreparedRecord, drawn: Random): PreparedRecord => {
    let at = drawn.uniform();
    for (const kind of closer) {
      at -= shares[kind];
      if (at < 0) return withLocality(record, kind);
    }
    return record;
  };
  return trainOnRecords<{ record: PreparedRecord; draw: RecordDraw }>(
    vlm,
    records,
    {
      editor: 'live-edit',
      config,
      settings: trainingSettings(config),
      ...liveEditObjective(vlm, layer, shape),
      initial: started(shape, random.fork('initial'), config.copyStart),
      rule: (name): OptimizerRule =>
        config.muonRate > 0 && isMatrix(name) ? { rule: 'muon', rate: config.muonRate / config.rate } : { rule: 'adam' },
      fixed: new Map(),
      samples: async (places, drawn) => {
        const prepared = await preparer.get(places);
        return prepared.map((record) => ({
          record: drawLocality(record, drawn),
          draw: drawRecord(drawn, places.length),
        }));
      },
      feeds: (part) =>
        liveEditFeeds(
          vlm,
          part.map(({ record }) => record),
          part.map(({ draw }) => draw),
          rank,
          config.learnEnd,
        ),
    },
    options,
  );
}
