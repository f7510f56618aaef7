/**
 * What tokens see. In most decoders that is all that stands before them, and themselves: a program is given the causal bias. Where layers see a window
 * only, or tokens of one picture see each other in both directions, it is given how far each column reaches, and makes the biases of its layers
 * itself.
 */

import { addDim, type Dim, subDim } from '../graph/dim.ts';
import { cast, concat, greater, input, less, maximum, mul, type Node, reshape, slice, sub } from '../graph/index.ts';
import type { Decoder } from './architecture.ts';
import { MASKED } from './batch.ts';

/** Windows of a decoder's layers, each once: the kinds of its biases. */
export const windowsOf = ({ sight }: Pick<Decoder, 'sight'>): readonly number[] =>
  sight === undefined ? [Number.POSITIVE_INFINITY] : [...new Set(sight.windows)];

/** Tokens that one of a layer sees, itself and those before it. */
export const windowOf = ({ sight }: Pick<Decoder, 'sight'>, layer: number): number =>
  sight?.windows[layer] ?? Number.POSITIVE_INFINITY;

/** The bias [b, 1, queries, keys] of one layer, of those of a program [b, kinds, queries, keys]. */
export function biasOf(decoder: Pick<Decoder, 'sight'>, layer: number, bias: Node): Node {
  if (bias.dim(1) === 1) return bias;
  const kind = windowsOf(decoder).indexOf(windowOf(decoder, layer));
  return slice(bias, 1, kind, kind + 1);
}

/**
 * Additive biases [b, kinds, rows, keys] of queries that are the last `rows` of all columns: the input `bias` [b, 1, rows, keys], or made of the input
 * `reach` [b, 2, keys] (see `reachFeeds`).
 * @param earlier columns before the queries
 */
export function biasInput(decoder: Pick<Decoder, 'sight'>, b: Dim, rows: Dim, earlier: readonly Dim[] = [], name = ''): Node {
  const keys = addDim(rows, ...earlier);
  if (decoder.sight === undefined) return input(`${name}bias`, [b, 1, rows, keys]);
  return biasesOf(decoder, input(`${name}reach`, [b, 2, keys]), rows);
}

function biasesOf(decoder: Pick<Decoder, 'sight'>, reach: Node, rows: Dim): Node {
  const [b, , keys] = reach.shape as [Dim, 2, Dim];
  const row = (i: number): Node => slice(reach, 1, i, i + 1);
  const ofQueries = (x: Node): Node => reshape(slice(x, 2, subDim(keys, rows), keys), [b, 1, rows, 1]);
  const key = reshape(row(0), [b, 1, 1, keys]);
  const [own, until] = [ofQueries(row(0)), ofQueries(row(1))];
  const ahead = cast(greater(key, until), 'float32');
  const kinds = windowsOf(decoder).map((window) =>
    mul(window === Number.POSITIVE_INFINITY ? ahead : maximum(ahead, cast(less(key, sub(own, window - 1)), 'float32')), MASKED),
  );
  return kinds.length === 1 ? kinds[0]! : concat(kinds, 1);
}

/** What the tokens of one layer see, in words and numbers: for readers of maps, where it is not simply all that stands before them. */
export interface LayerSight {
  /** tokens that one sees, itself and those before it; null: all */
  readonly window: number | null;
  /** whether tokens of one picture see each other in both directions */
  readonly bothDirections: boolean;
}

/** Undefined where a layer is causal: every token sees all that stands before it, and itself. */
export function layerSight(decoder: Pick<Decoder, 'sight'>, layer: number): LayerSight | undefined {
  const { sight } = decoder;
  if (sight === undefined) return undefined;
  const window = windowOf(decoder, layer);
  if (window === Number.POSITIVE_INFINITY && !sight.wholePictures) return undefined;
  return { window: Number.isFinite(window) ? window : null, bothDirections: sight.wholePictures };
}

/** A sentence for the reader of a map of these layers, where they are not causal. */
export function sightNote(decoder: Pick<Decoder, 'sight'>, layers: readonly number[]): string | undefined {
  const windows = new Map<number, number[]>();
  for (const layer of layers) {
    const window = windowOf(decoder, layer);
    if (Number.isFinite(window)) windows.set(window, [...(windows.get(window) ?? []), layer]);
  }
  const narrow = [...windows].map(
    ([window, of]) =>
      `layer ${of.join(', ')} sees the last ${window} tokens only: what stands further back is not seen, and has no weight in maps`,
  );
  const both = decoder.sight?.wholePictures
    ? ['the tokens of one picture see each other in both directions: a patch holds what it read of the whole picture']
    : [];
  const notes = [...both, ...narrow];
  return notes.length === 0 ? undefined : `Not causal: ${notes.join('; ')}.`;
}
