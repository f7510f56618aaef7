/**
 * Image encoder of Qwen3-VL (reference: transformers 5.24 `modeling_qwen3_vl.py`, `get_vision_interpolation_indices_and_weights` of `vision_utils.py`):
 * LayerNorm, learned positions of a square that is stretched over the picture, and rotary ones. The outputs of several layers become visual tokens:
 * the last one's stand in the place of embeddings, the others are added behind the decoder's first layers (deep.ts).
 */

import type { Dim } from '../graph/dim.ts';
import { f32, i64, type Tensor } from '../graph/dtype.ts';
import { add, concat, gather, input, layerNorm, mul, type Node, reshape, scope, slice, sum } from '../graph/index.ts';
import { activations } from '../nn/activations.ts';
import { linear } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import type { Qwen3VisionConfig } from './configs/qwen-vl.ts';
import { patchPlaces, perToken, pictureAttention, placesTensor, qwenPatches, qwenPixelInputs } from './qwen-vit.ts';
import type { Sites } from './sites.ts';

const EPSILON = 1e-6;

/** The layers that go deeper, as they follow each other, each with the number of its merger: that of its place in the configuration. */
function deepLayers({ deepstack_visual_indexes: given }: Qwen3VisionConfig): { layer: number; merger: number }[] {
  return [...new Set(given)].sort((a, b) => a - b).map((layer) => ({ layer, merger: given.indexOf(layer) }));
}

/** Layers of the decoder that have features added. */
export const deepCount = (config: Qwen3VisionConfig): number => deepLayers(config).length;

/** Learned positions on both sides of a place between 0 and the last, and the share of the second. */
function between(place: number, side: number): [number, number, number] {
  const first = Math.min(Math.floor(place), side - 1);
  return [first, Math.min(first + 1, side - 1), place - first];
}

/** What the image encoder reads beside the pixels: see `qwen3Inputs`. */
export function qwen3Places(config: Qwen3VisionConfig, grid: readonly [number, number]): Record<string, Tensor> {
  const { spatial_merge_size: merge, num_position_embeddings: count } = config;
  const side = Math.sqrt(count);
  const places = patchPlaces(grid, merge);
  const [rows, columns] = [grid[0] * merge, grid[1] * merge];
  /** The corners of the learned square lie on those of the picture. */
  const stretched = (place: number, length: number): number => (length === 1 ? 0 : (place * (side - 1)) / (length - 1));
  const corners: number[] = [];
  const shares: number[] = [];
  for (const [row, column] of places) {
    const [top, bottom, down] = between(stretched(row, rows), side);
    const [left, right, across] = between(stretched(column, columns), side);
    corners.push(top * side + left, top * side + right, bottom * side + left, bottom * side + right);
    shares.push((1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across);
  }
  return {
    places: placesTensor(places, perToken(config)),
    corners: i64(corners, [places.length, 4]),
    shares: f32(shares, [places.length, 4]),
  };
}

/** Inputs: `pixels` [b, n, 3 frames patch²], `places` [b, 2, v, n / v]; `corners` and `shares` [b, n, 4], the learned positions around each patch. */
export function qwen3Inputs(config: Qwen3VisionConfig): Record<string, Node> {
  const own = qwenPixelInputs(config);
  const n = own.pixels.dim(1);
  return { ...own, corners: input('corners', ['b', n, 4], 'int64'), shares: input('shares', ['b', n, 4]) };
}

/**
 * Patches joined four by four, [b, v, 4 d (1 + deep)]: of the last layer, then of those whose outputs go deeper. Declares `vision.layers.{i}.out`
 * [b, n, d].
 */
export function qwen3Tower(
  inputs: Readonly<Record<string, Node>>,
  config: Qwen3VisionConfig,
  prefix: string,
  w: Weights,
  sites: Sites,
): Node {
  const { hidden_size: d, intermediate_size: width } = config;
  const norm = (name: string, x: Node): Node =>
    layerNorm(x, w.get(`${prefix}${name}.weight`, [d]), w.get(`${prefix}${name}.bias`, [d]), EPSILON);
  const act = activations[config.hidden_act];
  const [b, , v] = inputs.places!.shape as [Dim, number, Dim];
  const { whole } = pictureAttention(config, inputs.places!);
  const table = w.get(`${prefix}pos_embed.weight`, [config.num_position_embeddings, d]);
  const around = gather(table, inputs.corners!);
  const positions = sum(mul(around, reshape(inputs.shares!, [...inputs.shares!.shape, 1])), 2);
  let x = add(qwenPatches(inputs.pixels!, config, prefix, w, true), positions);
  const outs = new Map<number, Node>();
  for (let i = 0; i < config.depth; i++) {
    x = scope(`vision.layers.${i}`, () => {
      const block = `${prefix}blocks.${i}`;
      const middle = add(x, whole(norm(`blocks.${i}.norm1`, x), block, w));
      const z = act(linear(w, `${block}.mlp.linear_fc1`, norm(`blocks.${i}.norm2`, middle), d, width));
      return sites.site(`vision.layers.${i}.out`, add(middle, linear(w, `${block}.mlp.linear_fc2`, z, width, d)));
    });
    outs.set(i, x);
  }
  const joined = [x, ...deepLayers(config).map(({ layer }) => outs.get(layer)!)].map((own) =>
    reshape(own, [b, v, perToken(config) * d]),
  );
  return joined.length === 1 ? joined[0]! : concat(joined, 2);
}

/** Visual tokens [b, v, out (1 + deep)] of joined patches [b, v, 4 d (1 + deep)]; deeper ones are normalised whole. */
export function qwen3Merger(features: Node, config: Qwen3VisionConfig, prefix: string, w: Weights): Node {
  const { hidden_size: d, out_hidden_size: out } = config;
  const deep = deepLayers(config);
  const [b, v] = features.shape as [Dim, Dim];
  const [each, wide] = [perToken(config), perToken(config) * d];
  const part = (i: number): Node => (deep.length === 0 ? features : slice(features, 2, i * wide, (i + 1) * wide));
  const norm = (name: string, x: Node, width: number): Node =>
    layerNorm(x, w.get(`${name}.weight`, [width]), w.get(`${name}.bias`, [width]), EPSILON);
  const merged = (name: string, normal: Node): Node =>
    linear(w, `${name}.linear_fc2`, activations.gelu(linear(w, `${name}.linear_fc1`, normal, wide, wide)), wide, out);
  const main = `${prefix}merger`;
  const tokens = merged(main, reshape(norm(`${main}.norm`, reshape(part(0), [b, v, each, d]), d), [b, v, wide]));
  if (deep.length === 0) return tokens;
  const deeper = deep.map(({ merger }, i) => {
    const name = `${prefix}deepstack_merger_list.${merger}`;
    return merged(name, norm(`${name}.norm`, part(i + 1), wide));
  });
  return concat([tokens, ...deeper], 2);
}
