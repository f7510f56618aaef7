/**
 * The decoder of Gemma 3 (Gemma Team 2025; reference: transformers 5.24 `modeling_gemma3.py`): four RMSNorms a layer, whose weights are stored minus
 * one, embeddings times √d, queries and keys normalised per head, layers that see a window and layers that see all, each kind with rotary positions of
 * its own. Tokens of one picture see each other in both directions.
 * h[l] = h[l-1] + a[l] + m[l] (VisEdit Eq. 1), with a = norm(attention(norm(h))), m = norm(mlp(norm(h + a))).
 */

import { add, expand, gather, matmul, mul, type Node, reshape, rmsNorm, scope } from '../graph/index.ts';
import { activations } from '../nn/activations.ts';
import { attend, attendRuns, linear, mergeHeads, splitHeads } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import type { Decoder, LayerContext } from './architecture.ts';
import type { Gemma3TextConfig } from './configs/gemma3.ts';
import { rotation } from './rotary.ts';
import { biasOf } from './sight.ts';

/** RMSNorm whose weight is stored minus one. */
export const gemmaNorm = (w: Weights, name: string, x: Node, width: number, epsilon: number): Node =>
  rmsNorm(x, add(w.get(name, [width]), 1), epsilon);

/** @param prefix of the weight names, such as `language_model.` */
export function gemma3Decoder(config: Gemma3TextConfig, prefix: string): Decoder {
  const { hidden_size: d, intermediate_size: wide, num_attention_heads: heads, num_key_value_heads: keyHeads } = config;
  const { head_dim: k, vocab_size: vocabulary, layer_types: types, attention_bias: biased, rms_norm_eps: epsilon } = config;
  const scale = config.query_pre_attn_scalar ** -0.5;
  const act = activations[config.hidden_activation];
  const rotationOf = ({ theta, scaling }: Gemma3TextConfig['rope']['full_attention']) =>
    rotation(config.max_position_embeddings, k, theta, scaling);
  const turning = {
    full_attention: rotationOf(config.rope.full_attention),
    sliding_attention: rotationOf(config.rope.sliding_attention),
  };
  const sight = {
    windows: types.map((type) => (type === 'sliding_attention' ? config.sliding_window : Number.POSITIVE_INFINITY)),
    wholePictures: true,
  };
  const at = (i: number, name: string): string => `${prefix}model.layers.${i}.${name}`;
  const norm = (w: Weights, name: string, x: Node, width = d): Node => gemmaNorm(w, `${name}.weight`, x, width, epsilon);
  const embedding = (w: Weights): Node => w.get(`${prefix}model.embed_tokens.weight`, [vocabulary, d]);

  /** Each key head serves heads / keyHeads query heads. */
  const repeat = (x: Node): Node => {
    if (keyHeads === heads) return x;
    const [b, g, l] = x.shape as [string, number, string];
    return reshape(expand(reshape(x, [b, g, 1, l, k]), [b, g, heads / keyHeads, l, k]), [b, heads, l, k]);
  };

  const project: Decoder['project'] = (i, x, positions, w) => {
    const turn = turning[types[i]!](positions);
    const part = (name: string, count: number): Node =>
      splitHeads(linear(w, at(i, `self_attn.${name}_proj`), x, d, count * k, biased), count);
    const normal = (name: string, count: number): Node => norm(w, at(i, `self_attn.${name}_norm`), part(name, count), k);
    return { query: turn(normal('q', heads)), key: turn(normal('k', keyHeads)), value: part('v', keyHeads) };
  };
  const down: Decoder['down'] = (i, x, w) => linear(w, at(i, 'mlp.down_proj'), x, wide, d, false);
  const output: Decoder['output'] = (i, x, w) => linear(w, at(i, 'self_attn.o_proj'), x, heads * k, d, biased);
  const afterAttention = (i: number, x: Node, w: Weights): Node => norm(w, at(i, 'post_attention_layernorm'), x);

  const attention = (i: number, x: Node, { weights: w, sites, positions, bias, past }: LayerContext): Node => {
    const { query, key, value } = project(i, x, positions, w);
    sites.site(`layers.${i}.attn.key`, key);
    sites.site(`layers.${i}.attn.value`, value);
    const runs = [...(past?.(i) ?? []), { key, value }].map((run) => ({ key: repeat(run.key), value: repeat(run.value) }));
    const [only] = runs;
    const own = biasOf({ sight }, i, bias);
    const seen = runs.length > 1 ? attendRuns(query, runs, scale, own) : attend(query, only!.key, only!.value, scale, own);
    return output(i, mergeHeads(seen), w);
  };

  return {
    layers: config.num_hidden_layers,
    hidden: d,
    heads,
    keyHeads,
    headWidth: k,
    vocabulary,
    maxPositions: config.max_position_embeddings,
    sight,
    normsKeys: true,
    scale,
    embed: (ids, w) => mul(gather(embedding(w), ids), Math.sqrt(d)),
    enter: (embeddings) => embeddings,
    attention,
    afterAttention,
    project: (i, x, positions, w) => {
      const { query, key, value } = project(i, x, positions, w);
      return { query, key: repeat(key), value: repeat(value) };
    },
    output,
    down,
    layer: (i, x, context) =>
      scope(`layers.${i}`, () => {
        const { weights: w, sites } = context;
        const input = sites.site(`layers.${i}.attn.in`, norm(w, at(i, 'input_layernorm'), x));
        const a = sites.site(`layers.${i}.attn.out`, afterAttention(i, attention(i, input, context), w));
        const middle = add(x, a);
        const y = sites.site(`layers.${i}.mlp.in`, norm(w, at(i, 'pre_feedforward_layernorm'), middle));
        const gated = mul(
          act(linear(w, at(i, 'mlp.gate_proj'), y, d, wide, false)),
          linear(w, at(i, 'mlp.up_proj'), y, d, wide, false),
        );
        const z = down(i, sites.site(`layers.${i}.mlp.neurons`, gated), w);
        const out = norm(w, at(i, 'post_feedforward_layernorm'), z);
        return sites.site(`layers.${i}.out`, add(middle, sites.site(`layers.${i}.mlp.out`, out)));
      }),
    head: (x, w) => {
      const normal = norm(w, `${prefix}model.norm`, x);
      const table = config.tie_word_embeddings ? embedding(w) : w.get(`${prefix}lm_head.weight`, [vocabulary, d]);
      return matmul(normal, table, false, true);
    },
  };
}
