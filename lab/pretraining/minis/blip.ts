/** What mini-blip2-opt and mini-minigpt4 share: the image encoder's and the Q-Former's sizes, and BLIP's image processor. */

import { canvas } from '../../world/scene.ts';

/** 16 query tokens in a 4 x 4 grid over the picture, 2 x 2 for each cell of a scene: fewer than the 36 patches, enough to lose nothing. */
export const queryCount = 16;
export const blipWidth = 128;

export const visionConfig = {
  model_type: 'blip_2_vision_model',
  hidden_act: 'gelu',
  hidden_size: blipWidth,
  image_size: canvas,
  intermediate_size: 512,
  layer_norm_eps: 1e-6,
  num_attention_heads: 4,
  num_hidden_layers: 3,
  patch_size: 12,
  qkv_bias: true,
};

export const qFormerConfig = {
  model_type: 'blip_2_qformer',
  cross_attention_frequency: 2,
  encoder_hidden_size: blipWidth,
  hidden_act: 'gelu',
  hidden_size: blipWidth,
  intermediate_size: 512,
  layer_norm_eps: 1e-12,
  num_attention_heads: 4,
  num_hidden_layers: 4,
};

export const blipPreprocessor = (processor: string): Record<string, unknown> => ({
  do_convert_rgb: true,
  do_normalize: true,
  do_rescale: true,
  do_resize: true,
  image_mean: [0.48145466, 0.4578275, 0.40821073],
  image_processor_type: 'BlipImageProcessor',
  image_std: [0.26862954, 0.26130258, 0.27577711],
  processor_class: processor,
  resample: 3,
  rescale_factor: 1 / 255,
  size: { height: canvas, width: canvas },
});

/** The key of a Q-Former's cross-attention starts near its query, as a decoder's does: a query token then looks where its own code stands. */
export const crossQueryOf = (name: string): string | undefined =>
  /crossattention\.(attention|self)\.key\.weight$/.test(name) ? name.replace('.key.', '.query.') : undefined;
