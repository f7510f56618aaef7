/**
 * DualEdit (2025): a text adapter and a visual one at two layers (adapters.ts), and a gate: with h at the text adapter's layer, both unedited,
 *   c = cos(h[last prompt token of the query], h̃[last prompt token of the edit])
 * both adapters act where c is at least 0.8. The gate reads the prompt alone, so that free generation is the same as forced. Edits that last are stored with
 * their signals; of several the one with the largest c acts, or none.
 *
 * The published gate does not tell pictures apart where prompts end alike. Beyond the paper, weights may hold a routing (routing/routing.ts), which then
 * takes the gate's place.
 */

import { add, f32, input, mul, type Node, type Tensor } from '../../graph/index.ts';
import type { Asked } from '../../input/segments.ts';
import type { AnsweringModel } from '../../models/answer.ts';
import { type BatchShape, batchShape, columnOf } from '../../models/batch.ts';
import { chainRewrites, defineRewrite, type Rewrite } from '../../models/rewrite.ts';
import { prefixOf, type Sequence } from '../../models/sequence.ts';
import { sharedStates } from '../../models/shared-states.ts';
import type { Patch } from '../../models/sites.ts';
import { readVisual, writeVisual } from '../../models/spans.ts';
import type { Vlm } from '../../models/vlm.ts';
import { Weights } from '../../nn/weights.ts';
import { type Memory, own, shared, tensorOf } from '../context/memory.ts';
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
import { keysOfRequests, keyTensors, Routed, routingFields, routingOf, routingTensors } from '../routing/routing.ts';
import { highest, type StoredKeys, storedKeys } from '../routing/stored-keys.ts';
import { inFile, noSettings } from '../settings.ts';
import { hiddenAt } from '../vead/prepare.ts';
import { changeBy, type DualShape, dualShapes, type Side, sides } from './adapters.ts';
import { dualConfig, dualSchema, trainDual } from './train.ts';

const id = 'dual-edit';

export const shapeOf = ({ settings, tensors }: EditorWeights): DualShape => {
  const [width, hidden] = tensors.get('text.mlp_begin.weight')!.shape as [number, number];
  return { hidden, width, heads: settings.heads as number };
};

const layerOf = (side: Side, { settings }: EditorWeights): number => settings[`${side}Layer`] as number;

/** The weights under names of inputs of a run. */
const feedsOf = (side: Side, { tensors }: EditorWeights): Record<string, Tensor> =>
  Object.fromEntries([...tensors].filter(([name]) => name.startsWith(`${side}.`)).map(([name, t]) => [`dual:${name}`, t]));

function boundWeights(side: Side, shape: DualShape): Weights {
  const w = new Weights();
  for (const [name, dims] of dualShapes<number>({ ...shape, influenceWidth: 1 }))
    if (name.startsWith(`${side}.`)) w.bind(name, input(`dual:${name}`, dims));
  return w;
}

async function edit(vlm: Vlm, requests: readonly EditRequest[], given?: EditorWeights, chosen?: Settings): Promise<Edit[]> {
  noSettings(id, chosen);
  const weights = needWeights(id, vlm, given, forms.weights);
  const routing = routingOf(weights);
  const d = vlm.decoder.hidden;
  const edits: Edit[] = [];
  // One after the other: padding moves the last bits, and an edit must not depend on what is made beside it.
  for (const request of requests) {
    const sequence = vlm.layout(request, request.target);
    if (sequence.pictures.length === 0) throw new Error(`${id} edits answers about a picture; a request has none`);
    const batch = await vlm.batch([sequence]);
    const signals: [string, Tensor<'float32'>][] = [];
    for (const side of sides) {
      const [signal] = await hiddenAt(vlm, batch, layerOf(side, weights));
      signals.push([side, f32(signal!, [sequence.ids.length, d])]);
    }
    const end = signals[0]![1].data.subarray(sequence.promptEnd * d, (sequence.promptEnd + 1) * d);
    edits.push({
      editor: id,
      model: modelId(vlm),
      request: wordsOf(request),
      settings: {},
      tensors: new Map([
        ...signals,
        ['end', f32(ofLengthOne(end), [d])],
        ...(routing === undefined ? [] : await keysOfRequests(vlm, [request], routing)),
      ]),
      weights,
    });
  }
  return edits;
}

function ofLengthOne(x: Float32Array): Float32Array {
  const length = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));
  return x.map((value) => value / length);
}

/** A query under an edit. */
export interface Under {
  readonly edit: Edit;
  /** position of the query's last prompt token */
  readonly promptEnd: number;
}

/** h at the text adapter's layer at each prompt's end, of length 1. */
export async function promptEnds(vlm: Vlm, sequences: readonly Sequence[], weights: EditorWeights): Promise<Float32Array[]> {
  const layer = layerOf('text', weights);
  const d = vlm.decoder.hidden;
  const out = new Array<Float32Array>(sequences.length);
  for (const image of [true, false]) {
    const rows = sequences.flatMap(({ pictures }, i) => (pictures.length > 0 === image ? [i] : []));
    for (let at = 0; at < rows.length; at += Math.min(32, vlm.batchLimit)) {
      const some = rows.slice(at, at + Math.min(32, vlm.batchLimit));
      const of = some.map((i) => sequences[i]!);
      const states = image ? sharedStates(vlm, layer) : undefined;
      const hidden = (await states?.hidden(batchShape(of))) ?? (await hiddenAt(vlm, await vlm.batch(of), layer));
      some.forEach((i, n) => {
        const { promptEnd } = sequences[i]!;
        out[i] = ofLengthOne(hidden[n]!.subarray(promptEnd * d, (promptEnd + 1) * d));
      });
    }
  }
  return out;
}

/** The stored edit with the largest c for each query, where it is at least the threshold. */
async function gated(
  vlm: Vlm,
  sequences: readonly Sequence[],
  weights: EditorWeights,
  memory: Memory,
  storedOf: (edits: readonly Edit[]) => StoredKeys,
): Promise<(Edit | undefined)[]> {
  const ends = await promptEnds(vlm, sequences, weights);
  const threshold = weights.settings.threshold as number;
  const memories = memory(sequences.length);
  const out: (Edit | undefined)[] = [];
  for (const [i, edits] of memories.entries()) {
    const stored = storedOf(edits);
    const [products] = await stored.products('end', [ends[i]!]);
    const best = highest(products!);
    out.push(products![best]! >= threshold ? stored.edits[best] : undefined);
  }
  return out;
}

const adapted = defineRewrite(({ side, layer, shape }: { side: Side; layer: number; shape: DualShape }) => {
  const signalOf = (b: Node['shape'][number]) => ({
    signal: input(`dual.${side}.signal`, [b, 'signal', shape.hidden]),
    bias: input(`dual.${side}.bias`, [b, 'signal']),
  });
  const text: Patch = (x) => {
    const change = changeBy(side, boundWeights(side, shape), shape, x, signalOf(x.dim(0)));
    return add(x, mul(change, input('dual.words', [x.dim(0), x.dim(1), 1])));
  };
  const vision: Patch = (x, spans) => {
    const visual = readVisual(x, spans!);
    return writeVisual(x, add(visual, changeBy(side, boundWeights(side, shape), shape, visual, signalOf(x.dim(0)))), spans!);
  };
  return {
    patches: (image) =>
      side === 'text' || image ? new Map([[`layers.${layer}.out`, side === 'text' ? text : vision]]) : new Map(),
  };
});

/** Both adapters over the rows of a batch. */
export function dualRewrite(rows: readonly Under[], batch: BatchShape): Rewrite {
  const weights = rows[0]!.edit.weights!;
  const shape = shapeOf(weights);
  const { hidden: d } = shape;
  const n = Math.max(...rows.map(({ edit }) => tensorOf(edit, 'text').shape[0]!));
  const words = new Float32Array(rows.length * batch.length);
  rows.forEach(({ promptEnd }, i) => {
    const start = textStart(batch.sequences[i]!);
    for (let position = start; position < promptEnd; position++) words[i * batch.length + columnOf(batch, i, position)] = 1;
  });
  const one = (side: Side): Rewrite => {
    const signal = new Float32Array(rows.length * n * d);
    const bias = new Float32Array(rows.length * n);
    rows.forEach(({ edit }, i) => {
      const own = tensorOf(edit, side);
      signal.set(own.data, i * n * d);
      bias.fill(-1e9, i * n + own.shape[0]!, (i + 1) * n);
    });
    return adapted(
      { side, layer: layerOf(side, weights), shape },
      {
        [`dual.${side}.signal`]: f32(signal, [rows.length, n, d]),
        [`dual.${side}.bias`]: f32(bias, [rows.length, n]),
        ...(side === 'text' ? { 'dual.words': f32(words, [rows.length, batch.length, 1]) } : {}),
        ...feedsOf(side, weights),
      },
    );
  };
  return batch.image ? chainRewrites(sides.map(one)) : one('text');
}

/** The first position that the text adapter acts on: behind the pictures, or behind the beginning of a text. */
export const textStart = (sequence: Sequence): number => (sequence.pictures.length > 0 ? prefixOf(sequence) : 1);

function under(vlm: Vlm, weights: EditorWeights, memory: Memory): AnsweringModel {
  const routed = routingOf(weights) === undefined ? undefined : new Routed(vlm, weights, memory);
  const storedOf = storedKeys(vlm);
  const route = async (queries: readonly Asked[]): Promise<(Under | undefined)[]> => {
    const sequences = queries.map((query) => vlm.layout(query));
    const edits = (await routed?.routes(queries)) ?? (await gated(vlm, sequences, weights, memory, storedOf));
    return edits.map((edit, i) => edit && { edit, promptEnd: sequences[i]!.promptEnd });
  };
  return routedModel<Under>(
    vlm,
    route,
    (chosen) => (rows, batch) =>
      dualRewrite(
        rows.map((row) => chosen[row]!),
        batch,
      ),
  );
}

const forms: Forms = {
  throughWeights: true,
  edit: {
    settings: () => inFile({}),
    tensors: (vlm, made) => {
      const d = vlm.decoder.hidden;
      return [['text', ['positions', d]], ['vision', ['positions', d]], ['end', [d]], ...keyTensors(vlm, made)];
    },
  },
  weights: {
    settings: (vlm) =>
      inFile({ ...dualSchema(vlm).shape, ...routingFields(vlm) }, ['textLayer', 'visionLayer', 'heads', 'threshold']),
    tensors: (vlm, made) => [
      ...dualShapes<number | string>({ hidden: vlm.decoder.hidden, width: 'width', influenceWidth: 'none' }),
      ...routingTensors(vlm, made),
    ],
    problem: (_, { settings, tensors }) => {
      const width = tensors.get('text.mlp_begin.weight')!.shape[0]!;
      if (width % (settings.heads as number) !== 0)
        return `the setting heads must divide the width ${width}, got ${settings.heads}`;
      return (settings.textLayer as number) < (settings.visionLayer as number)
        ? undefined
        : `the setting visionLayer must be above textLayer, which is ${settings.textLayer}, got ${settings.visionLayer}`;
    },
  },
};

export const dualEdit: Editor = {
  id,
  summary: "a text adapter and a visual one at two layers, behind a gate on the prompt's end",
  trained: true,
  promises: { textUntouched: false, batchEqualsSingles: true },
  settings: { train: dualSchema },
  forms,
  layersTrained: (vlm) => vlm.decoder.layers - 1 - dualConfig(vlm).textLayer,
  train: trainDual,
  trainingSettings: (vlm, options) => trainingSettings(dualConfig(vlm, options)),
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
