/**
 * InternViT (Chen et al. 2024; reference: transformers 5.24 `modeling_internvl.py`): class token, learned positions, pre-norm blocks whose two
 * modules are each scaled by a learned vector, queries and keys normalised over their whole width in some sizes.
 */

import { add, attention, concat, expand, layerNorm, mul, type Node, rmsNorm, scope } from '../graph/index.ts';
import { activations } from '../nn/activations.ts';
import { linear } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import { patchEmbedding, patchesOf } from './clip-vit.ts';
import type { InternVitConfig } from './configs/internvl.ts';
import type { Sites } from './sites.ts';

/** Of the norms of queries and keys, whatever the other norms have. */
const QK_EPSILON = 1e-6;

/**
 * Hidden states after `layers` blocks, class token first: pixels [b, 3, s, s] -> [b, 1 + v, d]. Declares `vision.layers.{i}.out`.
 * @param prefix such as `vision_tower.`
 */
export function internVit(pixels: Node, config: InternVitConfig, layers: number, prefix: string, w: Weights, sites: Sites): Node {
  const { hidden_size: d, num_attention_heads: heads, patch_size: patch, image_size: size, intermediate_size: width } = config;
  const vector = (name: string): Node => w.get(`${prefix}${name}`, [d]);
  const norm = (name: string, x: Node): Node =>
    config.norm_type === 'rms_norm'
      ? rmsNorm(x, vector(`${name}.weight`), config.layer_norm_eps)
      : layerNorm(x, vector(`${name}.weight`), vector(`${name}.bias`), config.layer_norm_eps);
  const act = activations[config.hidden_act];
  const b = pixels.dim(0);
  const patches = add(
    patchEmbedding(pixels, w.get(`${prefix}embeddings.patch_embeddings.projection.weight`, [d, 3, patch, patch]), patch),
    vector('embeddings.patch_embeddings.projection.bias'),
  );
  const tokens = concat([expand(w.get(`${prefix}embeddings.cls_token`, [1, 1, d]), [b, 1, d]), patches], 1);
  const positions = `${prefix}embeddings.position_embeddings`;
  let x = config.use_absolute_position_embeddings
    ? add(tokens, w.get(positions, [1, 1 + patchesOf(size, patch) ** 2, d]))
    : tokens;
  for (let i = 0; i < layers; i++) {
    x = scope(`vision.layers.${i}`, () => {
      const at = `encoder.layer.${i}`;
      const y = norm(`${at}.layernorm_before`, x);
      const part = (name: string): Node => linear(w, `${prefix}${at}.attention.${name}_proj`, y, d, d, config.attention_bias);
      const normal = (name: string): Node =>
        config.use_qk_norm ? rmsNorm(part(name), vector(`${at}.attention.${name}_norm.weight`), QK_EPSILON) : part(name);
      const seen = attention(normal('q'), normal('k'), part('v'), heads, (d / heads) ** -0.5);
      const a = linear(w, `${prefix}${at}.attention.projection_layer`, seen, d, d);
      const middle = add(x, mul(a, vector(`${at}.lambda_1`)));
      const z = act(linear(w, `${prefix}${at}.mlp.fc1`, norm(`${at}.layernorm_after`, middle), d, width));
      const m = linear(w, `${prefix}${at}.mlp.fc2`, z, width, d);
      return sites.site(`vision.layers.${i}.out`, add(middle, mul(m, vector(`${at}.lambda_2`))));
    });
  }
  return x;
}
