/**
 * Image encoder of Qwen2.5-VL (reference: transformers 5.24 `modeling_qwen2_5_vl.py`, `get_vision_window_index` of `vision_utils.py`): RMSNorm, gated
 * feed-forward, and windows. All but a few layers see a square of the picture only; patches stand window by window until they are joined.
 */

import { type Dim, mulDim } from '../graph/dim.ts';
import { f32, i64, type Tensor } from '../graph/dtype.ts';
import { add, gather, input, mul, type Node, reshape, rmsNorm, scope } from '../graph/index.ts';
import { activations } from '../nn/activations.ts';
import { linear } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import { MASKED } from './batch.ts';
import type { Qwen25VisionConfig } from './configs/qwen-vl.ts';
import {
  amongAll,
  type Parts,
  patchPlaces,
  perToken,
  pictureAttention,
  placesTensor,
  qwenPatches,
  qwenPixelInputs,
} from './qwen-vit.ts';
import type { Sites } from './sites.ts';

const EPSILON = 1e-6;

/** Visual tokens along a window. */
const windowSide = ({ window_size, patch_size, spatial_merge_size }: Qwen25VisionConfig): number =>
  Math.floor(window_size / spatial_merge_size / patch_size);

/** The visual tokens of each window, window by window; those at the edges are smaller. */
export function windowsOf([rows, columns]: readonly [number, number], side: number): number[][] {
  const windows: number[][] = [];
  for (let top = 0; top < rows; top += side)
    for (let left = 0; left < columns; left += side) {
      const window: number[] = [];
      for (let row = top; row < Math.min(rows, top + side); row++)
        for (let column = left; column < Math.min(columns, left + side); column++) window.push(row * columns + column);
      windows.push(window);
    }
  return windows;
}

/** What the image encoder reads beside the pixels: see `qwen25Inputs`. */
export function qwen25Places(config: Qwen25VisionConfig, grid: readonly [number, number]): Record<string, Tensor> {
  const each = perToken(config);
  const windows = windowsOf(grid, windowSide(config));
  const room = each * Math.max(...windows.map((window) => window.length));
  const order = windows.flat();
  const places = patchPlaces(grid, config.spatial_merge_size);
  const patchesOf = (tokens: readonly number[]): number[] =>
    tokens.flatMap((token) => Array.from({ length: each }, (_, i) => token * each + i));
  const rows: number[] = [];
  const bias = new Float32Array(windows.length * room);
  const back: number[] = [];
  let at = 0;
  windows.forEach((window, w) => {
    const patches = window.length * each;
    for (let i = 0; i < room; i++) rows.push(i < patches ? at + i : 0);
    for (let i = 0; i < patches; i++) back.push(w * room + i);
    bias.fill(MASKED, w * room + patches, (w + 1) * room);
    at += patches;
  });
  const tokens = new Array<number>(order.length);
  order.forEach((token, place) => {
    tokens[token] = place;
  });
  return {
    places: placesTensor(
      patchesOf(order).map((patch) => places[patch]!),
      each,
    ),
    order: i64(patchesOf(order), [order.length * each]),
    tokens: i64(tokens, [tokens.length]),
    'windows.rows': i64(rows, [windows.length, room]),
    'windows.bias': f32(bias, [windows.length, room]),
    'windows.back': i64(back, [back.length]),
  };
}

/**
 * Inputs: `pixels` [b, n, 3 frames patch²] in the processor's order; `places` [b, 2, v, n / v] and everything else in the order of windows: `order`
 * [b, n], where each patch stands in the processor's; `tokens` [b, v], where each visual token stands among the windows'; `windows.rows` and
 * `windows.bias` [b, w, s], the patches of each window, as many as the largest has; `windows.back` [b, n], where each patch stands among those.
 */
export function qwen25Inputs(config: Qwen25VisionConfig): Record<string, Node> {
  const n = mulDim('v', perToken(config));
  return {
    ...qwenPixelInputs(config),
    order: input('order', ['b', n], 'int64'),
    tokens: input('tokens', ['b', 'v'], 'int64'),
    'windows.rows': input('windows.rows', ['b', 'w', 's'], 'int64'),
    'windows.bias': input('windows.bias', ['b', 'w', 's']),
    'windows.back': input('windows.back', ['b', n], 'int64'),
  };
}

/** Patches joined four by four, [b, v, 4 d], row by row. Declares `vision.layers.{i}.out` [b, n, d] in the order of windows. */
export function qwen25Tower(
  inputs: Readonly<Record<string, Node>>,
  config: Qwen25VisionConfig,
  prefix: string,
  w: Weights,
  sites: Sites,
): Node {
  const { hidden_size: d, intermediate_size: width } = config;
  const norm = (name: string, x: Node): Node => rmsNorm(x, w.get(`${prefix}${name}.weight`, [d]), EPSILON);
  const act = activations[config.hidden_act];
  const places = inputs.places!;
  const [b, , v] = places.shape as [Dim, number, Dim];
  const each = perToken(config);
  const n = mulDim(v, each);
  const { whole, within } = pictureAttention(config, places);
  const windows = windowParts(inputs, b, n);
  const full = new Set(config.fullatt_block_indexes);
  const patches = qwenPatches(inputs.pixels!, config, prefix, w, false);
  let x = gather(reshape(patches, [mulDim(b, n), d]), amongAll(inputs.order!, b, n));
  for (let i = 0; i < config.depth; i++)
    x = scope(`vision.layers.${i}`, () => {
      const block = `${prefix}blocks.${i}`;
      const y = norm(`blocks.${i}.norm1`, x);
      const middle = add(x, full.has(i) ? whole(y, block, w) : within(y, block, w, windows));
      const z = norm(`blocks.${i}.norm2`, middle);
      const gated = mul(act(linear(w, `${block}.mlp.gate_proj`, z, d, width)), linear(w, `${block}.mlp.up_proj`, z, d, width));
      return sites.site(`vision.layers.${i}.out`, add(middle, linear(w, `${block}.mlp.down_proj`, gated, width, d)));
    });
  return gather(reshape(x, [mulDim(b, v), each * d]), amongAll(inputs.tokens!, b, v));
}

function windowParts(inputs: Readonly<Record<string, Node>>, b: Dim, n: Dim): Parts {
  const given = inputs['windows.rows']!;
  const [, count, room] = given.shape as [Dim, Dim, Dim];
  const parts = mulDim(b, count);
  const rows = reshape(amongAll(given, b, n), [parts, room]);
  const back = amongAll(inputs['windows.back']!, b, mulDim(count, room));
  return {
    rows,
    bias: reshape(inputs['windows.bias']!, [parts, 1, 1, room]),
    gathered: (x) => gather(reshape(x, [mulDim(b, n), x.dim(2)]), rows),
    back: (x) => gather(reshape(x, [mulDim(parts, room), x.dim(2)]), back),
  };
}

/** Visual tokens [b, v, out] of joined patches [b, v, 4 d]: each patch is normalised, then a feed-forward. */
export function qwen25Merger(features: Node, config: Qwen25VisionConfig, prefix: string, w: Weights): Node {
  const { hidden_size: d, out_hidden_size: out } = config;
  const [b, v] = features.shape as [Dim, Dim];
  const [each, wide] = [perToken(config), perToken(config) * d];
  const scale = w.get(`${prefix}merger.ln_q.weight`, [d]);
  const normal = reshape(rmsNorm(reshape(features, [b, v, each, d]), scale, EPSILON), [b, v, wide]);
  const hidden = activations.gelu(linear(w, `${prefix}merger.mlp.0`, normal, wide, wide));
  return linear(w, `${prefix}merger.mlp.2`, hidden, wide, out);
}
