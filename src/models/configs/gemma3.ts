/** config.json of Gemma 3, with the defaults of transformers' Gemma3Config. */
import { z } from 'zod';
import { activation, exactly, flag, id, ids, layerCount, positive, width } from '../../files/config.ts';
import { type Layout, renameBy } from './layout.ts';
import { longestText } from './llama.ts';
import { gatherRope, ropeFields, ropeOf } from './rope.ts';
import { siglipVisionConfig } from './siglip.ts';

const POSITIONS = 131072;
const layerTypes = ['sliding_attention', 'full_attention'] as const;

/** How the layers of one type turn positions. */
const ropeConfig = z.preprocess(
  gatherRope({ max_position_embeddings: POSITIONS }),
  z
    .looseObject(ropeFields)
    .transform((config) => ({ theta: config.rope_theta, scaling: ropeOf(config) }))
    .refine(({ scaling }) => scaling.rope_type !== 'longrope', 'longrope is not computed in this decoder'),
);

type Raw = Readonly<Record<string, unknown>>;
const asRecord = (value: unknown): Raw =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Raw) : {};

/**
 * What a file says of the layers' types and positions, by type. Before transformers 5 settings of the layers that see all stand in `rope_theta` and
 * `rope_scaling`, those of the others in `rope_local_base_freq`; before 4.53 every n-th layer sees all.
 */
function gatherLayers(config: unknown): unknown {
  const { rope_parameters, rope_scaling, rope_theta, rope_local_base_freq, sliding_window_pattern, ...rest } = asRecord(config);
  const given = asRecord(rope_parameters);
  const other = Object.keys(given).find((name) => !(layerTypes as readonly string[]).includes(name));
  const length = rest.max_position_embeddings;
  const layers = typeof rest.num_hidden_layers === 'number' ? Math.min(rest.num_hidden_layers, 1024) : LAYERS;
  const pattern = Number(sliding_window_pattern ?? 6);
  return {
    ...rest,
    layer_types:
      rest.layer_types ??
      Array.from({ length: layers }, (_, i) => ((i + 1) % pattern === 0 ? 'full_attention' : 'sliding_attention')),
    rope: {
      ...(other === undefined ? {} : { [other]: given[other] }),
      full_attention: {
        max_position_embeddings: length,
        rope_theta: rope_theta ?? 1e6,
        rope_parameters: { ...asRecord(given.full_attention), ...asRecord(rope_scaling) },
      },
      sliding_attention: {
        max_position_embeddings: length,
        rope_theta: rope_local_base_freq ?? 1e4,
        rope_parameters: asRecord(given.sliding_attention),
      },
    },
  };
}

const LAYERS = 26;

/** Gemma3TextConfig. Its limits of scores and logits (`…_softcapping`) act in the reference's text models only. */
export const gemma3TextConfig = z.preprocess(
  gatherLayers,
  z
    .looseObject({
      model_type: exactly('gemma3_text', 'the decoder of a Gemma 3'),
      vocab_size: width.default(262208),
      hidden_size: width.default(2304),
      intermediate_size: width.default(9216),
      num_hidden_layers: layerCount.default(LAYERS),
      num_attention_heads: width.default(8),
      num_key_value_heads: width.default(4),
      head_dim: width.default(256),
      hidden_activation: activation.default('gelu_pytorch_tanh'),
      max_position_embeddings: width.default(POSITIONS),
      rms_norm_eps: positive.default(1e-6),
      query_pre_attn_scalar: positive.default(256),
      sliding_window: width.default(4096),
      layer_types: z.array(z.enum(layerTypes, 'expected "sliding_attention" or "full_attention"')),
      rope: z.strictObject({ full_attention: ropeConfig, sliding_attention: ropeConfig }),
      attention_bias: flag(false),
      use_bidirectional_attention: exactly(false, 'a decoder whose words see what stands behind them does not answer'),
      tie_word_embeddings: flag(true),
      eos_token_id: ids.transform((list) => (list.length > 0 ? list : [1])),
    })
    .transform((config) => ({
      ...config,
      max_position_embeddings: longestText(config.max_position_embeddings, config.head_dim),
    }))
    .refine((config) => config.num_attention_heads % config.num_key_value_heads === 0, {
      path: ['num_key_value_heads'],
      message: 'must divide num_attention_heads',
    })
    .refine(({ head_dim }) => head_dim % 2 === 0, {
      path: ['head_dim'],
      message: 'must be even: rotary positions turn pairs of numbers',
    })
    .refine((config) => config.layer_types.length === config.num_hidden_layers, {
      path: ['layer_types'],
      message: 'expected one type for each of num_hidden_layers',
    }),
);
export type Gemma3TextConfig = z.output<typeof gemma3TextConfig>;

/** Gemma3Config */
export const gemma3Config = z
  .looseObject({
    model_type: z.literal('gemma3', 'expected "gemma3"'),
    image_token_index: id.nullish(),
    /** the same, as newer files may name it */
    image_token_id: id.nullish(),
    boi_token_index: id.default(255999),
    eoi_token_index: id.default(256000),
    mm_tokens_per_image: width.default(256),
    tie_word_embeddings: flag(true),
    eos_token_id: ids,
    text_config: gemma3TextConfig.prefault({}),
    vision_config: siglipVisionConfig().prefault({}),
  })
  .transform(({ image_token_id, ...config }) => ({
    ...config,
    image_token_index: config.image_token_index ?? image_token_id ?? 262144,
  }))
  .superRefine(({ mm_tokens_per_image: tokens, vision_config: { image_size, patch_size } }, context) => {
    const [side, patches] = [Math.floor(Math.sqrt(tokens)), Math.floor(image_size / patch_size)];
    const pooled = Math.floor(patches / side);
    if (pooled === 0 || side * side !== tokens || Math.floor(patches / pooled) !== side)
      context.addIssue({
        code: 'custom',
        path: ['mm_tokens_per_image'],
        message: `expected the square of a number that the ${patches} patches on a side can be pooled to, but it is ${tokens}`,
      });
  });
export type Gemma3Config = z.output<typeof gemma3Config>;

/** Saved by transformers up to 4.51; later versions put `model.` before the parts, and those made by version 5 have no `vision_model.`. */
export const gemma3Layout: Layout<Gemma3Config> = {
  schema: gemma3Config,
  rename: renameBy([
    [/^model\.(?=(language_model|vision_tower|multi_modal_projector)\.)/, ''],
    [/^(?=lm_head\.)/, 'language_model.'],
    [/^language_model\.(?=(layers|embed_tokens|norm)\.)/, 'language_model.model.'],
    [/^vision_tower\.(?!vision_model\.)/, 'vision_tower.vision_model.'],
  ]),
  layers: ({ text_config, vision_config }) => [
    { prefix: 'language_model.model.layers.', field: 'text_config.num_hidden_layers', count: text_config.num_hidden_layers },
    {
      prefix: 'vision_tower.vision_model.encoder.layers.',
      field: 'vision_config.num_hidden_layers',
      count: vision_config.num_hidden_layers,
    },
  ],
};
