/**
 * LLaMA (Touvron et al. 2023; references: transformers 4.43 `modeling_llama.py`, `modeling_rope_utils.py`): RMSNorm, rotary positions, SwiGLU,
 * grouped key heads. Qwen2 (biases of queries, keys and values) and Qwen3 (queries and keys normalised per head), alone and with the three position
 * axes of Qwen's vision-LLMs, are options (transformers 5.24, `modeling_qwen2.py`, `modeling_qwen3.py`).
 * h[l] = h[l-1] + a[l] + m[l] (VisEdit Eq. 1), with a = attention(norm(h)), m = mlp(norm(h + a)).
 */

import { add, expand, gather, matmul, mul, type Node, reshape, rmsNorm, scope } from '../graph/index.ts';
import { activations } from '../nn/activations.ts';
import { attend, attendRuns, linear, mergeHeads, splitHeads } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import type { Decoder, LayerContext } from './architecture.ts';
import type { LlamaConfig as FileConfig } from './configs/llama.ts';
import type { RopeScaling } from './configs/rope.ts';
import { axialRotation, type RotarySections, type Rotation, rotaryFrequencies, rotation, sectionAxis } from './rotary.ts';

/** Sizes and options of a LLaMA decoder, as its configuration names them. */
export type LlamaConfig = Pick<
  FileConfig,
  | 'hidden_size'
  | 'intermediate_size'
  | 'num_hidden_layers'
  | 'num_attention_heads'
  | 'num_key_value_heads'
  | 'vocab_size'
  | 'hidden_act'
  | 'rms_norm_eps'
  | 'rope_theta'
  | 'max_position_embeddings'
  | 'tie_word_embeddings'
  | 'attention_bias'
  | 'mlp_bias'
> & {
  head_dim?: number | null | undefined;
  rope_scaling?: RopeScaling | null | undefined;
  /** of queries, keys and values alone; as `attention_bias` when left out */
  qkv_bias?: boolean | undefined;
  /** RMSNorm of the queries and keys of each head, before positions are applied */
  qk_norm?: boolean | undefined;
  /** given: a position has this many axes */
  rope_sections?: RotarySections | undefined;
};

/** Where a decoder's weights stand among those of its model. */
export interface DecoderNames {
  /** before `layers.0…`, `embed_tokens` and `norm`, such as `model.language_model.` */
  readonly model: string;
  /** of the head, such as `lm_head` */
  readonly head: string;
}

/**
 * A LLaMA as a decoder.
 * @param names where its weights stand; a text such as `language_model.` means `language_model.model.layers…` and `language_model.lm_head`
 */
export function llama(config: LlamaConfig, names: string | DecoderNames): Decoder {
  const { model, head } = typeof names === 'string' ? { model: `${names}model.`, head: `${names}lm_head` } : names;
  const { hidden_size: d, num_attention_heads: heads, num_key_value_heads: keyHeads, vocab_size: vocabulary } = config;
  const k = config.head_dim ?? d / heads;
  const scale = 1 / Math.sqrt(k);
  const { attention_bias: biased, mlp_bias: mlpBiased, rope_sections: sections } = config;
  const { qkv_bias: projectionsBiased = biased, qk_norm: normed = false } = config;
  const act = activations[config.hidden_act];
  const scaling = config.rope_scaling ?? undefined;
  const turning =
    sections === undefined
      ? rotation(config.max_position_embeddings, k, config.rope_theta, scaling)
      : axialRotation(sections.sections.length, sectionAxis(sections), rotaryFrequencies(k, config.rope_theta, scaling));
  const at = (i: number, name: string): string => `${model}layers.${i}.${name}`;
  const norm = (w: Weights, name: string, x: Node, width = d): Node => rmsNorm(x, w.get(name, [width]), config.rms_norm_eps);
  const embedding = (w: Weights): Node => w.get(`${model}embed_tokens.weight`, [vocabulary, d]);

  /** Each key head serves heads / keyHeads query heads. */
  const repeat = (x: Node): Node => {
    if (keyHeads === heads) return x;
    const [b, g, l] = x.shape as [string, number, string];
    return reshape(expand(reshape(x, [b, g, 1, l, k]), [b, g, heads / keyHeads, l, k]), [b, heads, l, k]);
  };

  /** The heads of one projection [b, h, l, k]; of queries and keys before positions are applied. */
  const headsOf = (i: number, of: 'q' | 'k' | 'v', x: Node, w: Weights): Node => {
    const count = of === 'q' ? heads : keyHeads;
    const split = splitHeads(linear(w, at(i, `self_attn.${of}_proj`), x, d, count * k, projectionsBiased), count);
    return normed && of !== 'v' ? norm(w, at(i, `self_attn.${of}_norm.weight`), split, k) : split;
  };
  const project: Decoder['project'] = (i, x, positions, w) => {
    const turn: Rotation = turning(positions);
    return { query: turn(headsOf(i, 'q', x, w)), key: turn(headsOf(i, 'k', x, w)), value: headsOf(i, 'v', x, w) };
  };
  const down: Decoder['down'] = (i, x, w) => linear(w, at(i, 'mlp.down_proj'), x, config.intermediate_size, d, mlpBiased);
  const output: Decoder['output'] = (i, x, w) => linear(w, at(i, 'self_attn.o_proj'), x, heads * k, d, biased);

  const attention = (i: number, x: Node, { weights: w, sites, positions, bias, blocks, past }: LayerContext): Node => {
    const { query, key, value } = project(i, x, positions, w);
    sites.site(`layers.${i}.attn.key`, key);
    sites.site(`layers.${i}.attn.value`, value);
    const runs = [...(past?.(i) ?? []), { key, value }].map((run) => ({ key: repeat(run.key), value: repeat(run.value) }));
    const [only] = runs;
    const seen =
      runs.length > 1 ? attendRuns(query, runs, scale, bias) : attend(query, only!.key, only!.value, scale, bias, blocks);
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
    ...(sections === undefined ? {} : { positionAxes: sections.sections.length }),
    ...(normed ? { normsKeys: true } : {}),
    scale,
    embed: (ids, w) => gather(embedding(w), ids),
    enter: (embeddings) => embeddings,
    attention,
    project: (i, x, positions, w) => {
      const { query, key, value } = project(i, x, positions, w);
      return { query, key: repeat(key), value: repeat(value) };
    },
    output,
    down,
    layer: (i, x, context) =>
      scope(`layers.${i}`, () => {
        const { weights: w, sites } = context;
        const input = sites.site(`layers.${i}.attn.in`, norm(w, at(i, 'input_layernorm.weight'), x));
        const a = sites.site(`layers.${i}.attn.out`, attention(i, input, context));
        const middle = add(x, a);
        const y = sites.site(`layers.${i}.mlp.in`, norm(w, at(i, 'post_attention_layernorm.weight'), middle));
        const width = config.intermediate_size;
        const gated = mul(
          act(linear(w, at(i, 'mlp.gate_proj'), y, d, width, mlpBiased)),
          linear(w, at(i, 'mlp.up_proj'), y, d, width, mlpBiased),
        );
        const m = sites.site(`layers.${i}.mlp.out`, down(i, sites.site(`layers.${i}.mlp.neurons`, gated), w));
        return sites.site(`layers.${i}.out`, add(middle, m));
      }),
    head: (x, w) => {
      const normal = norm(w, `${model}norm.weight`, x);
      const table = config.tie_word_embeddings ? embedding(w) : w.get(`${head}.weight`, [vocabulary, d]);
      return matmul(normal, table, false, true);
    },
  };
}
