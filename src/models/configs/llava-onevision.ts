/** config.json of LLaVA-OneVision, with the defaults of transformers' LlavaOnevisionConfig. */
import { z } from 'zod';
import { activation, exactly, flag, id } from '../../files/config.ts';
import { type Layout, renameBy } from './layout.ts';
import { qwen2Config } from './llama.ts';
import { siglipVisionConfig } from './siglip.ts';

export const llavaOneVisionConfig = z
  .looseObject({
    model_type: z.literal('llava_onevision', 'expected "llava_onevision"'),
    image_token_index: id.nullish(),
    /** the same, as newer files name it */
    image_token_id: id.nullish(),
    multimodal_projector_bias: exactly(true, 'a projector without biases is not read'),
    projector_hidden_act: activation.default('gelu'),
    tie_word_embeddings: flag(false),
    /** tiles' worth of visual tokens that are kept */
    vision_aspect_ratio: z
      .string()
      .regex(/^anyres_max_[1-9]\d{0,2}$/, 'expected "anyres_max_" and a number')
      .default('anyres_max_9'),
    vision_feature_layer: z
      .union([z.int(), z.tuple([z.int()]).transform(([layer]) => layer)], 'expected the number of one layer')
      .default(-1),
    vision_feature_select_strategy: exactly('full', 'SigLIP has no class token that could be left out'),
    text_config: qwen2Config.prefault({}),
    vision_config: siglipVisionConfig().prefault({
      hidden_size: 1152,
      intermediate_size: 4304,
      num_hidden_layers: 26,
      num_attention_heads: 16,
      image_size: 384,
      patch_size: 14,
    }),
  })
  .superRefine(({ vision_feature_layer: layer, vision_config: { num_hidden_layers: layers } }, context) => {
    if (layer > layers || layer < -layers - 1)
      context.addIssue({
        code: 'custom',
        path: ['vision_feature_layer'],
        message: `expected ${-layers - 1} to ${layers}: the image encoder has ${layers} layers, but it is ${layer}`,
      });
  })
  .transform(({ image_token_id, ...config }) => ({
    ...config,
    image_token_index: config.image_token_index ?? image_token_id ?? 151646,
  }));
export type LlavaOneVisionConfig = z.output<typeof llavaOneVisionConfig>;

/** As published; later versions of transformers put `model.` before the parts, or leave `vision_model.` out. */
export const llavaOneVisionLayout: Layout<LlavaOneVisionConfig> = {
  schema: llavaOneVisionConfig,
  rename: renameBy([
    [/^model\.(?=(language_model|vision_tower|multi_modal_projector)\.|image_newline$)/, ''],
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
