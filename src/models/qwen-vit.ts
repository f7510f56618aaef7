/**
 * What the image encoders of Qwen2.5-VL and Qwen3-VL share (reference: transformers 5.24 `modeling_qwen2_5_vl.py`, `modeling_qwen3_vl.py`,
 * `vision_utils.py`): patches of two frames in blocks of `merge` x `merge`, rotary positions of rows and columns, blocks of attention and
 * feed-forward, and four patches joined to a visual token.
 */

import type { Activation } from '../files/config.ts';
import { type Dim, mulDim } from '../graph/dim.ts';
import { i64, type Tensor } from '../graph/dtype.ts';
import { add, attention, input, matmul, type Node, range, reshape, rotary, slice, transpose } from '../graph/index.ts';
import { attend, linear, mergeHeads, splitHeads } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import { axialTables, rotaryFrequencies } from './rotary.ts';

/** Sizes of an image encoder, as its configuration names them. */
export interface QwenVisionConfig {
  depth: number;
  hidden_size: number;
  intermediate_size: number;
  num_heads: number;
  hidden_act: Activation;
  patch_size: number;
  temporal_patch_size: number;
  spatial_merge_size: number;
  out_hidden_size: number;
  rope_parameters: { rope_theta: number };
}

/** Patches of one visual token. */
export const perToken = ({ spatial_merge_size: merge }: QwenVisionConfig): number => merge * merge;

/** Row and column of each patch of a grid of visual tokens, in the processor's order. */
export function patchPlaces([rows, columns]: readonly [number, number], merge: number): [number, number][] {
  const places: [number, number][] = [];
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      for (let i = 0; i < merge * merge; i++) places.push([row * merge + Math.floor(i / merge), column * merge + (i % merge)]);
  return places;
}

/** `places` [2, tokens, patches of a token] of patches. */
export function placesTensor(places: readonly (readonly [number, number])[], patches: number): Tensor {
  const axis = (i: 0 | 1): number[] => places.map((place) => place[i]);
  return i64([...axis(0), ...axis(1)], [2, places.length / patches, patches]);
}

/** Inputs of both: `pixels` [b, n, 3 frames patch²], and `places` [b, 2, v, n / v], rows and columns of the patches. */
export function qwenPixelInputs(config: QwenVisionConfig): { pixels: Node; places: Node } {
  const { patch_size: patch, temporal_patch_size: frames } = config;
  return {
    pixels: input('pixels', ['b', mulDim('v', perToken(config)), 3 * frames * patch * patch]),
    places: input('places', ['b', 2, 'v', perToken(config)], 'int64'),
  };
}

/** Patches [b, n, 3 frames patch²] through a linear map: the convolution with stride = kernel. */
export function qwenPatches(pixels: Node, config: QwenVisionConfig, prefix: string, w: Weights, bias: boolean): Node {
  const { hidden_size: d, patch_size: patch, temporal_patch_size: frames } = config;
  const name = `${prefix}patch_embed.proj`;
  const kernel = reshape(w.get(`${name}.weight`, [d, 3, frames, patch, patch]), [d, 3 * frames * patch * patch]);
  const y = matmul(pixels, kernel, false, true);
  return bias ? add(y, w.get(`${name}.bias`, [d])) : y;
}

/** The attention of one block: x [b, n, d] -> [b, n, d]. */
export type BlockAttention = (x: Node, block: string, w: Weights) => Node;

/**
 * Attention within each picture, with rotary positions: the first half of a head's pairs turns by the row, the second by the column.
 * @param places int64 [b, 2, v, n / v]
 */
export function pictureAttention(config: QwenVisionConfig, places: Node): { whole: BlockAttention; within: Within } {
  const { hidden_size: d, num_heads: heads } = config;
  const k = d / heads;
  const { turns } = rotaryFrequencies(k / 2, config.rope_parameters.rope_theta);
  const both = Float32Array.from([...turns, ...turns]);
  const tables = axialTables(2, (pair) => (pair < turns.length ? 0 : 1), { turns: both, attention: 1 });
  const [b, , v, each] = places.shape as [Dim, number, Dim, number];
  const n = mulDim(v, each);
  const { cos, sin } = tables(transpose(places, [1, 0, 2, 3]));
  const qkv = (x: Node, block: string, w: Weights): Node => linear(w, `${block}.attn.qkv`, x, d, 3 * d);
  /** @param all queries, keys and values [.., 3 d] @param rows of the tables */
  const seen = (all: Node, rows: Node, bias?: Node): Node => {
    const [q, key, value] = [0, 1, 2].map((i) => slice(all, 2, i * d, (i + 1) * d)) as [Node, Node, Node];
    const turn = (x: Node): Node => rotary(splitHeads(x, heads), rows, cos, sin);
    // Windows are small. A whole picture may have so many patches that the scores of all pairs do not fit.
    return bias === undefined
      ? attention(mergeHeads(turn(q)), mergeHeads(turn(key)), value, heads, k ** -0.5)
      : mergeHeads(attend(turn(q), turn(key), splitHeads(value, heads), k ** -0.5, bias));
  };
  const out = (x: Node, block: string, w: Weights): Node => linear(w, `${block}.attn.proj`, x, d, d);
  const rows = reshape(range(mulDim(b, n)), [b, n]);
  return {
    whole: (x, block, w) => out(seen(qkv(x, block, w), rows), block, w),
    within: (x, block, w, { gathered, bias, rows: at, back }) => out(back(seen(gathered(qkv(x, block, w)), at, bias)), block, w),
  };
}

/** Parts of pictures that see themselves only, as rows of their own. */
export interface Parts {
  /** [b, n, e] -> [parts, s, e] */
  gathered(x: Node): Node;
  /** int64 [parts, s], places among [b n] */
  readonly rows: Node;
  /** additive [parts, 1, 1, s]: very negative where a part has no such patch */
  readonly bias: Node;
  /** [parts, s, e] -> [b, n, e] */
  back(x: Node): Node;
}
type Within = (x: Node, block: string, w: Weights, parts: Parts) => Node;

/** Places [b, ...] within each picture's n rows as places among the rows of all, [b n]. */
export function amongAll(places: Node, b: Dim, n: Dim): Node {
  const starts = slice(reshape(range(mulDim(b, n)), [b, n]), 1, 0, 1);
  return add(places, reshape(starts, [b, ...places.shape.slice(1).map(() => 1)]));
}
