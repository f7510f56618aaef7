/**
 * The image encoder of BLIP-2 and MiniGPT-4: EVA's ViT (Fang et al. 2022; references: transformers 4.43 `modeling_blip_2.py`, LAVIS
 * `eva_vit.py`). Class token, learned positions, pre-norm blocks, queries, keys and values from one fused weight. No norm at the end.
 */

import { add, concat, expand, layerNorm, matmul, mul, type Node, scope, slice } from '../graph/index.ts';
import { activations } from '../nn/activations.ts';
import { attend, linear, mergeHeads, splitHeads } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import { patchEmbedding, patchesOf } from './clip-vit.ts';
import type { Blip2VisionConfig } from './configs/blip2.ts';
import type { Sites } from './sites.ts';

/** What a published file calls the parts of the encoder. */
export interface VitNames {
  classToken: string;
  /** `.weight` and `.bias` of the patch convolution */
  patch: string;
  positions: string;
  block(i: number): string;
  norm1: string;
  norm2: string;
  qkv: string;
  projection: string;
  /** bias [3 d] of the fused queries, keys and values of a block */
  qkvBias(w: Weights, block: string, d: number): Node;
}

export const blip2VitNames: VitNames = {
  classToken: 'vision_model.embeddings.class_embedding',
  patch: 'vision_model.embeddings.patch_embedding',
  positions: 'vision_model.embeddings.position_embedding',
  block: (i) => `vision_model.encoder.layers.${i}`,
  norm1: 'layer_norm1',
  norm2: 'layer_norm2',
  qkv: 'self_attn.qkv',
  projection: 'self_attn.projection',
  qkvBias: (w, block, d) => w.get(`${block}.self_attn.qkv.bias`, [3 * d]),
};

export const evaVitNames: VitNames = {
  classToken: 'visual_encoder.cls_token',
  patch: 'visual_encoder.patch_embed.proj',
  positions: 'visual_encoder.pos_embed',
  block: (i) => `visual_encoder.blocks.${i}`,
  norm1: 'norm1',
  norm2: 'norm2',
  qkv: 'attn.qkv',
  projection: 'attn.proj',
  // Queries and values have a bias, keys have none.
  qkvBias: (w, block, d) => {
    const query = w.get(`${block}.attn.q_bias`, [d]);
    return concat([query, mul(query, 0), w.get(`${block}.attn.v_bias`, [d])], 0);
  },
};

/** Hidden states of all blocks' end, class token first: pixels [b, 3, H, W] -> [b, 1 + v, d]. Declares `vision.layers.{i}.out`. */
export function blipVit(pixels: Node, config: Blip2VisionConfig, names: VitNames, w: Weights, sites: Sites): Node {
  const { hidden_size: d, intermediate_size: width, num_attention_heads: heads, patch_size: patch, image_size: size } = config;
  const tokens = 1 + patchesOf(size, patch) ** 2;
  const b = pixels.dim(0);
  const act = activations[config.hidden_act];
  const norm = (name: string, x: Node): Node =>
    layerNorm(x, w.get(`${name}.weight`, [d]), w.get(`${name}.bias`, [d]), config.layer_norm_eps);
  const kernel = w.get(`${names.patch}.weight`, [d, 3, patch, patch]);
  const patches = add(patchEmbedding(pixels, kernel, patch), w.get(`${names.patch}.bias`, [d]));
  const first = expand(w.get(names.classToken, [1, 1, d]), [b, 1, d]);
  let x = add(concat([first, patches], 1), w.get(names.positions, [1, tokens, d]));
  for (let i = 0; i < config.num_hidden_layers; i++) {
    x = scope(`vision.layers.${i}`, () => {
      const at = names.block(i);
      const fused = matmul(norm(`${at}.${names.norm1}`, x), w.get(`${at}.${names.qkv}.weight`, [3 * d, d]), false, true);
      const qkv = config.qkv_bias ? add(fused, names.qkvBias(w, at, d)) : fused;
      const part = (n: number): Node => splitHeads(slice(qkv, 2, n * d, (n + 1) * d), heads);
      const a = mergeHeads(attend(part(0), part(1), part(2), (d / heads) ** -0.5));
      const middle = add(x, linear(w, `${at}.${names.projection}`, a, d, d));
      const z = act(linear(w, `${at}.mlp.fc1`, norm(`${at}.${names.norm2}`, middle), d, width));
      return sites.site(`vision.layers.${i}.out`, add(middle, linear(w, `${at}.mlp.fc2`, z, width, d)));
    });
  }
  return x;
}
