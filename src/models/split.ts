/**
 * Decoder layers over a sequence in two parts: everything up to the end of the picture, which never sees what comes after it, and the text. Inputs
 * that share a picture can share the first part, and where only the text is read, the last layer of the first part is left out by itself: its
 * keys and values are all that the text asks of it.
 */

import type { Dim } from '../graph/dim.ts';
import { concat, type Node, slice } from '../graph/index.ts';
import { causalBlocks } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import type { Decoder } from './architecture.ts';
import { Sites } from './sites.ts';

export interface SplitStates {
  /** [p, P, d] */
  picture: Node;
  /** [b, l - P, d] */
  text: Node;
}

export interface SplitContext {
  weights: Weights;
  /** of the first part, where its rows have weights of their own */
  pictureWeights?: Weights;
  /** of the text part */
  sites: Sites;
  /** P, the length of the first part */
  length: number;
  /** of the whole inputs: int64 [b, l] */
  positions: Node;
  /** causal, of the whole inputs: [b, 1, l, l] */
  bias: Node;
  /** rows of the first part -> rows of the text: [p, ...] -> [b, ...]; the identity when left out */
  spread?: (x: Node) => Node;
}

/** One layer over both parts; `seen` are its sites of keys and values [b, h, l, k], of both parts. */
export function splitLayer(
  decoder: Decoder,
  index: number,
  { picture, text }: SplitStates,
  context: SplitContext,
): SplitStates & { seen: Record<string, Node> } {
  const { weights, pictureWeights = weights, sites, length, positions, bias, spread = (x) => x } = context;
  const p = picture.dim(0);
  const l = positions.dim(1);
  const rows = (x: Node): Node => (p === x.dim(0) ? x : slice(x, 0, 0, p));
  const before = new Sites();
  const next = decoder.layer(index, picture, {
    weights: pictureWeights,
    sites: before,
    // All rows count from 0 and see what is before them.
    positions: slice(rows(positions), 1, 0, length),
    bias: slice(slice(rows(bias), 2, 0, length), 3, 0, length),
    blocks: causalBlocks(length),
  });
  const [key, value] = ['key', 'value'].map((part) => `layers.${index}.attn.${part}`) as [string, string];
  const past = { key: spread(before.get(key)), value: spread(before.get(value)) };
  const own = decoder.layer(index, text, {
    weights,
    sites,
    positions: slice(positions, 1, length, l),
    bias: slice(bias, 2, length, l),
    past: () => [past],
  });
  const seen = { [key]: concat([past.key, sites.get(key)], 2), [value]: concat([past.value, sites.get(value)], 2) };
  return { picture: next, text: own, seen };
}

/** Both parts of whole states [b, l, d]. */
export function splitStates(x: Node, length: number): SplitStates {
  const l: Dim = x.dim(1);
  return { picture: slice(x, 1, 0, length), text: slice(x, 1, length, l) };
}
