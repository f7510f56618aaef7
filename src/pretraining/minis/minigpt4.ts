/** mini-minigpt4: EVA ViT, `ln_vision`, Q-Former, a linear projection, LLaMA; in one folder, as `convert` writes MiniGPT-4. */

import { bosId, eosId, padId, vocabulary } from '../../data/world/vocabulary.ts';
import { miniGpt4, miniGpt4Config } from '../../models/minigpt4.ts';
import type { Mini } from '../minis.ts';
import { blipPreprocessor, blipWidth, crossQueryOf, qFormerConfig, queryCount, visionConfig } from './blip.ts';

export function miniMiniGpt4(epsilon = 1e-5): Mini {
  const config = {
    architectures: ['MiniGPT4'],
    model_type: 'minigpt4',
    num_query_tokens: queryCount,
    qformer_config: qFormerConfig,
    text_config: {
      model_type: 'llama',
      hidden_size: 128,
      intermediate_size: 352,
      max_position_embeddings: 512,
      num_attention_heads: 4,
      num_hidden_layers: 6,
      num_key_value_heads: 4,
      rms_norm_eps: epsilon,
      tie_word_embeddings: true,
      bos_token_id: bosId,
      eos_token_id: eosId,
      pad_token_id: padId,
      vocab_size: vocabulary.length,
    },
    torch_dtype: 'float16',
    vision_config: visionConfig,
  };
  return {
    name: 'mini-minigpt4',
    config,
    preprocessor: blipPreprocessor('Blip2Processor'),
    architecture: miniGpt4(miniGpt4Config.parse(config)),
    bos: '<s>',
    visionWidth: blipWidth,
    isVision: (name) => /^(visual_encoder|ln_vision)\./.test(name),
    mimetic: (name) => (/^llama_model.*k_proj\.weight$/.test(name) ? name.replace('k_proj', 'q_proj') : crossQueryOf(name)),
    queryTokens: 'query_tokens',
    writesResidual: (name) => /embed_tokens\.weight$|^llama_proj\.|^llama_model.*(o_proj|down_proj)\.weight$/.test(name),
    isFinalNorm: (name) => name === 'llama_model.model.norm.weight',
    withEpsilon: (factor) => miniMiniGpt4(epsilon * factor),
  };
}
