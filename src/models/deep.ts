/**
 * Features of the image encoder that are added to the residual stream behind the first layers, at the visual tokens (DeepStack; Meng et al. 2024, and
 * Qwen3-VL). A visual token is then a row of several parts: what stands in the place of its embedding, and one part for each of these layers. Whole
 * inputs are given the parts as `deep.{i}` [b, l, d], 0 at words; layer i + 1 reads the output of layer i with `deep.{i}` added, and the site
 * `layers.{i}.out` is that output alone.
 */

import type { Dim } from '../graph/dim.ts';
import { f32, type Tensor } from '../graph/dtype.ts';
import { add, input, mul, type Node, slice } from '../graph/index.ts';
import type { Feeds } from '../runtime/program.ts';
import type { Decoder } from './architecture.ts';
import { type BatchShape, padRows, rowsOf, stackPadded } from './batch.ts';
import { visualPlaces } from './sequence.ts';
import { type Spans, writeVisual } from './spans.ts';

/** What is added to the output [b, l, d] of a layer before the next one reads it; undefined: nothing. */
export type Deep = (layer: number) => Node | undefined;

const nameOf = (layer: number): string => `deep.${layer}`;

/** Numbers of a visual token. */
export const visualWidth = ({ hidden, deepLayers = 0 }: Decoder): number => hidden * (1 + deepLayers);

/** The features as inputs of a program over whole inputs [b, l]. @param name before theirs */
export function deepInputs({ hidden, deepLayers = 0 }: Decoder, b: Dim = 'b', l: Dim = 'l', name = ''): Deep | undefined {
  if (deepLayers === 0) return undefined;
  return (layer) => (layer < deepLayers ? input(`${name}${nameOf(layer)}`, [b, l, hidden]) : undefined);
}

/** A layer's input: the output of the layer before, and what is added to it. */
export function entering(layer: number, x: Node, deep: Deep | undefined): Node {
  const added = layer > 0 ? deep?.(layer - 1) : undefined;
  return added === undefined ? x : add(x, added);
}

/** Embeddings [b, l, d] with visual tokens [b, v, d (1 + layers)] of the program itself in their place, and what they add to layers. */
export function placeVisual(
  { hidden: d, deepLayers = 0 }: Decoder,
  words: Node,
  visual: Node,
  spans: Spans,
): { embeddings: Node; deep: Deep | undefined } {
  if (deepLayers === 0) return { embeddings: writeVisual(words, visual, spans), deep: undefined };
  const part = (i: number): Node => slice(visual, 2, i * d, (i + 1) * d);
  const none = mul(words, 0);
  return {
    embeddings: writeVisual(words, part(0), spans),
    deep: (layer) => (layer < deepLayers ? writeVisual(none, part(layer + 1), spans) : undefined),
  };
}

/** One part of visual tokens [n, d (1 + layers)]: 0 stands in the place of embeddings. */
export function visualPart({ data, shape }: Tensor<'float32'>, part: number, d: number): Tensor<'float32'> {
  const [n, width] = shape as [number, number];
  if (width === d) return { dtype: 'float32', data, shape };
  const out = new Float32Array(n * d);
  for (let i = 0; i < n; i++) out.set(data.subarray(i * width + part * d, i * width + (part + 1) * d), i * d);
  return f32(out, [n, d]);
}

/**
 * Visual tokens of inputs as programs read them: `visual` [b, v, d], and `deep.{i}` [b, l, d].
 * @param tokens of the pictures of each input, behind each other
 */
export function visualFeedsOf(decoder: Decoder, batch: BatchShape, tokens: readonly Tensor<'float32'>[]): Feeds {
  const { hidden: d, deepLayers = 0 } = decoder;
  const feeds: Record<string, Tensor> = { visual: stackPadded(tokens.map((own) => visualPart(own, 0, d))) };
  for (let i = 0; i < deepLayers; i++) {
    const rows = batch.sequences.map((sequence, n) => {
      const part = visualPart(tokens[n]!, i + 1, d).data;
      const out = new Float32Array(sequence.ids.length * d);
      visualPlaces(sequence).forEach((place, token) => {
        out.set(part.subarray(token * d, (token + 1) * d), place * d);
      });
      return out;
    });
    feeds[nameOf(i)] = padRows(batch, rows, d);
  }
  return feeds;
}

/** What is added to the layers from `from - 1` on, [length × d] of one input by layer: what stands behind a layer's output needs it. */
export type DeepRows = ReadonlyMap<number, Float32Array>;

/** @param from the first layer whose input is computed with them */
export function deepRows(
  { hidden, deepLayers = 0 }: Decoder,
  batch: BatchShape & { feeds: Feeds },
  n: number,
  from: number,
): DeepRows {
  const rows = new Map<number, Float32Array>();
  for (let i = Math.max(0, from - 1); i < deepLayers; i++) {
    const given = batch.feeds[nameOf(i)];
    if (given !== undefined) rows.set(i, rowsOf(batch, n, given.data as Float32Array, hidden));
  }
  return rows;
}

/** `deep.{i}` of inputs whose rows are known. */
export function deepFeeds({ hidden }: Decoder, batch: BatchShape, of: readonly (DeepRows | undefined)[]): Feeds {
  const layers = [...(of[0]?.keys() ?? [])];
  return Object.fromEntries(
    layers.map((i) => [
      nameOf(i),
      padRows(
        batch,
        of.map((rows) => rows!.get(i)!),
        hidden,
      ),
    ]),
  );
}

/** The state before a layer as the layer reads it, from the output of the layer before. */
export function entered(state: Float32Array, layer: number, feeds: Feeds): Float32Array {
  const added = feeds[nameOf(layer - 1)];
  return added === undefined ? state : state.map((value, i) => value + (added.data as Float32Array)[i]!);
}
