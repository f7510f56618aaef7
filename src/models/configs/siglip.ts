/** config.json of a SigLIP image encoder, with the defaults of transformers' SiglipVisionConfig. */
import { z } from 'zod';
import { activation, exactly, headsDivideWidth, holdsAPatch, layerCount, positive, width } from '../../files/config.ts';

/** @param modelTypes the family's own names for it, such as `smolvlm_vision` @param defaults of fields that its files leave out */
export const siglipVisionConfig = (
  modelTypes: readonly [string, ...string[]] = ['siglip_vision_model'],
  defaults: { hidden_size?: number; num_attention_heads?: number; patch_size?: number } = {},
) =>
  z
    .looseObject({
      model_type: z.enum(modelTypes, `only ${modelTypes[0]} is supported (a SigLIP image encoder)`).default(modelTypes[0]),
      hidden_size: width.default(defaults.hidden_size ?? 768),
      intermediate_size: width.default(3072),
      num_hidden_layers: layerCount.default(12),
      num_attention_heads: width.default(defaults.num_attention_heads ?? 12),
      num_channels: exactly(3, 'red, green, blue'),
      image_size: width.default(224),
      patch_size: width.default(defaults.patch_size ?? 16),
      hidden_act: activation.default('gelu_pytorch_tanh'),
      layer_norm_eps: positive.default(1e-6),
    })
    .superRefine(headsDivideWidth)
    .superRefine(holdsAPatch);
export type SiglipVisionConfig = z.output<ReturnType<typeof siglipVisionConfig>>;
