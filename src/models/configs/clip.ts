/** config.json of a CLIP image encoder, with the defaults of transformers' CLIPVisionConfig. */
import { z } from 'zod';
import { activation, exactly, headsDivideWidth, holdsAPatch, layerCount, positive, width } from '../../files/config.ts';

/** CLIPVisionConfig */
export const clipVisionConfig = z
  .looseObject({
    model_type: exactly('clip_vision_model', 'a CLIP image encoder'),
    hidden_size: width.default(768),
    intermediate_size: width.default(3072),
    num_hidden_layers: layerCount.default(12),
    num_attention_heads: width.default(12),
    num_channels: exactly(3, 'red, green, blue'),
    image_size: width.default(224),
    patch_size: width.default(32),
    hidden_act: activation.default('quick_gelu'),
    layer_norm_eps: positive.default(1e-5),
  })
  .superRefine(headsDivideWidth)
  .superRefine(holdsAPatch);
export type ClipVisionConfig = z.output<typeof clipVisionConfig>;
