/**
 * LiveEdit (Chen et al. 2025, CVPR), by the authors of VisEdit: edits that last. Every edit is stored as an expert of r neurons at the output of one
 * decoder layer and two keys; no edit sees another one. For a query
 *   hard routing: keeps the edits whose visual key is closer to the query's than a learned sentinel is;
 *   soft routing: w_e = softmax_e(s) σ(s_e) over the kept, s_e the similarity of the prompts' keys;
 *   h' = h + Σ_e w_e relu(LN(h) U_e') V_e at every position, the generated ones included.
 * Routing reads the picture and the prompt alone, once. modules.ts holds the modules, train.ts the training.
 */

import { z } from 'zod';
import { f32 } from '../../graph/dtype.ts';
import { add, input, mul, type Node, sum, type Tensor } from '../../graph/index.ts';
import { type Asked, pictureCount } from '../../input/segments.ts';
import type { AnsweringModel } from '../../models/answer.ts';
import { batchShape, padRows } from '../../models/batch.ts';
import { defineRewrite, type Rewrite } from '../../models/rewrite.ts';
import type { Sequence } from '../../models/sequence.ts';
import { sharedStates } from '../../models/shared-states.ts';
import type { Patch } from '../../models/sites.ts';
import type { Vlm } from '../../models/vlm.ts';
import { Weights } from '../../nn/weights.ts';
import { inGroups, type Memory, own, shared } from '../context/memory.ts';
import { trainingSettings } from '../context/training.ts';
import {
  checkEdits,
  type Edit,
  type Editor,
  type EditorWeights,
  type EditRequest,
  modelId,
  needWeights,
  type Settings,
  wordsOf,
} from '../editor.ts';
import type { Forms } from '../forms.ts';
import { routedModel } from '../routing/answering.ts';
import { type StoredKeys, storedKeys } from '../routing/stored-keys.ts';
import { inFile, noSettings } from '../settings.ts';
import { hiddenAt } from '../vead/prepare.ts';
import { experts, extract, type LiveEditShape, liveEditShapeOf, liveEditShapes, residual, similarityScale } from './modules.ts';
import { placeFeeds, placeInputs } from './places.ts';
import { liveEditConfig, liveEditSchema, trainLiveEdit } from './train.ts';

const id = 'live-edit';

export const shapeOf = ({ settings, tensors }: EditorWeights): LiveEditShape =>
  liveEditShapeOf(tensors, { heads: settings.heads as number, scale: settings.scale as number });

const layerOfWeights = ({ settings }: EditorWeights): number => settings.layer as number;

/** The trained weights as inputs of a run: one program serves all of a shape. */
function boundWeights(shape: LiveEditShape): Weights {
  const w = new Weights();
  for (const [name, dims] of liveEditShapes<number>(shape)) w.bind(name, input(`live:${name}`, dims));
  return w;
}

const weightFeeds = ({ tensors }: EditorWeights, used: (name: string) => boolean): Record<string, Tensor> =>
  Object.fromEntries([...tensors].filter(([name]) => used(name)).map(([name, t]) => [`live:${name}`, t]));

/** What is stored of an edit: its keys and its expert, of the states [1, l, d] over (picture, prompt, answer). */
function editGraph(_: Vlm, shape: LiveEditShape): Record<string, Node> {
  const w = boundWeights(shape);
  const hidden = input('hidden', ['b', 'l', shape.hidden]);
  const places = placeInputs('b', 'l');
  return { ...extract(w, 'edit_extractor', hidden, places, shape), ...experts(w, hidden, places, shape) };
}

/** Keys of queries, and how close each is to its sentinel. */
function queryGraph(_: Vlm, shape: LiveEditShape): Record<string, Node> {
  const keys = extract(
    boundWeights(shape),
    'inpt_extractor',
    input('hidden', ['b', 'l', shape.hidden]),
    placeInputs('b', 'l'),
    shape,
  );
  return { ...keys, threshold: mul(sum(mul(keys.visual, keys.sentinel!), 1), similarityScale(shape)) } as Record<string, Node>;
}

async function edit(vlm: Vlm, requests: readonly EditRequest[], given?: EditorWeights, chosen?: Settings): Promise<Edit[]> {
  const weights = needWeights(id, vlm, given, forms.weights);
  noSettings(id, chosen);
  const shape = shapeOf(weights);
  const program = await vlm.program(editGraph, shape);
  const edits: Edit[] = [];
  // One after the other: padding moves the last bits, and an edit must not depend on what is made beside it.
  for (const request of requests) {
    const sequence = vlm.layout(request, request.target);
    if (sequence.pictures.length === 0) throw new Error(`${id} edits answers about a picture; a request has none`);
    const batch = await vlm.batch([sequence]);
    const hidden = await hiddenAt(vlm, batch, layerOfWeights(weights));
    const made = await program.run({
      hidden: padRows(batch, hidden, shape.hidden),
      ...placeFeeds(batch),
      ...weightFeeds(weights, (name) => /^(edit_extractor|moegen)/.test(name)),
    });
    const stored = (name: string, rows: number, width: number): [string, Tensor<'float32'>] => [
      name,
      f32((made[name]!.data as Float32Array).slice(), [rows, width]),
    ];
    edits.push({
      editor: id,
      model: modelId(vlm),
      request: wordsOf(request),
      settings: {},
      tensors: new Map([
        stored('visual', shape.keys, shape.width),
        stored('prompt', shape.keys, shape.width),
        stored('u', shape.rank, shape.hidden),
        stored('v', shape.rank, shape.hidden),
      ]),
      weights,
    });
  }
  return edits;
}

/** What routing reads of a query. */
export interface QueryKeys {
  readonly visual: Float32Array;
  readonly prompt: Float32Array;
  readonly sentinel: Float32Array;
  /** similarity of the visual key and the sentinel */
  readonly threshold: number;
}

/** Keys of prompts with pictures. */
export async function queryKeys(vlm: Vlm, sequences: readonly Sequence[], weights: EditorWeights): Promise<QueryKeys[]> {
  const shape = shapeOf(weights);
  const layer = layerOfWeights(weights);
  const program = await vlm.program(queryGraph, shape);
  const out: QueryKeys[] = [];
  const size = Math.min(32, vlm.batchLimit);
  for (let at = 0; at < sequences.length; at += size) {
    const some = sequences.slice(at, at + size);
    const batch = batchShape(some);
    const hidden = (await sharedStates(vlm, layer)?.hidden(batch)) ?? (await hiddenAt(vlm, await vlm.batch(some), layer));
    const { visual, prompt, sentinel, threshold } = await program.run({
      hidden: padRows(batch, hidden, shape.hidden),
      ...placeFeeds(batch),
      ...weightFeeds(weights, (name) => name.startsWith('inpt_extractor')),
    });
    const width = shape.keys * shape.width;
    const row = (t: Tensor | undefined, i: number): Float32Array => (t!.data as Float32Array).slice(i * width, (i + 1) * width);
    some.forEach((_, i) => {
      out.push({
        visual: row(visual, i),
        prompt: row(prompt, i),
        sentinel: row(sentinel, i),
        threshold: (threshold!.data as Float32Array)[i]!,
      });
    });
  }
  return out;
}

/** A stored edit that acts on a query, and how much. */
export interface Routed {
  readonly edit: Edit;
  readonly visual: number;
  readonly prompt: number;
  readonly relative: number;
  readonly absolute: number;
  readonly weight: number;
}

/**
 * The edits that act on each query: those kept by hard routing, with the weights of soft routing.
 * @param most of the kept, those whose visual and prompt keys together are closest; 0: all
 */
export async function routes(
  stored: StoredKeys,
  queries: readonly QueryKeys[],
  shape: LiveEditShape,
  most = 0,
): Promise<Routed[][]> {
  const scale = similarityScale(shape);
  const [visual, prompt] = await Promise.all(
    (['visual', 'prompt'] as const).map((name) =>
      stored.products(
        name,
        queries.map((query) => query[name]),
      ),
    ),
  );
  return queries.map(({ threshold }, q) => {
    const all = stored.edits.flatMap((edit, e) => {
      const close = visual![q]![e]! * scale;
      return close > threshold ? [{ edit, visual: close, prompt: prompt![q]![e]! * scale }] : [];
    });
    const kept = most === 0 ? all : all.toSorted((a, b) => b.visual + b.prompt - (a.visual + a.prompt)).slice(0, most);
    const highest = kept.reduce((a, one) => Math.max(a, one.prompt), Number.NEGATIVE_INFINITY);
    const total = kept.reduce((a, one) => a + Math.exp(one.prompt - highest), 0);
    return kept.map((one) => {
      const relative = Math.exp(one.prompt - highest) / total;
      const absolute = 1 / (1 + Math.exp(-one.prompt));
      return { ...one, relative, absolute, weight: relative * absolute };
    });
  });
}

const withExperts = defineRewrite(({ layer, shape }: { layer: number; shape: LiveEditShape }) => {
  const patch: Patch = (x) => {
    const w = new Weights();
    for (const part of ['weight', 'bias'])
      w.bind(`instant_reps_norm.${part}`, input(`live:instant_reps_norm.${part}`, [shape.hidden]));
    const b = x.dim(0);
    const [u, v] = ['u', 'v'].map((name) => input(`live.${name}`, [b, 'neurons', shape.hidden])) as [Node, Node];
    return add(x, residual(w, x, u, v, input('live.weights', [b, 'neurons']), shape));
  };
  const patches = (): Map<string, Patch> => new Map([[`layers.${layer}.out`, patch]]);
  return { patches: (image) => (image ? patches() : new Map()), steps: patches };
});

/** The rewrite of rows that some edits act on. */
export function expertRewrite(rows: readonly (readonly Routed[])[], weights: EditorWeights): Rewrite {
  const shape = shapeOf(weights);
  const { rank, hidden: d } = shape;
  const most = rank * Math.max(1, ...rows.map((kept) => kept.length));
  const [u, v] = [0, 1].map(() => new Float32Array(rows.length * most * d)) as [Float32Array, Float32Array];
  const counts = new Float32Array(rows.length * most);
  rows.forEach((kept, n) => {
    kept.forEach(({ edit: { tensors }, weight }, i) => {
      const at = n * most + i * rank;
      u.set(tensors.get('u')!.data, at * d);
      v.set(tensors.get('v')!.data, at * d);
      counts.fill(weight, at, at + rank);
    });
  });
  const neurons = [rows.length, most, d];
  return withExperts(
    { layer: layerOfWeights(weights), shape },
    {
      'live.u': f32(u, neurons),
      'live.v': f32(v, neurons),
      'live.weights': f32(counts, [rows.length, most]),
      ...weightFeeds(weights, (name) => name.startsWith('instant_reps_norm')),
    },
  );
}

function under(vlm: Vlm, weights: EditorWeights, memory: Memory): AnsweringModel {
  const shape = shapeOf(weights);
  const storedOf = storedKeys(vlm);
  /** Edits that act on each query; none on inputs without a picture. */
  const route = async (queries: readonly Asked[]): Promise<Routed[][]> => {
    const memories = memory(queries.length);
    const asked = queries.flatMap((query, i) => (pictureCount(query) > 0 ? [i] : []));
    const out: Routed[][] = queries.map(() => []);
    if (asked.length === 0) return out;
    const keys = await queryKeys(
      vlm,
      asked.map((i) => vlm.layout(queries[i]!)),
      weights,
    );
    const places = asked.map((_, n) => n);
    const found = await inGroups(
      asked.map((i) => memories[i]!),
      (rows) =>
        routes(
          storedOf(memories[asked[rows[0]!]!]!),
          rows.map((n) => keys[n]!),
          shape,
          weights.settings.most as number | undefined,
        ),
    );
    for (const n of places) out[asked[n]!] = found[n]!;
    return out;
  };
  return routedModel<Routed[]>(
    vlm,
    async (queries) => (await route(queries)).map((kept) => (kept.length === 0 ? undefined : kept)),
    (kept) => (rows) =>
      expertRewrite(
        rows.map((row) => kept[row]!),
        weights,
      ),
  );
}

const forms: Forms = {
  throughWeights: true,
  edit: {
    settings: () => z.object({}),
    tensors: (vlm, { weights }) => {
      const { keys, width, rank } = shapeOf(weights!);
      return [
        ['visual', [keys, width]],
        ['prompt', [keys, width]],
        ['u', [rank, vlm.decoder.hidden]],
        ['v', [rank, vlm.decoder.hidden]],
      ];
    },
  },
  weights: {
    settings: (vlm) => inFile(liveEditSchema(vlm).shape, ['layer', 'heads', 'scale']),
    tensors: (vlm) =>
      liveEditShapes<number | string>({
        hidden: vlm.decoder.hidden,
        width: 'width',
        rank: 'rank',
        keys: 'keys',
        sentinel: 'sentinel rows',
      }),
    problem: (_, made) => {
      const { width, heads } = shapeOf(made as EditorWeights);
      return width % heads === 0 ? undefined : `the setting heads must divide the width ${width}, got ${heads}`;
    },
  },
};

export const liveEdit: Editor = {
  id,
  summary: 'stores each edit as a small expert with keys of its picture and its prompt, and mixes those that a query calls for',
  trained: true,
  promises: { textUntouched: true, batchEqualsSingles: true },
  settings: { train: liveEditSchema },
  forms,
  layersTrained: (vlm) => vlm.decoder.layers - 1 - liveEditConfig(vlm).layer,
  train: trainLiveEdit,
  trainingSettings: (vlm, options) => trainingSettings(liveEditConfig(vlm, options)),
  edit,
  with: (vlm, edits) => {
    checkEdits(id, vlm, edits, forms);
    return under(vlm, edits[0]!.weights!, own(edits));
  },
  chain: (vlm, edits) => {
    checkEdits(id, vlm, edits, forms);
    return under(vlm, edits[0]!.weights!, shared(edits));
  },
};
