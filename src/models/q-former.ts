/**
 * The Q-Former (Li et al. 2023, BLIP-2; references: transformers 4.43 `modeling_blip_2.py`, LAVIS `Qformer.py`): learned query tokens
 * through BERT layers with a norm after each module; every n-th layer also looks at the picture (cross-attention).
 */

import { add, concat, expand, layerNorm, matmul, mean, mul, type Node, reshape, scope, slice, softmax } from '../graph/index.ts';
import { activations } from '../nn/activations.ts';
import { linear, mergeHeads, splitHeads } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import type { QFormerConfig } from './configs/blip2.ts';
import type { Sites } from './sites.ts';

/** What a published file calls the parts. */
export interface QFormerNames {
  queries: string;
  /** the norm of the query tokens before the first layer */
  norm: string;
  layer(i: number): string;
  /** the module inside `attention` and `crossattention` that holds query, key and value */
  inner: string;
}

export const blip2QFormerNames: QFormerNames = {
  queries: 'query_tokens',
  norm: 'qformer.layernorm',
  layer: (i) => `qformer.encoder.layer.${i}`,
  inner: 'attention',
};

export const lavisQFormerNames: QFormerNames = {
  queries: 'query_tokens',
  norm: 'Qformer.bert.embeddings.LayerNorm',
  layer: (i) => `Qformer.bert.encoder.layer.${i}`,
  inner: 'self',
};

/** Layers that look at the picture. */
export const crossLayers = (config: QFormerConfig): number[] =>
  Array.from({ length: config.num_hidden_layers }, (_, i) => i).filter((i) => i % config.cross_attention_frequency === 0);

/**
 * Picture features [b, 1 + v, e] (class token first) -> query tokens [b, q, d]. Declares `qformer.layers.{i}.out`; in layers that look at
 * the picture `qformer.layers.{i}.cross.attn`, the probabilities [b, h, q, 1 + v]; and `qformer.map` [b, q, v]: their mean over heads and
 * layers at the patches, which says where on the picture a query token looks.
 */
export function qFormer(
  features: Node,
  config: QFormerConfig,
  queries: number,
  names: QFormerNames,
  w: Weights,
  sites: Sites,
): Node {
  const { hidden_size: d, encoder_hidden_size: e, intermediate_size: width, num_attention_heads: heads } = config;
  if (features.dim(-1) !== e)
    throw new Error(`the Q-Former reads picture features of width ${e}, the image encoder gives ${features.dim(-1)}`);
  const b = features.dim(0);
  const act = activations[config.hidden_act];
  const norm = (name: string, x: Node): Node =>
    layerNorm(x, w.get(`${name}.weight`, [d]), w.get(`${name}.bias`, [d]), config.layer_norm_eps);
  const maps: Node[] = [];

  const attention = (at: string, x: Node, source: Node, sourceWidth: number, site?: string): Node => {
    const query = splitHeads(linear(w, `${at}.${names.inner}.query`, x, d, d), heads);
    const key = splitHeads(linear(w, `${at}.${names.inner}.key`, source, sourceWidth, d), heads);
    const value = splitHeads(linear(w, `${at}.${names.inner}.value`, source, sourceWidth, d), heads);
    let p = softmax(matmul(mul(query, (d / heads) ** -0.5), key, false, true));
    if (site !== undefined) {
      p = sites.site(site, p);
      maps.push(p);
    }
    const mixed = linear(w, `${at}.output.dense`, mergeHeads(matmul(p, value)), d, d);
    return norm(`${at}.output.LayerNorm`, add(mixed, x));
  };

  const cross = new Set(crossLayers(config));
  let x = expand(norm(names.norm, w.get(names.queries, [1, queries, d])), [b, queries, d]);
  for (let i = 0; i < config.num_hidden_layers; i++) {
    x = scope(`qformer.layers.${i}`, () => {
      const at = names.layer(i);
      let y = attention(`${at}.attention`, x, x, d);
      if (cross.has(i)) y = attention(`${at}.crossattention`, y, features, e, `qformer.layers.${i}.cross.attn`);
      const z = linear(w, `${at}.output_query.dense`, act(linear(w, `${at}.intermediate_query.dense`, y, d, width)), width, d);
      return sites.site(`qformer.layers.${i}.out`, norm(`${at}.output_query.LayerNorm`, add(z, y)));
    });
  }
  sites.site('qformer.map', patchMap(maps));
  return x;
}

/** Probabilities of several layers, [b, h, q, 1 + v] each -> [b, q, v]: mean over layers and heads without the class token. */
function patchMap(maps: readonly Node[]): Node {
  const layers = maps.map((p) => mean(p, 1));
  const [b, q, patches] = layers[0]!.shape as [string, number, number];
  const stacked = concat(
    layers.map((p) => reshape(p, [b, 1, q, patches])),
    1,
  );
  return slice(mean(stacked, 1), 2, 1, patches);
}
