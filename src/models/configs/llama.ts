/** config.json of a LLaMA decoder, with the defaults of transformers' LlamaConfig. */
import { z } from 'zod';
import { activation, exactly, flag, headsDivideWidth, id, ids, layerCount, positive, width } from '../../files/config.ts';
import { gatherRope, ropeFields, ropeOf } from './rope.ts';

/**
 * Longest text of a decoder that could read longer ones: its tables of positions, which every program holds, have at most this many numbers.
 * 32,768 tokens of heads of 128.
 */
const TABLE = 2 ** 22;
/** Texts of this length are always read, by heads that are not too wide for it. */
const LEAST_POSITIONS = 8192;
const MAX_TABLE = 2 ** 23;

const POSITIONS = 2048;

/** LlamaConfig */
export const llamaConfig = z.preprocess(
  gatherRope({ max_position_embeddings: POSITIONS }),
  z
    .looseObject({
      model_type: exactly('llama', 'a LLaMA decoder'),
      vocab_size: width.default(32000),
      hidden_size: width.default(4096),
      intermediate_size: width.default(11008),
      num_hidden_layers: layerCount.default(32),
      num_attention_heads: width.default(32),
      num_key_value_heads: width.nullish(),
      hidden_act: activation.default('silu'),
      max_position_embeddings: width.default(POSITIONS),
      rms_norm_eps: positive.default(1e-6),
      ...ropeFields,
      head_dim: width.nullish(),
      tie_word_embeddings: flag(false),
      attention_bias: flag(false),
      mlp_bias: flag(false),
      bos_token_id: id.nullish().transform((value) => value ?? 1),
      eos_token_id: ids.transform((list) => (list.length > 0 ? list : [2])),
      pad_token_id: id.nullish(),
    })
    .superRefine((config, context) => {
      if (config.head_dim == null) headsDivideWidth(config, context);
    })
    .transform((config) => ({ ...config, head_dim: config.head_dim ?? config.hidden_size / config.num_attention_heads }))
    .transform((config) => {
      const { rope_parameters: _, ...rest } = config;
      const scaling = ropeOf(config);
      return {
        ...rest,
        num_key_value_heads: config.num_key_value_heads ?? config.num_attention_heads,
        rope_scaling: scaling,
        max_position_embeddings: Math.min(
          config.max_position_embeddings,
          Math.max(LEAST_POSITIONS, Math.floor(TABLE / config.head_dim)),
          // Longer texts would turn all their tokens by the long factors.
          scaling.rope_type === 'longrope' ? scaling.original_max_position_embeddings : Number.POSITIVE_INFINITY,
        ),
      };
    })
    .refine((config) => config.num_attention_heads % config.num_key_value_heads === 0, {
      path: ['num_key_value_heads'],
      message: 'must divide num_attention_heads',
    })
    .refine(({ head_dim }) => head_dim % 2 === 0, {
      path: ['num_attention_heads'],
      message:
        'the width of a head (head_dim, or hidden_size / num_attention_heads) must be even: rotary positions turn pairs of numbers',
    })
    .refine(
      ({ rope_scaling: scaling, head_dim }) =>
        scaling.rope_type !== 'longrope' ||
        [scaling.short_factor, scaling.long_factor].every((list) => list.length === head_dim / 2),
      { path: ['rope_parameters'], message: 'short_factor and long_factor need one number per pair of a head' },
    )
    .refine((config) => config.max_position_embeddings * config.head_dim <= MAX_TABLE, {
      path: ['max_position_embeddings'],
      message: `rotary positions of that many tokens and heads that wide take more than ${MAX_TABLE} numbers`,
    }),
);
export type LlamaConfig = z.output<typeof llamaConfig>;
