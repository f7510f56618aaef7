/** mini-llava: CLIP ViT, a two-layer projector, LLaMA. 36 visual tokens, one per patch of the world's canvas. */

import { llavaConfig } from '../../../src/models/configs/llava.ts';
import { llava } from '../../../src/models/llava.ts';
import { canvas } from '../../world/scene.ts';
import { bosId, eosId, imageId, padId, vocabulary } from '../../world/vocabulary.ts';
import type { Mini } from '../minis.ts';
import { alignStage, countStage, decoderStage, polishStage, refineStage, rereadStage, settleStage } from '../stages.ts';

export function miniLlava(epsilon = 1e-5, layers = 7): Mini {
  const config = {
    architectures: ['LlavaForConditionalGeneration'],
    ignore_index: -100,
    image_token_index: imageId,
    model_type: 'llava',
    pad_token_id: padId,
    projector_hidden_act: 'gelu',
    text_config: {
      model_type: 'llama',
      hidden_size: 128,
      intermediate_size: 352,
      max_position_embeddings: 512,
      num_attention_heads: 4,
      num_hidden_layers: layers,
      num_key_value_heads: 4,
      rms_norm_eps: epsilon,
      tie_word_embeddings: true,
      bos_token_id: bosId,
      eos_token_id: eosId,
      pad_token_id: padId,
      vocab_size: vocabulary.length,
    },
    tie_word_embeddings: true,
    torch_dtype: 'float16',
    vision_config: {
      model_type: 'clip_vision_model',
      hidden_size: 128,
      image_size: canvas,
      intermediate_size: 512,
      num_attention_heads: 4,
      num_hidden_layers: 3,
      patch_size: 12,
      projection_dim: 128,
    },
    vision_feature_layer: -1,
    vision_feature_select_strategy: 'default',
  };
  return {
    name: 'mini-llava',
    config,
    preprocessor: {
      crop_size: { height: canvas, width: canvas },
      do_center_crop: true,
      do_convert_rgb: true,
      do_normalize: true,
      do_rescale: true,
      do_resize: true,
      image_mean: [0.48145466, 0.4578275, 0.40821073],
      image_processor_type: 'CLIPImageProcessor',
      image_std: [0.26862954, 0.26130258, 0.27577711],
      processor_class: 'LlavaProcessor',
      resample: 3,
      rescale_factor: 1 / 255,
      size: { shortest_edge: canvas },
    },
    architecture: llava(llavaConfig.parse(config)),
    bos: '<s>',
    bareFacts: true,
    visionWidth: 128,
    isVision: (name) => name.startsWith('vision_tower.'),
    mimetic: (name) => (/language_model.*k_proj\.weight$/.test(name) ? name.replace('k_proj', 'q_proj') : undefined),
    writesResidual: (name) => /embed_tokens\.weight$|linear_2\.|language_model.*(o_proj|down_proj)\.weight$/.test(name),
    isFinalNorm: (name) => name === 'language_model.model.norm.weight',
    withEpsilon: (factor) => miniLlava(epsilon * factor, layers),
    withLayers: (n) => miniLlava(epsilon, n),
    decoderLayer: 'language_model.model.layers.',
    lessons: [
      { name: 'decoder', layers: 6, settings: decoderStage },
      { name: 'refine', layers: 6, settings: refineStage },
      { name: 'align', layers: 6, settings: alignStage },
      { name: 'polish', layers: 6, settings: polishStage },
      { name: 'reread', layers: 7, settings: rereadStage },
      { name: 'settle', layers: 7, settings: settleStage },
      { name: 'count', layers: 7, settings: countStage },
    ],
  };
}
