/** config.json of InternVL3, with the defaults of transformers' InternVLConfig. */
import { z } from 'zod';
import { activation, exactly, flag, headsDivideWidth, holdsAPatch, id, layerCount, positive, width } from '../../files/config.ts';
import { type Layout, renameBy } from './layout.ts';
import { severalDecoders } from './llama.ts';

/** A side of a square, as a number or twice. */
const side = z
  .union([width.transform((n): [number, number] => [n, n]), z.tuple([width, width])], 'expected a number of pixels, or two')
  .refine(([height, width]) => height === width, 'only squares are supported')
  .transform(([height]) => height);

/** InternVLVisionConfig */
export const internVitConfig = z
  .looseObject({
    model_type: exactly('internvl_vision', 'an InternViT image encoder'),
    hidden_size: width.default(1024),
    intermediate_size: width.default(4096),
    num_hidden_layers: layerCount.default(24),
    num_attention_heads: width.default(16),
    num_channels: exactly(3, 'red, green, blue'),
    image_size: side.prefault(448),
    patch_size: side.prefault(14),
    hidden_act: activation.default('gelu'),
    layer_norm_eps: positive.default(1e-6),
    norm_type: z.enum(['layer_norm', 'rms_norm'], 'expected "layer_norm" or "rms_norm"').default('layer_norm'),
    attention_bias: flag(false),
    use_qk_norm: flag(false),
    use_absolute_position_embeddings: flag(false),
    use_mean_pooling: exactly(true, 'an encoder with a norm behind its last block is not computed'),
    use_mask_token: exactly(false, 'pictures are not masked'),
  })
  .superRefine(headsDivideWidth)
  .superRefine(holdsAPatch);
export type InternVitConfig = z.output<typeof internVitConfig>;

/** InternVLConfig */
export const internVlConfig = z
  .looseObject({
    model_type: z.literal('internvl', 'expected "internvl"'),
    image_token_id: id.default(151667),
    downsample_ratio: positive.max(1, 'expected at most 1').default(0.5),
    projector_hidden_act: activation.default('gelu'),
    vision_feature_layer: z.int('expected the number of one layer').default(-1),
    vision_feature_select_strategy: exactly('default', 'patches without the class token fill a square'),
    tie_word_embeddings: flag(false),
    text_config: severalDecoders('qwen2', 'qwen3', 'llama').prefault({}),
    vision_config: internVitConfig.prefault({}),
  })
  .superRefine(({ vision_feature_layer: layer, downsample_ratio: ratio, vision_config: vision }, context) => {
    const { num_hidden_layers: layers, image_size: size, patch_size: patch } = vision;
    const issue = (path: string, message: string): void => context.addIssue({ code: 'custom', path: [path], message });
    if (layer > layers || layer < -layers - 1)
      issue(
        'vision_feature_layer',
        `expected ${-layers - 1} to ${layers}: the image encoder has ${layers} layers, but it is ${layer}`,
      );
    if (!Number.isInteger(1 / ratio) || Math.floor(size / patch) % (1 / ratio) !== 0)
      issue('downsample_ratio', `${Math.floor(size / patch)} patches on a side cannot be joined by ${1 / ratio}`);
  });
export type InternVlConfig = z.output<typeof internVlConfig>;

/** Saved by transformers up to 4.51; later versions put `model.` before the parts. */
export const internVlLayout: Layout<InternVlConfig> = {
  schema: internVlConfig,
  rename: renameBy([
    [/^model\.(?=(language_model|vision_tower|multi_modal_projector)\.)/, ''],
    [/^(?=lm_head\.)/, 'language_model.'],
    [/^language_model\.(?=(layers|embed_tokens|norm)\.)/, 'language_model.model.'],
  ]),
  layers: ({ text_config, vision_config }) => [
    { prefix: 'language_model.model.layers.', field: 'text_config.num_hidden_layers', count: text_config.num_hidden_layers },
    { prefix: 'vision_tower.encoder.layer.', field: 'vision_config.num_hidden_layers', count: vision_config.num_hidden_layers },
  ],
};
