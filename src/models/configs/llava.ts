/** config.json of LLaVA, with the defaults of transformers' LlavaConfig. */
import { z } from 'zod';
import { activation, exactly, flag, id } from '../../files/config.ts';
import { clipVisionConfig } from './clip.ts';
import { byModelType, type Layout, renameBy } from './layout.ts';
import { severalDecoders } from './llama.ts';
import { siglipVisionConfig } from './siglip.ts';

const encoders = { clip_vision_model: clipVisionConfig, siglip_vision_model: siglipVisionConfig() };

/** LlavaConfig; without vision_config it means CLIP ViT-L/14 at 336 pixels */
export const llavaConfig = z
  .looseObject({
    model_type: z.literal('llava', 'expected "llava"'),
    image_token_index: id.nullish(),
    /** the same, as newer files name it */
    image_token_id: id.nullish(),
    multimodal_projector_bias: exactly(true, 'a projector without biases is not read'),
    tie_word_embeddings: flag(false),
    pad_token_id: id.nullish(),
    projector_hidden_act: activation.default('gelu'),
    vision_feature_layer: z
      .union([z.int(), z.tuple([z.int()]).transform(([layer]) => layer)], 'expected the number of one layer')
      .default(-2),
    vision_feature_select_strategy: z.enum(['default', 'full'], 'expected "default" or "full"').default('default'),
    text_config: severalDecoders('llama', 'mistral', 'qwen2').prefault({}),
    vision_config: byModelType(encoders, 'clip_vision_model').prefault({
      hidden_size: 1024,
      intermediate_size: 4096,
      num_hidden_layers: 24,
      num_attention_heads: 16,
      image_size: 336,
      patch_size: 14,
    }),
  })
  .superRefine((config, context) => {
    const { vision_feature_layer: layer, vision_feature_select_strategy: strategy } = config;
    const { num_hidden_layers: layers, model_type: type } = config.vision_config;
    if (layer > layers || layer < -layers - 1)
      context.addIssue({
        code: 'custom',
        path: ['vision_feature_layer'],
        message: `expected ${-layers - 1} to ${layers}: the image encoder has ${layers} layers, but it is ${layer}`,
      });
    if (type === 'siglip_vision_model' && strategy !== 'full')
      context.addIssue({
        code: 'custom',
        path: ['vision_feature_select_strategy'],
        message: 'expected "full": SigLIP has no class token that could be left out',
      });
  })
  .transform(({ image_token_id, ...config }) => ({
    ...config,
    image_token_index: config.image_token_index ?? image_token_id ?? 32000,
  }));
export type LlavaConfig = z.output<typeof llavaConfig>;

/** Saved by transformers up to 4.51; 4.52.0 to 4.52.3, 5.5 and trainers that write a state dict have other names. */
export const llavaLayout: Layout<LlavaConfig> = {
  schema: llavaConfig,
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
