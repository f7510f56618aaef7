/**
 * VEAD (VisEdit, Chen et al. 2025), the paper's editor: adapter.ts is the module (Eq. 14-16), objective.ts the losses (Eq. 17-24), train.ts the
 * training. An edit is the edit signal h̄ at the insert layer and the adapter that reads it; it acts on visual tokens only, so text-only inputs
 * pass untouched.
 */

import { insertLayer } from '../../attribution/insert-layer.ts';
import { f32, type Tensor } from '../../graph/index.ts';
import { decodeImage } from '../../input/image/decode.ts';
import type { EditRecord } from '../../input/records.ts';
import { type AnsweringModel, answerTargets, generateAll, type RewriteRows, readInput } from '../../models/answer.ts';
import { sharedStates } from '../../models/shared-states.ts';
import type { BatchShape, Rewrite, Vlm } from '../../models/vlm.ts';
import {
  checkModel,
  type Edit,
  type Editor,
  type EditorWeights,
  type EditRequest,
  modelId,
  type TrainOptions,
} from '../editor.ts';
import { chained } from './chain.ts';
import { paperLosses } from './objective.ts';
import { hiddenAt } from './prepare.ts';
import { veadRewrite, WEIGHT } from './rewrite.ts';
import { trainVead, type VeadConfig, veadSettings } from './train.ts';

export { veadRewrite };

const id = 'vead';

/**
 * Layers that the paper inserts VEAD after, for the published sizes (Appendix A.4); and for the minis, which learned to read the picture again
 * after this layer (lab/pretraining/stages.ts).
 */
const publishedLayers: Readonly<Record<string, number>> = {
  ...{ 'llava/32': 18, 'blip2-opt/32': 19, 'minigpt4/32': 17 },
  ...{ 'llava/7': 2, 'blip2-opt/7': 2, 'minigpt4/7': 2 },
};

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

export function veadConfig(vlm: Vlm, options: Partial<TrainOptions> = {}): VeadConfig {
  const s = options.settings ?? {};
  const layer = options.layer ?? suggestedLayer(vlm);
  const { layers, hidden } = vlm.decoder;
  if (!Number.isInteger(layer) || layer < 0 || layer >= layers - 1) {
    throw new Error(`insert layer ${layer} is out of range: a layer must come after it, so this model takes 0 to ${layers - 2}`);
  }
  const number = (name: string, otherwise: number): number => (typeof s[name] === 'number' ? (s[name] as number) : otherwise);
  const on = (name: string): boolean => s[name] !== false;
  const mini = hidden < 512;
  const steps = options.steps ?? (mini ? 1500 : 200_000);
  const batch = options.batch ?? (mini ? 16 : 4);
  const rate = options.rate ?? (mini ? 3e-3 : 1e-4);
  return {
    layer,
    traced: Array.isArray(s.traced) ? (s.traced as number[]) : tracedLayers(vlm, layer),
    width: number('width', mini ? 256 : 1024),
    heads: number('heads', 8),
    influenceWidth: number('influenceWidth', mini ? 256 : 1024),
    steps,
    batch,
    microBatch: Math.min(options.microBatch ?? batch, batch),
    rate,
    // 0.005 at the default rate; --lr moves both.
    muonRate: number('muonRate', mini ? rate * (5 / 3) : 0),
    hold: number('hold', mini ? 0.5 : 1),
    lastRate: number('lastRate', mini ? 0.02 : 1),
    clip: typeof s.clip === 'number' ? s.clip : mini ? 1 : undefined,
    sampled: Math.min(number('sampled', 24), vlm.architecture.visualTokens),
    draws: number('draws', 1),
    sigma: number('sigma', 0.7),
    losses: {
      ...paperLosses,
      loc: number('weightLocality', mini ? 1.5 : paperLosses.loc),
      up: on('lossUp') ? number('lambda', 0.1) : 0,
      down: on('lossDown') ? number('lambda', 0.1) : 0,
      attribution: on('lossAttribution') ? number('lambda', 0.1) : 0,
      others: on('lossDown') ? number('weightOthers', mini ? 0.3 : 0) : 0,
    },
    parts: { influenceMapper: on('influenceMapper'), crossAttention: on('crossAttention') },
    hint: {
      bias: number('hintBias', mini ? -10 : 0),
      until: number('hintUntil', Math.round(steps / 30)),
      end: number('hintEnd', Math.round((2 * steps) / 15)),
    },
    valueCopy: s.valueCopy === undefined ? mini : s.valueCopy === true,
    locality: {
      sameImage: number('localitySameImage', mini ? 0.1 : 0),
      sameQuestion: number('localitySameQuestion', mini ? 0.12 : 0),
    },
    budget: number('budget', 2e9),
  };
}

/** Without a layer, and for a size the paper does not name: from the module contributions over some records. */
async function withLayers(vlm: Vlm, records: readonly EditRecord[], options: TrainOptions): Promise<TrainOptions> {
  if (options.layer !== undefined || publishedLayer(vlm) !== undefined) return options;
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
  const sequences = requests.map((r) => vlm.layout(r.prompt, true, r.target));
  const images = requests.map((r) => r.image);
  const hidden =
    (await sharedStates(vlm, layer)?.hidden({ ...vlm.batchShape(sequences), images })) ??
    (await hiddenAt(vlm, await vlm.batch(sequences, images), layer));
  return sequences.map((s, n) => ({ signal: hidden[n]!, length: s.ids.length, promptEnd: s.promptEnd }));
}

async function edit(vlm: Vlm, requests: readonly EditRequest[], weights?: EditorWeights): Promise<Edit[]> {
  if (weights === undefined) throw new Error('vead needs trained weights: `visedit train vead` makes them');
  if (weights.editor !== id) throw new Error(`these weights belong to the editor ${weights.editor}, not to vead`);
  checkModel('these VEAD weights', weights.model, vlm);
  const layer = weights.settings.layer as number;
  const model = modelId(vlm);
  return (await signals(vlm, requests, layer)).map(({ signal, length, promptEnd }, n) => ({
    editor: id,
    model,
    request: { prompt: requests[n]!.prompt, target: requests[n]!.target },
    settings: { ...weights.settings, promptEnd },
    tensors: new Map([
      ['signal', f32(signal, [length, vlm.decoder.hidden])],
      ...[...weights.tensors].map(([name, t]): [string, Tensor<'float32'>] => [WEIGHT + name, t]),
    ]),
  }));
}

/** Rewrites for the rows of a list of queries. */
function rewriteRows(vlm: Vlm, edits: readonly Edit[]): RewriteRows {
  const editOf = (row: number): Edit => (edits.length === 1 ? edits[0]! : edits[row]!);
  const rewrite = (rows: readonly number[], batch: BatchShape): Rewrite | undefined =>
    batch.image ? veadRewrite(vlm, rows.map(editOf)) : undefined;
  return afterOneLayer(edits, rewrite, editOf);
}

/** Says of a rewrite that it acts after one layer only, where that is so. */
function afterOneLayer(edits: readonly Edit[], rewrite: RewriteRows, editOf: (row: number) => unknown): RewriteRows {
  const layers = new Set(edits.map((e) => e.settings.layer as number));
  return layers.size === 1 ? Object.assign(rewrite, { afterLayer: { layer: [...layers][0]!, editOf } }) : rewrite;
}

function checkEdits(vlm: Vlm, edits: readonly Edit[]): void {
  if (edits.length === 0) throw new Error('give at least one edit');
  for (const e of edits) {
    if (e.editor !== id) throw new Error(`this edit belongs to the editor ${e.editor}`);
    checkModel('this edit', e.model, vlm);
  }
}

function rewritten(vlm: Vlm, edits: readonly Edit[], rewrite: RewriteRows): AnsweringModel {
  checkEdits(vlm, edits);
  return {
    answerTargets: (queries) => answerTargets(vlm, queries, rewrite),
    generate: (queries, options) => generateAll(vlm, queries, options, rewrite),
    read: (input) => readInput(vlm, input, rewrite),
  };
}

export const vead: Editor = {
  id,
  summary: 'visual edit adapter: infuses the edit into the visual tokens that matter (the paper)',
  trained: true,
  promises: { textUntouched: true, batchEqualsSingles: true },
  train: async (vlm, records, options) =>
    trainVead(vlm, records, veadConfig(vlm, await withLayers(vlm, records, options)), options),
  trainingSettings: (vlm, options) => {
    const settings = veadSettings(veadConfig(vlm, options));
    // Where nothing says which layers, the records do.
    const open = options.layer === undefined && publishedLayer(vlm) === undefined;
    return open
      ? Object.fromEntries(Object.entries(settings).filter(([name]) => name !== 'layer' && name !== 'traced'))
      : settings;
  },
  edit,
  unchangedUpTo: (weights) => weights?.settings.layer as number | undefined,
  with: (vlm, edits) => rewritten(vlm, edits, rewriteRows(vlm, edits)),
  chain: (vlm, edits) => {
    checkEdits(vlm, edits);
    return chained(vlm, edits);
  },
};
