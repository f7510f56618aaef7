/** config.json of BLIP-2 and its parts, with the defaults of transformers' Blip2Config. */
import { z } from 'zod';
import { activation, exactly, flag, headsDivideWidth, holdsAPatch, id, layerCount, positive, width } from '../../files/config.ts';
import { type Layout, renameBy } from './layout.ts';
import { optConfig } from './opt.ts';

/** Blip2VisionConfig: EVA ViT-g */
export const blip2VisionConfig = z
  .looseObject({
    model_type: exactly('blip_2_vision_model', 'an EVA image encoder'),
    hidden_size: width.default(1408),
    intermediate_size: width.default(6144),
    num_hidden_layers: layerCount.default(39),
    num_attention_heads: width.default(16),
    image_size: width.default(224),
    patch_size: width.default(14),
    hidden_act: activation.default('gelu'),
    layer_norm_eps: positive.default(1e-6),
    qkv_bias: flag(true),
  })
  .superRefine(headsDivideWidth)
  .superRefine(holdsAPatch);
export type Blip2VisionConfig = z.output<typeof blip2VisionConfig>;

/** Blip2QFormerConfig */
export const qFormerConfig = z
  .looseObject({
    hidden_size: width.default(768),
    intermediate_size: width.default(3072),
    num_hidden_layers: layerCount.default(12),
    num_attention_heads: width.default(12),
    hidden_act: activation.default('gelu'),
    layer_norm_eps: positive.default(1e-12),
    position_embedding_type: exactly('absolute', 'relative positions change the attention'),
    cross_attention_frequency: width.default(2),
    encoder_hidden_size: width.default(1408),
  })
  .superRefine(headsDivideWidth);
export type QFormerConfig = z.output<typeof qFormerConfig>;

/** Blip2Config with a decoder-only language model */
export const blip2Config = z.looseObject({
  model_type: z.literal('blip-2', 'expected "blip-2"'),
  num_query_tokens: width.default(32),
  /** of the placeholder in files since transformers 4.46 */
  image_token_index: id.nullish(),
  use_decoder_only_language_model: exactly(true, 'encoder-decoder language models are not'),
  text_config: optConfig.prefault({}),
  vision_config: blip2VisionConfig.prefault({}),
  qformer_config: qFormerConfig.prefault({}),
});
export type Blip2Config = z.output<typeof blip2Config>;

/** transformers 5.5 gives the Q-Former's norms the names that they had in TensorFlow. */
export const blip2Layout: Layout<Blip2Config> = {
  schema: blip2Config,
  rename: renameBy([
    [/^model\.(?=(language_model|vision_model|qformer|language_projection|query_tokens)\b)/, ''],
    [/^(?=lm_head\.)/, 'language_model.'],
    [/^language_model\.(?=decoder\.)/, 'language_model.model.'],
    [/(?<=\bLayerNorm\.)gamma$/, 'weight'],
    [/(?<=\bLayerNorm\.)beta$/, 'bias'],
  ]),
  layers: ({ text_config, vision_config, qformer_config }) => [
    {
      prefix: 'language_model.model.decoder.layers.',
      field: 'text_config.num_hidden_layers',
      count: text_config.num_hidden_layers,
    },
    { prefix: 'vision_model.encoder.layers.', field: 'vision_config.num_hidden_layers', count: vision_config.num_hidden_layers },
    { prefix: 'qformer.encoder.layer.', field: 'qformer_config.num_hidden_layers', count: qformer_config.num_hidden_layers },
  ],
};
