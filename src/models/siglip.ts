/**
 * SigLIP vision transformer (Zhai et al. 2023; reference: transformers 5.24 `modeling_siglip.py`): no class token, learned positions, pre-norm blocks.
 */

import type { Activation } from '../files/config.ts';
import { add, attention, layerNorm, type Node, scope } from '../graph/index.ts';
import { activations } from '../nn/activations.ts';
import { linear } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import { patchEmbedding, patchesOf } from './clip-vit.ts';
import type { Sites } from './sites.ts';

/** Sizes of a SigLIP image encoder, as its configuration names them. */
export interface SiglipConfig {
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  image_size: number;
  patch_size: number;
  hidden_act: Activation;
  layer_norm_eps: number;
}

/**
 * Hidden states of square pictures [b, 3, s, s] -> [b, v, d], patches row by row. Declares `vision.layers.{i}.out`.
 * @param prefix of the weights' names, such as `vision_tower.vision_model.`
 * @param options.layers that run; default: all @param options.norm whether `post_layernorm` stands at the end
 */
export function siglip(
  pixels: Node,
  config: SiglipConfig,
  prefix: string,
  w: Weights,
  sites: Sites,
  { layers = config.num_hidden_layers, norm: normed = true }: { layers?: number; norm?: boolean } = {},
): Node {
  const { hidden_size: d, num_attention_heads: heads, patch_size: patch, image_size: size, intermediate_size: width } = config;
  const norm = (name: string, x: Node): Node =>
    layerNorm(x, w.get(`${prefix}${name}.weight`, [d]), w.get(`${prefix}${name}.bias`, [d]), config.layer_norm_eps);
  const act = activations[config.hidden_act];
  const kernel = `${prefix}embeddings.patch_embedding`;
  const patches = patchEmbedding(pixels, w.get(`${kernel}.weight`, [d, 3, patch, patch]), patch);
  const positions = w.get(`${prefix}embeddings.position_embedding.weight`, [patchesOf(size, patch) ** 2, d]);
  let x = add(add(patches, w.get(`${kernel}.bias`, [d])), positions);
  for (let i = 0; i < layers; i++) {
    x = scope(`vision.layers.${i}`, () => {
      const at = `encoder.layers.${i}`;
      const y = norm(`${at}.layer_norm1`, x);
      const [q, k, v] = ['q_proj', 'k_proj', 'v_proj'].map((n) => linear(w, `${prefix}${at}.self_attn.${n}`, y, d, d)) as [
        Node,
        Node,
        Node,
      ];
      const a = linear(w, `${prefix}${at}.self_attn.out_proj`, attention(q, k, v, heads, (d / heads) ** -0.5), d, d);
      const middle = add(x, a);
      const z = act(linear(w, `${prefix}${at}.mlp.fc1`, norm(`${at}.layer_norm2`, middle), d, width));
      return sites.site(`vision.layers.${i}.out`, add(middle, linear(w, `${prefix}${at}.mlp.fc2`, z, width, d)));
    });
  }
  return normed ? norm('post_layernorm', x) : x;
}
