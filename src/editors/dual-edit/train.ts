/**
 * Training DualEdit: VEAD's losses without those of its influence mapper, through both adapters, without the gate:
 *   ℓ = ℓ_rel + ℓ_gen(text) + ℓ_gen(picture) + KL(before ‖ after) on the image locality
 * over the frozen states at the text adapter's layer; each sample's words end at its own prompt's end.
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
  matmul,
  mul,
  mulDim,
  type Node,
  reshape,
  slice,
  sum,
} from '../../graph/index.ts';
import type { EditRecord } from '../../input/records.ts';
import { columnOf, paddingOf, rowOf, rowsOf, spanFeeds } from '../../models/batch.ts';
import { deepInputs } from '../../models/deep.ts';
import { placeInputs, splitStates, textInPlace, walkSplit } from '../../models/forward.ts';
import { checkTraining } from '../../models/memory.ts';
import { prefixOf } from '../../models/sequence.ts';
import { Sites } from '../../models/sites.ts';
import { readVisual, spanInputs, writeVisual } from '../../models/spans.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { OptimizerRule } from '../../nn/optimizers.ts';
import { Weights } from '../../nn/weights.ts';
import { padStates, type Sample, stateBytes } from '../context/states.ts';
import { preparationGroups, trainingRandom, trainingSettings, trainOnRecords } from '../context/training.ts';
import type { EditorWeights, TrainOptions } from '../editor.ts';
import { asRows, picturesOnce } from '../gradients/meta-objective.ts';
import { fitRouting, routingFields, routingParts } from '../routing/routing.ts';
import {
  clipping,
  flag,
  headsDivide,
  layerOf,
  microBatch,
  real,
  recordTraining,
  size,
  trainingConfig,
  whole,
  withMicroBatch,
} from '../settings.ts';
import { groups } from '../vead/objective.ts';
import { type PreparedRecord, Preparer } from '../vead/prepare.ts';
import { changeBy, type DualShape, initialDual } from './adapters.ts';

/** The layers of the published models, 16 and 19 of 32, at their share of the depth. */
function suggestedLayers({ decoder: { layers } }: Vlm): { text: number; vision: number } {
  const vision = Math.max(1, Math.min(layers - 2, Math.round((20 / 32) * layers) - 1));
  return { text: Math.min(vision - 1, Math.max(0, Math.round((17 / 32) * layers) - 1)), vision };
}

const fields = (vlm: Vlm) => ({
  textLayer: layerOf(vlm, 'the decoder layer after which the text adapter stands, from 0', {
    last: vlm.decoder.layers - 2,
  }).default(suggestedLayers(vlm).text),
  visionLayer: layerOf(vlm, 'the same of the visual adapter, above it', {
    last: vlm.decoder.layers - 2,
    option: '--layer',
  }).default(suggestedLayers(vlm).vision),
  width: size('m, the width of the adapters').default(1024),
  heads: size('attention heads').default(8),
  threshold: real("cosine at the prompt's end from which an edit acts", { min: -1, max: 1 }).default(0.8),
  ...recordTraining({ steps: 200_000, batch: 4, rate: 1e-4, hold: 1, lastRate: 1, budget: 2e9 }),
  microBatch: microBatch(),
  clip: clipping(1).unwrap().nullable().default(null),
  muonRate: real('beyond the paper: matrices learn by Muon at this rate; 0: by Adam').default(0),
  valueCopy: flag('beyond the paper: the value paths start as copies').default(false),
  routing: whole(
    "beyond the paper: training records that a routing is fitted to, which takes the gate's place; 0: the gate",
  ).default(0),
  routingLayer: routingFields(vlm).routingLayer,
});

export const dualSchema = (vlm: Vlm) =>
  z
    .object(fields(vlm))
    .superRefine(headsDivide)
    .superRefine(({ textLayer, visionLayer }, context) => {
      if (textLayer >= visionLayer)
        context.addIssue({ code: 'custom', path: ['visionLayer'], message: `must be above textLayer, which is ${textLayer}` });
    });

export const dualConfig = (vlm: Vlm, options: Partial<TrainOptions> = {}) =>
  withMicroBatch(trainingConfig('dual-edit', dualSchema(vlm), options));

/** A record's states at the text adapter's layer, and its edit signal at the visual adapter's. */
export interface DualRecord extends PreparedRecord {
  readonly visionSignal: Float32Array;
}

/** The edit signals of prepared records at the visual adapter's layer. */
export async function withSignals(
  vlm: Vlm,
  prepared: readonly PreparedRecord[],
  layers: { textLayer: number; visionLayer: number },
): Promise<DualRecord[]> {
  const { batch, feeds } = padStates(
    vlm,
    prepared.map(({ samples: [edit] }) => edit!),
  );
  const site = `layers.${layers.visionLayer}.out`;
  const plan = { from: layers.textLayer + 1, to: layers.visionLayer + 1, read: [site] };
  const out = (await vlm.run(plan, { ...batch, feeds }))[site]!.data as Float32Array;
  return prepared.map((one, n) => ({ ...one, visionSignal: rowsOf(batch, n, out, vlm.decoder.hidden) }));
}

/**
 * Inputs: hidden [4e, l, d] in the order of `groups`, positions, bias; words [4e, l, 1], where the text adapter acts; those of `spanInputs` over 3e rows;
 * signal.text, signal.vision [e, n, d] and signal.bias [e, n]; rows, labels [r] and parts [3, r]; locRows [k], before [k, n], locWeights [k].
 */
export function dualObjective(
  vlm: Vlm,
  { textLayer, visionLayer }: { textLayer: number; visionLayer: number },
  shape: DualShape,
): { loss: Node; metrics: Record<string, Node> } {
  const { decoder, usualPrefix: prefix } = vlm;
  const d = decoder.hidden;
  const w = new Weights();
  const b = mulDim(groups.length, 'e');
  const { length: l, positions, bias } = placeInputs(decoder, prefix, b);
  const hidden = splitStates(input('hidden', [b, l, d]), prefix);
  const signalOf = (side: 'text' | 'vision') => ({
    signal: input(`signal.${side}`, ['e', 'n', d]),
    bias: input('signal.bias', ['e', 'n']),
  });
  const acts = slice(input('words', [b, l, 1]), 1, prefix, l);
  const each =
    (times: number) =>
    (x: Node): Node =>
      concat(
        Array.from({ length: times }, () => x),
        0,
      );
  const text = add(hidden.text, mul(changeBy('text', w, shape, hidden.text, signalOf('text'), each(groups.length)), acts));
  const context = {
    ...{ weights: new Weights(), positions, bias, length: prefix, deep: deepInputs(decoder, b, l) },
    ...{ blocks: vlm.runsOf(prefix), spread: asRows, chosen: picturesOnce },
  };
  // Request and rephrased prompt are about one picture, which comes before the words: its part is computed once for both.
  const between = walkSplit(
    decoder,
    textLayer + 1,
    visionLayer + 1,
    { prefix: picturesOnce(hidden.prefix), text },
    { ...context, sites: new Sites() },
  );
  const spans = spanInputs(mulDim(groups.length - 1, 'e'), prefix);
  const visual = readVisual(between.prefix, spans);
  const seen = add(visual, changeBy('vision', w, shape, visual, signalOf('vision'), each(groups.length - 1)));
  const x = walkSplit(
    decoder,
    visionLayer + 1,
    decoder.layers,
    { prefix: writeVisual(between.prefix, seen, spans), text: between.text },
    { ...context, sites: new Sites() },
  );
  const flat = reshape(textInPlace(x, prefix), [mulDim(b, l), d]);
  const head = (rows: string, size: string): Node => decoder.head(gather(flat, input(rows, [size], 'int64')), context.weights);
  const ce = crossEntropy(head('rows', 'r'), input('labels', ['r'], 'int64'));
  const terms = reshape(matmul(input('parts', [3, 'r']), reshape(ce, ['r', 1])), [3]);
  const [rel, textGen, modalGen] = [0, 1, 2].map((i) => reshape(slice(terms, 0, i, i + 1), [])) as [Node, Node, Node];
  const kl = klDivergence(input('before', ['k', decoder.vocabulary]), head('locRows', 'k'));
  const metrics = { rel, textGen, modalGen, loc: sum(mul(kl, input('locWeights', ['k']))) };
  return { loss: Object.values(metrics).reduce((a, c) => add(a, c)), metrics };
}

/** Feeds of the objective for a part of a batch: every token weighs as it does in the whole. */
export function dualFeeds(
  vlm: Vlm,
  records: readonly DualRecord[],
  whole: readonly DualRecord[] = records,
): Record<string, Tensor> {
  const e = records.length;
  const d = vlm.decoder.hidden;
  const all = groups.flatMap((_, g) => records.map(({ samples }) => samples[g]!));
  const { batch, feeds } = padStates(vlm, all);
  const words = new Float32Array(all.length * batch.length);
  all.forEach(({ sequence }, row) => {
    for (let position = prefixOf(sequence); position < sequence.promptEnd; position++)
      words[row * batch.length + columnOf(batch, row, position)] = 1;
  });
  const edits = records.map(({ samples }) => samples[0]!);
  const signal = padStates(vlm, edits);
  const n = signal.batch.length;
  const vision = padStates(
    vlm,
    records.map(({ visionSignal }, i): Sample => ({ ...edits[i]!, hidden: visionSignal })),
  );
  const left = new Float32Array(e * n);
  edits.forEach((_, i) => {
    for (const [start, end] of paddingOf(signal.batch, i)) left.fill(-1e9, i * n + start, i * n + end);
  });
  const tokens = (g: number): number => whole.reduce((total, { samples }) => total + samples[g]!.sequence.targetIds.length, 0);
  const answers = all.flatMap(({ sequence: { targetIds, promptEnd } }, row) =>
    targetIds.map((label, i) => ({ g: Math.floor(row / e), at: rowOf(batch, row, promptEnd + i), label })),
  );
  const learned = answers.filter(({ g }) => g < 3);
  const kept = answers.filter(({ g }) => g === 3);
  const parts = new Float32Array(3 * learned.length);
  learned.forEach(({ g }, i) => {
    parts[g * learned.length + i] = 1 / tokens(g);
  });
  const vocabulary = vlm.decoder.vocabulary;
  const before = new Float32Array(kept.length * vocabulary);
  let at = 0;
  for (const one of records) {
    before.set(one.before, at);
    at += one.before.length;
  }
  const ints = (values: readonly number[]): Tensor => i64(values, [values.length]);
  return {
    ...feeds,
    words: f32(words, [all.length, batch.length, 1]),
    ...spanFeeds(
      [0, 2, 3].flatMap((g) => records.map(({ samples }) => samples[g]!.sequence)),
      batch.prefix,
    ),
    'signal.text': { ...signal.feeds.hidden!, shape: [e, n, d] },
    'signal.vision': { ...vision.feeds.hidden!, shape: [e, n, d] },
    'signal.bias': f32(left, [e, n]),
    rows: ints(learned.map((one) => one.at)),
    labels: ints(learned.map(({ label }) => label)),
    parts: f32(parts, [3, learned.length]),
    locRows: ints(kept.map((one) => one.at)),
    before: f32(before, [kept.length, vocabulary]),
    locWeights: f32(new Float32Array(kept.length).fill(1 / tokens(3)), [kept.length]),
  };
}

const isMatrix = (name: string): boolean => name.endsWith('.weight') && !/\.ln_/.test(name);

export async function trainDual(vlm: Vlm, records: readonly EditRecord[], options: TrainOptions): Promise<EditorWeights> {
  const config = dualConfig(vlm, options);
  const random = trainingRandom('dual-edit', options);
  const shape: DualShape = { hidden: vlm.decoder.hidden, width: config.width, heads: config.heads };
  if (vlm.memory !== undefined)
    checkTraining(vlm.name, vlm.memory, {
      layersAbove: vlm.decoder.layers - 1 - config.textLayer,
      records: config.microBatch,
      budget: vlm.memoryBudget,
    });
  const together = preparationGroups('dual-edit', options, {
    count: records.length,
    batch: config.batch,
    fits: stateBytes(vlm, records.length * groups.length) <= config.budget,
  });
  const prepare = { layer: config.textLayer, traced: [], draws: 1, sigma: 0, budget: config.budget };
  const preparer = new Preparer(vlm, records, prepare, random, together);
  const fitted =
    config.routing === 0 ? undefined : routingParts(await fitRouting(vlm, records.slice(0, config.routing), config.routingLayer));
  return trainOnRecords<DualRecord>(
    vlm,
    records,
    {
      editor: 'dual-edit',
      config,
      settings: { ...trainingSettings(config), ...fitted?.settings },
      ...dualObjective(vlm, config, shape),
      initial: initialDual(shape, random.fork('initial'), config.valueCopy),
      rule: (name): OptimizerRule =>
        config.muonRate > 0 && isMatrix(name) ? { rule: 'muon', rate: config.muonRate / config.rate } : { rule: 'adam' },
      fixed: new Map(fitted?.tensors),
      samples: async (places) => withSignals(vlm, await preparer.get(places), config),
      feeds: (part, whole) => dualFeeds(vlm, part, whole),
    },
    options,
  );
}
