/** CLIP vision transformer (Radford et al. 2021; reference: transformers 4.43 `modeling_clip.py`): class token, learned positions, pre-norm blocks. */

import type { Activation } from '../files/config.ts';
import type { Dim } from '../graph/dim.ts';
import { add, concat, expand, layerNorm, matmul, type Node, reshape, scope, slice, transpose } from '../graph/index.ts';
import { activations } from '../nn/activations.ts';
import { attend, linear, mergeHeads, splitHeads } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import type { Sites } from './sites.ts';

/** Sizes of a CLIP image encoder, as its configuration names them. */
export interface ClipVisionConfig {
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  image_size: number;
  patch_size: number;
  hidden_act: Activation;
  layer_norm_eps: number;
}

/** Patches on one side of a picture; what is left over is not read. */
export const patchesOf = (size: number, patch: number): number => Math.floor(size / patch);

/** Non-overlapping patches through a linear map: the convolution with stride = kernel. pixels [b, 3, H, W] -> [b, v, d]. */
export function patchEmbedding(pixels: Node, kernel: Node, patch: number): Node {
  const [b, channels, height, width] = pixels.shape as [Dim, number, number, number];
  const rows = patchesOf(height, patch);
  const columns = patchesOf(width, patch);
  const upTo = (x: Node, axis: number, size: number): Node => (x.dim(axis) === size ? x : slice(x, axis, 0, size));
  const whole = upTo(upTo(pixels, 2, rows * patch), 3, columns * patch);
  const cut = transpose(reshape(whole, [b, channels, rows, patch, columns, patch]), [0, 2, 4, 1, 3, 5]);
  const d = kernel.dim(0);
  return matmul(
    reshape(cut, [b, rows * columns, channels * patch * patch]),
    reshape(kernel, [d, channels * patch * patch]),
    false,
    true,
  );
}

/**
 * Hidden states after `layers` blocks, class token first: [b, 1 + v, d]. Declares `vision.layers.{i}.out`.
 * @param prefix such as `vision_tower.vision_model.`
 */
export function clipVit(pixels: Node, config: ClipVisionConfig, layers: number, prefix: string, w: Weights, sites: Sites): Node {
  const { hidden_size: d, num_attention_heads: heads, patch_size: patch, image_size: size, layer_norm_eps: eps } = config;
  const tokens = 1 + patchesOf(size, patch) ** 2;
  const b = pixels.dim(0);
  const norm = (name: string, x: Node): Node =>
    layerNorm(x, w.get(`${prefix}${name}.weight`, [d]), w.get(`${prefix}${name}.bias`, [d]), eps);
  const act = activations[config.hidden_act];
  const patches = patchEmbedding(pixels, w.get(`${prefix}embeddings.patch_embedding.weight`, [d, 3, patch, patch]), patch);
  const first = expand(reshape(w.get(`${prefix}embeddings.class_embedding`, [d]), [1, 1, d]), [b, 1, d]);
  let x = add(concat([first, patches], 1), w.get(`${prefix}embeddings.position_embedding.weight`, [tokens, d]));
  x = norm('pre_layrnorm', x);
  for (let i = 0; i < layers; i++) {
    x = scope(`vision.layers.${i}`, () => {
      const at = `encoder.layers.${i}`;
      const y = norm(`${at}.layer_norm1`, x);
      const [q, k, v] = ['q_proj', 'k_proj', 'v_proj'].map((n) =>
        splitHeads(linear(w, `${prefix}${at}.self_attn.${n}`, y, d, d), heads),
      ) as [Node, Node, Node];
      const a = linear(w, `${prefix}${at}.self_attn.out_proj`, mergeHeads(attend(q, k, v, (d / heads) ** -0.5)), d, d);
      const middle = add(x, a);
      const z = act(linear(w, `${prefix}${at}.mlp.fc1`, norm(`${at}.layer_norm2`, middle), d, config.intermediate_size));
      return sites.site(
        `vision.layers.${i}.out`,
        add(middle, linear(w, `${prefix}${at}.mlp.fc2`, z, config.intermediate_size, d)),
      );
    });
  }
  return x;
}

/** Drops the class token: [b, 1 + v, d] -> [b, v, d]. */
export const withoutClassToken = (x: Node): Node => slice(x, 1, 1, x.dim(1));
