/**
 * VEAD (VisEdit, Chen et al. 2025), the paper's editor: adapter.ts is the module (Eq. 14-16), objective.ts the losses (Eq. 17-24), train.ts the
 * training. An edit is the edit signal h̄ at the insert layer and the adapter that reads it; it acts on visual tokens only, so text-only inputs
 * pass untouched.
 */

import { insertLayer } from '../../attribution/insert-layer.ts';
import type { EditRecord } from '../../data/records.ts';
import { concat, f32, i64, input, type Node, slice, type Tensor } from '../../graph/index.ts';
import { decodeImage } from '../../image/decode.ts';
import { type AnsweringModel, answerTargets, generateAll, type RewriteRows, readInput } from '../../models/answer.ts';
import { chainRewrites } from '../../models/rewrite.ts';
import { sharedStates } from '../../models/shared-states.ts';
import type { Patch } from '../../models/sites.ts';
import type { BatchShape, Rewrite, Vlm } from '../../models/vlm.ts';
import { Weights } from '../../nn/weights.ts';
import {
  checkModel,
  type Edit,
  type Editor,
  type EditorWeights,
  type EditRequest,
  modelId,
  type TrainOptions,
} from '../editor.ts';
import { type AdapterParts, type AdapterShape, adapterShapeOf, adapterShapes, visualEditAdapter } from './adapter.ts';
import { paperLosses } from './objective.ts';
import { hiddenAt } from './prepare.ts';
import { trainVead, type VeadConfig } from './train.ts';

const id = 'vead';

/**
 * Layers that the paper inserts VEAD after, for the published sizes (Appendix A.4); and for the minis, which learned to read the picture again
 * after this layer (src/pretraining/stages.ts).
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
  const steps = options.steps ?? (mini ? 3000 : 200_000);
  const batch = options.batch ?? (mini ? 16 : 4);
  return {
    layer,
    traced: Array.isArray(s.traced) ? (s.traced as number[]) : tracedLayers(vlm, layer),
    width: number('width', mini ? 256 : 1024),
    heads: number('heads', 8),
    influenceWidth: number('influenceWidth', mini ? 256 : 1024),
    steps,
    batch,
    microBatch: Math.min(options.microBatch ?? batch, batch),
    rate: options.rate ?? (mini ? 3e-3 : 1e-4),
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

const WEIGHT = 'weight.';

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

/** One edit's part in a rewrite; several edits of one chain act one after the other, in their order. */
function adapterOf(editOf: Edit): {
  shape: AdapterShape;
  parts: AdapterParts;
  layer: number;
  weights: Map<string, Tensor<'float32'>>;
} {
  const weights = new Map(
    [...editOf.tensors].filter(([name]) => name.startsWith(WEIGHT)).map(([name, t]) => [name.slice(WEIGHT.length), t] as const),
  );
  const { layer, heads, influenceMapper, crossAttention } = editOf.settings;
  return {
    shape: adapterShapeOf(weights, heads as number),
    parts: { influenceMapper: influenceMapper !== false, crossAttention: crossAttention !== false },
    layer: layer as number,
    weights,
  };
}

/** The rewrite of one batch: row i under edits[i]. All edits share one adapter. */
export function veadRewrite(vlm: Vlm, edits: readonly Edit[], tag = ''): Rewrite {
  const { shape, parts, layer, weights } = adapterOf(edits[0]!);
  for (const e of edits)
    if (e.settings.layer !== layer)
      throw new Error(`edits of one batch share an insert layer; found ${layer} and ${e.settings.layer}`);
  const d = shape.hidden;
  const n = Math.max(...edits.map((e) => e.tensors.get('signal')!.shape[0]!));
  const b = edits.length;
  const signal = new Float32Array(b * n * d);
  const bias = new Float32Array(b * n);
  const ends: number[] = [];
  edits.forEach((e, i) => {
    const t = e.tensors.get('signal')!;
    signal.set(t.data, i * n * d);
    bias.fill(-1e9, i * n + t.shape[0]!, (i + 1) * n);
    ends.push(i * n + (e.settings.promptEnd as number));
  });
  const prefix = `vead${tag}.`;
  const start = vlm.visualStart;
  const v = vlm.architecture.visualTokens;
  const patch: Patch = (x: Node) => {
    const w = new Weights();
    // The adapter's weights are inputs of the run: one compiled program serves every trained adapter of this shape.
    for (const [name, dims] of adapterShapes(shape)) w.bind(name, input(`${prefix}${name}`, dims));
    const rows = x.dim(0);
    const length = `${prefix}n`.replace(/\W/g, '_');
    const given = {
      signal: input(`${prefix}signal`, [rows, length, d]),
      bias: input(`${prefix}bias`, [rows, length]),
      ends: input(`${prefix}ends`, [rows], 'int64'),
    };
    const { output } = visualEditAdapter(w, shape, slice(x, 1, start, start + v), given, parts);
    return concat([slice(x, 1, 0, start), output, slice(x, 1, start + v, x.dim(1))], 1);
  };
  return {
    key: `vead${tag}|${layer}|${JSON.stringify(shape)}|${JSON.stringify(parts)}`,
    patches: (image) => new Map(image ? [[`layers.${layer}.out`, patch]] : []),
    replace: new Map(),
    feeds: {
      [`${prefix}signal`]: f32(signal, [b, n, d]),
      [`${prefix}bias`]: f32(bias, [b, n]),
      [`${prefix}ends`]: i64(ends, [b]),
      ...Object.fromEntries([...weights].map(([name, t]) => [prefix + name, t])),
    },
  };
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

/** Rewrites that apply all edits to every row: each edit's adapter reads what the one before it wrote. */
function chainRows(vlm: Vlm, edits: readonly Edit[]): RewriteRows {
  const rewrite = (rows: readonly number[], batch: BatchShape): Rewrite | undefined =>
    batch.image
      ? chainRewrites(
          edits.map((e, i) =>
            veadRewrite(
              vlm,
              rows.map(() => e),
              `${i}`,
            ),
          ),
        )
      : undefined;
  return afterOneLayer(edits, rewrite, () => edits);
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
  edit,
  unchangedUpTo: (weights) => weights?.settings.layer as number | undefined,
  with: (vlm, edits) => rewritten(vlm, edits, rewriteRows(vlm, edits)),
  chain: (vlm, edits) => rewritten(vlm, edits, chainRows(vlm, edits)),
};
