/**
 * VEAD (VisEdit, Chen et al. 2025), the paper's editor: adapter.ts is the module (Eq. 14-16), objective.ts the losses (Eq. 17-24), train.ts the
 * training. An edit is the edit signal h̄ at the insert layer and the adapter that reads it; it acts on visual tokens only, so text-only inputs
 * pass untouched.
 */

import { z } from 'zod';
import { insertLayer } from '../../attribution/insert-layer.ts';
import { f32 } from '../../graph/index.ts';
import { decodeImage } from '../../input/image/decode.ts';
import type { EditRecord } from '../../input/records.ts';
import { type AnsweringModel, answerTargets, generateAll, type RewriteRows, readInput } from '../../models/answer.ts';
import { usualTokens } from '../../models/architecture.ts';
import { type BatchShape, batchShape } from '../../models/batch.ts';
import type { Rewrite } from '../../models/rewrite.ts';
import { sharedStates } from '../../models/shared-states.ts';
import type { Vlm } from '../../models/vlm.ts';
import { shared } from '../context/memory.ts';
import {
  checkEdits,
  type Edit,
  type Editor,
  type EditorWeights,
  type EditRequest,
  modelId,
  needWeights,
  type Settings,
  type TrainOptions,
  wordsOf,
} from '../editor.ts';
import type { Forms } from '../forms.ts';
import { routedModel } from '../routing/answering.ts';
import {
  fitRouting,
  keysOfRequests,
  keyTensors,
  Routed,
  routingFields,
  routingOf,
  routingParts,
  routingTensors,
} from '../routing/routing.ts';
import {
  clipping,
  flag,
  headsDivide,
  inFile,
  layerOf,
  layersOf,
  microBatch,
  noSettings,
  real,
  recordTraining,
  size,
  trainingConfig,
  whole,
  withMicroBatch,
} from '../settings.ts';
import { adapterShapeOf, adapterShapes } from './adapter.ts';
import { chained } from './chain.ts';
import { paperLosses } from './objective.ts';
import { hiddenAt } from './prepare.ts';
import { adapterOf, veadRewrite } from './rewrite.ts';
import { trainVead, type VeadConfig, veadSettings } from './train.ts';

export { veadRewrite };

const id = 'vead';

/** Layers that the paper inserts VEAD after, for the published sizes (Appendix A.4). */
const publishedLayers: Readonly<Record<string, number>> = { 'llava/32': 18, 'blip2-opt/32': 19, 'minigpt4/32': 17 };

const publishedLayer = ({ architecture: { name, decoder } }: Vlm): number | undefined =>
  publishedLayers[`${name}/${decoder.layers}`];

/** The paper's layer, or for other sizes one at the paper's share of the depth; training chooses by attribution instead. */
export function suggestedLayer(vlm: Vlm): number {
  const { decoder } = vlm;
  return publishedLayer(vlm) ?? Math.max(0, Math.min(decoder.layers - 2, Math.round(0.58 * decoder.layers) - 1));
}

/** The layers after l_e up to the last but one. */
export function tracedLayers(vlm: Vlm, layer: number): number[] {
  const { layers } = vlm.decoder;
  const all = Array.from({ length: layers }, (_, i) => i).filter((i) => i > layer && i < layers - 1);
  return all.length > 0 ? all : layer + 1 < layers ? [layer + 1] : [];
}

const fields = (vlm: Vlm) => ({
  layer: layerOf(vlm, 'l_e, the decoder layer whose output is adapted, from 0', {
    last: vlm.decoder.layers - 2,
    option: '--layer',
    fits: `a layer must come after it, and ${vlm.name} has ${vlm.decoder.layers}`,
  }).default(suggestedLayer(vlm)),
  traced: layersOf(
    vlm,
    'layers L_h whose attribution the mapper learns; by default those after l_e up to the last but one',
  ).optional(),
  width: size('m, the width of the adapter').default(1024),
  heads: size('attention heads').default(8),
  influenceWidth: size("width of the influence mapper's perceptrons").default(1024),
  ...recordTraining({ steps: 200_000, batch: 4, rate: 1e-4, hold: 1, lastRate: 1, budget: 2e9 }),
  microBatch: microBatch(),
  clip: clipping(1).unwrap().nullable().default(null),
  muonRate: real('beyond the paper: matrices learn by Muon at this rate; 0: by Adam').default(0),
  sampled: size('visual positions drawn per step, |N_s|').default(24),
  draws: size('noise draws of the attribution target').default(1),
  sigma: real('standard deviation of that noise').default(0.7),
  influenceMapper: flag('false: the gate is 1 everywhere').default(true),
  crossAttention: flag('false: no edit signal reaches the visual tokens').default(true),
  lambda: real('λ, the weight of the three mapper losses').default(0.1),
  lossUp: flag('false: without ℓ_im↑').default(true),
  lossDown: flag('false: without ℓ_im↓').default(true),
  lossAttribution: flag('false: without ℓ_ima').default(true),
  weightLocality: real('weight of ℓ_loc').default(1),
  weightOthers: real("beyond the paper: weight of ℓ_im↓ over the pictures of the batch's other edits").default(0),
  hintBias: real('beyond the paper: bias of the attention to all but the target; 0: none', {}).default(0),
  hintUntil: whole('last step with the whole bias; a thirtieth of the steps by default').optional(),
  hintEnd: whole('step at which the bias is gone; two fifteenths of the steps by default').optional(),
  valueCopy: flag('beyond the paper: the value path starts as a copy').default(false),
  localitySameImage: share('beyond the paper: share of draws with another question about the same picture'),
  localitySameQuestion: share('beyond the paper: share of draws with the same question about another picture'),
  routing: whole('training records that the routing of stored edits is fitted to; 0: edits act one after the other').default(
    1000,
  ),
  routingLayer: routingFields(vlm).routingLayer,
});

const share = (meaning: string) => real(meaning, { min: 0, max: 1 }).default(0);

const schema = (vlm: Vlm) => z.object(fields(vlm)).superRefine(headsDivide);

export function veadConfig(vlm: Vlm, options: Partial<TrainOptions> = {}): VeadConfig {
  const s = withMicroBatch(trainingConfig(id, schema(vlm), options));
  return {
    layer: s.layer,
    traced: s.traced ?? tracedLayers(vlm, s.layer),
    width: s.width,
    heads: s.heads,
    influenceWidth: s.influenceWidth,
    steps: s.steps,
    batch: s.batch,
    microBatch: s.microBatch,
    rate: s.rate,
    muonRate: s.muonRate,
    hold: s.hold,
    lastRate: s.lastRate,
    clip: s.clip,
    startWeights: s.startWeights,
    sampled: Math.min(s.sampled, usualTokens(vlm.architecture)),
    draws: s.draws,
    sigma: s.sigma,
    losses: {
      ...paperLosses,
      loc: s.weightLocality,
      up: s.lossUp ? s.lambda : 0,
      down: s.lossDown ? s.lambda : 0,
      attribution: s.lossAttribution ? s.lambda : 0,
      others: s.lossDown ? s.weightOthers : 0,
    },
    parts: { influenceMapper: s.influenceMapper, crossAttention: s.crossAttention },
    hint: {
      // Weights that were trained attend to what they should.
      bias: s.startWeights === undefined ? s.hintBias : 0,
      until: s.hintUntil ?? Math.round(s.steps / 30),
      end: s.hintEnd ?? Math.round((2 * s.steps) / 15),
    },
    valueCopy: s.valueCopy,
    locality: { sameImage: s.localitySameImage, sameQuestion: s.localitySameQuestion },
    budget: s.budget,
  };
}

const isLayerKnown = (vlm: Vlm, { layer, settings }: Partial<TrainOptions>): boolean =>
  layer !== undefined || settings?.layer !== undefined || publishedLayer(vlm) !== undefined;

/** Without a layer, and for a size the paper does not name: from the module contributions over some records. */
async function withLayers(vlm: Vlm, records: readonly EditRecord[], options: TrainOptions): Promise<TrainOptions> {
  if (isLayerKnown(vlm, options)) return options;
  const inputs = records.slice(0, 64).map(({ request: { prompt, image } }) => ({ prompt, image: () => decodeImage(image) }));
  const { layer, traced } = await insertLayer(vlm, inputs);
  return { ...options, layer, settings: { traced, ...options.settings } };
}

/** The edit signal of requests: h̄ cut to its length, and the last prompt position. */
async function signals(
  vlm: Vlm,
  requests: readonly EditRequest[],
  layer: number,
): Promise<{ signal: Float32Array; length: number; promptEnd: number }[]> {
  const sequences = requests.map((r) => vlm.layout(r, r.target));
  if (sequences.some(({ pictures }) => pictures.length === 0))
    throw new Error(`${id} edits answers about a picture; a request has none`);
  const hidden =
    (await sharedStates(vlm, layer)?.hidden(batchShape(sequences))) ?? (await hiddenAt(vlm, await vlm.batch(sequences), layer));
  return sequences.map((s, n) => ({ signal: hidden[n]!, length: s.ids.length, promptEnd: s.promptEnd }));
}

async function edit(vlm: Vlm, requests: readonly EditRequest[], given?: EditorWeights, chosen?: Settings): Promise<Edit[]> {
  noSettings(id, chosen);
  const weights = needWeights(id, vlm, given, forms.weights);
  const made = await signals(vlm, requests, weights.settings.layer as number);
  const routing = routingOf(weights);
  const keys = routing === undefined ? [] : await keysOfRequests(vlm, requests, routing);
  return made.map(({ signal, length, promptEnd }, n) => ({
    editor: id,
    model: modelId(vlm),
    request: wordsOf(requests[n]!),
    settings: { promptEnd },
    tensors: new Map([['signal', f32(signal, [length, vlm.decoder.hidden])], ...(keys[n] === undefined ? [] : [keys[n]])]),
    weights,
  }));
}

const forms: Forms = {
  throughWeights: true,
  edit: {
    settings: () => inFile({ promptEnd: whole("the prompt's last position in the signal") }, ['promptEnd']),
    tensors: (vlm, made) => [['signal', ['positions', vlm.decoder.hidden]], ...keyTensors(vlm, made)],
    problem: (_, { settings, tensors }) => {
      const last = tensors.get('signal')!.shape[0]! - 1;
      return (settings.promptEnd as number) <= last
        ? undefined
        : `the setting promptEnd must be a whole number from 0 to ${last}, the last position of the signal, got ${settings.promptEnd}`;
    },
  },
  weights: {
    settings: (vlm) => inFile({ ...fields(vlm), ...routingFields(vlm) }, ['layer', 'heads']),
    tensors: (vlm, made) => [
      ...adapterShapes<number | string>({ hidden: vlm.decoder.hidden, width: 'm', influenceWidth: 'mapper width' }),
      ...routingTensors(vlm, made),
    ],
    problem: (_, { settings, tensors }) => {
      const { width } = adapterShapeOf(tensors);
      const heads = settings.heads as number;
      return width % heads === 0 ? undefined : `the setting heads must divide the adapter's width ${width}, got ${heads}`;
    },
  },
};

/**
 * Rewrites for the rows of a list of queries.
 * @param known what states under an edit are kept by: the edit itself, for all models that it is in
 */
function rewriteRows(edits: readonly Edit[], known: (edit: Edit) => unknown = (edit) => edit): RewriteRows {
  const editOf = (row: number): Edit => (edits.length === 1 ? edits[0]! : edits[row]!);
  const rewrite = (rows: readonly number[], batch: BatchShape): Rewrite | undefined =>
    batch.image ? veadRewrite(rows.map(editOf)) : undefined;
  const { layer } = adapterOf(edits[0]!);
  return Object.assign(rewrite, { afterLayer: { layer, editOf: (row: number) => known(editOf(row)) } });
}

function rewritten(vlm: Vlm, edits: readonly Edit[]): AnsweringModel {
  checkEdits(id, vlm, edits, forms);
  const rewrite = rewriteRows(edits);
  return {
    answerTargets: (queries) => answerTargets(vlm, queries, rewrite),
    generate: (queries, options) => generateAll(vlm, queries, options, rewrite),
    read: (input) => readInput(vlm, input, rewrite),
  };
}

/** Stored edits: each query is answered under the one that it is about, or by the unedited model. */
function routed(vlm: Vlm, edits: readonly Edit[]): AnsweringModel {
  const stored = new Routed(vlm, edits[0]!.weights!, shared(edits));
  // States of its own: what is asked together decides their last bits, and that is routing's doing here.
  const names = new Map(edits.map((edit) => [edit, {}]));
  return routedModel<Edit>(
    vlm,
    (queries) => stored.routes(queries),
    (routes) => rewriteRows(routes, (edit) => names.get(edit)),
  );
}

export const vead: Editor = {
  id,
  summary: 'visual edit adapter: infuses the edit into the visual tokens that matter (the paper)',
  trained: true,
  promises: { textUntouched: true, batchEqualsSingles: true },
  settings: { train: schema },
  forms,
  layersTrained: (vlm) => vlm.decoder.layers - 1 - suggestedLayer(vlm),
  train: async (vlm, records, options) => {
    const config = veadConfig(vlm, await withLayers(vlm, records, options));
    const { routing, routingLayer } = trainingConfig(id, schema(vlm), options);
    const fitted = routing === 0 ? undefined : await fitRouting(vlm, records.slice(0, routing), routingLayer);
    return trainVead(vlm, records, config, options, fitted && routingParts(fitted));
  },
  trainingSettings: (vlm, options) => {
    const settings = veadSettings(veadConfig(vlm, options));
    // Where nothing says which layers, the records do.
    return isLayerKnown(vlm, options)
      ? settings
      : Object.fromEntries(Object.entries(settings).filter(([name]) => name !== 'layer' && name !== 'traced'));
  },
  edit,
  unchangedUpTo: (weights) => weights?.settings.layer as number | undefined,
  with: rewritten,
  chain: (vlm, edits) => {
    checkEdits(id, vlm, edits, forms);
    if (edits.length === 1) return rewritten(vlm, edits);
    return routingOf(edits[0]!.weights!) === undefined ? chained(vlm, edits) : routed(vlm, edits);
  },
};
