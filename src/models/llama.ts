/**
 * LLaMA (Touvron et al. 2023; reference: transformers 4.43 `modeling_llama.py`): RMSNorm, rotary positions, SwiGLU, grouped key heads.
 * h[l] = h[l-1] + a[l] + m[l] (VisEdit Eq. 1), with a = attention(norm(h)), m = mlp(norm(h + a)).
 */

import { f32 } from '../graph/dtype.ts';
import {
  add,
  concat,
  constant,
  expand,
  gather,
  matmul,
  mul,
  type Node,
  reshape,
  rmsNorm,
  rotary,
  scope,
  silu,
} from '../graph/index.ts';
import { attend, linear, mergeHeads, splitHeads } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import type { Decoder, LayerContext } from './architecture.ts';

export interface LlamaConfig {
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads: number;
  vocab_size: number;
  rms_norm_eps: number;
  rope_theta: number;
  max_position_embeddings: number;
  tie_word_embeddings: boolean;
}

/** Rotary tables [positions, k/2], rounded to float32 where the reference rounds. */
export function rotaryTables(positions: number, width: number, theta: number): { cos: Node; sin: Node } {
  const half = width / 2;
  const cos = new Float32Array(positions * half);
  const sin = new Float32Array(positions * half);
  for (let j = 0; j < half; j++) {
    const inverse = Math.fround(1 / Math.fround(theta ** ((2 * j) / width)));
    for (let p = 0; p < positions; p++) {
      const angle = Math.fround(p * inverse);
      cos[p * half + j] = Math.cos(angle);
      sin[p * half + j] = Math.sin(angle);
    }
  }
  return { cos: constant(f32(cos, [positions, half])), sin: constant(f32(sin, [positions, half])) };
}

/** @param prefix of the weight names, such as `language_model.` */
export function llama(config: LlamaConfig, prefix: string): Decoder {
  const { hidden_size: d, num_attention_heads: heads, num_key_value_heads: keyHeads, vocab_size: vocabulary } = config;
  const k = d / heads;
  const scale = 1 / Math.sqrt(k);
  const tables = rotaryTables(config.max_position_embeddings, k, config.rope_theta);
  const at = (i: number, name: string): string => `${prefix}model.layers.${i}.${name}`;
  const norm = (w: Weights, name: string, x: Node): Node => rmsNorm(x, w.get(name, [d]), config.rms_norm_eps);
  const embedding = (w: Weights): Node => w.get(`${prefix}model.embed_tokens.weight`, [vocabulary, d]);

  /** Each key head serves heads / keyHeads query heads. */
  const repeat = (x: Node): Node => {
    if (keyHeads === heads) return x;
    const [b, g, l] = x.shape as [string, number, string];
    return reshape(expand(reshape(x, [b, g, 1, l, k]), [b, g, heads / keyHeads, l, k]), [b, heads, l, k]);
  };

  const project: Decoder['project'] = (i, x, positions, w) => ({
    query: rotary(
      splitHeads(linear(w, at(i, 'self_attn.q_proj'), x, d, heads * k, false), heads),
      positions,
      tables.cos,
      tables.sin,
    ),
    key: rotary(
      splitHeads(linear(w, at(i, 'self_attn.k_proj'), x, d, keyHeads * k, false), keyHeads),
      positions,
      tables.cos,
      tables.sin,
    ),
    value: splitHeads(linear(w, at(i, 'self_attn.v_proj'), x, d, keyHeads * k, false), keyHeads),
  });
  const output: Decoder['output'] = (i, x, w) => linear(w, at(i, 'self_attn.o_proj'), x, heads * k, d, false);

  const attention = (i: number, x: Node, { weights: w, sites, positions, bias, blocks, past }: LayerContext): Node => {
    let { query, key, value } = project(i, x, positions, w);
    if (past !== undefined) {
      const before = past(i);
      key = concat([before.key, key], 2);
      value = concat([before.value, value], 2);
    }
    sites.site(`layers.${i}.attn.key`, key);
    sites.site(`layers.${i}.attn.value`, value);
    return output(i, mergeHeads(attend(query, repeat(key), repeat(value), scale, bias, blocks)), w);
  };

  return {
    layers: config.num_hidden_layers,
    hidden: d,
    heads,
    keyHeads,
    headWidth: k,
    vocabulary,
    maxPositions: config.max_position_embeddings,
    scale,
    embed: (ids, w) => gather(embedding(w), ids),
    enter: (embeddings) => embeddings,
    attention,
    project: (i, x, positions, w) => {
      const { query, key, value } = project(i, x, positions, w);
      return { query, key: repeat(key), value: repeat(value) };
    },
    output,
    layer: (i, x, context) =>
      scope(`layers.${i}`, () => {
        const { weights: w, sites } = context;
        const input = sites.site(`layers.${i}.attn.in`, norm(w, at(i, 'input_layernorm.weight'), x));
        const a = sites.site(`layers.${i}.attn.out`, attention(i, input, context));
        const middle = add(x, a);
        const y = sites.site(`layers.${i}.mlp.in`, norm(w, at(i, 'post_attention_layernorm.weight'), middle));
        const width = config.intermediate_size;
        const gated = mul(
          silu(linear(w, at(i, 'mlp.gate_proj'), y, d, width, false)),
          linear(w, at(i, 'mlp.up_proj'), y, d, width, false),
        );
        const m = sites.site(`layers.${i}.mlp.out`, linear(w, at(i, 'mlp.down_proj'), gated, width, d, false));
        return sites.site(`layers.${i}.out`, add(middle, m));
      }),
    head: (x, w) => {
      const normal = norm(w, `${prefix}model.norm.weight`, x);
      const table = config.tie_word_embeddings ? embedding(w) : w.get(`${prefix}lm_head.weight`, [vocabulary, d]);
      return matmul(normal, table, false, true);
    },
  };
}
