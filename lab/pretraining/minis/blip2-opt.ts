/** mini-blip2-opt: BLIP-2's ViT and Q-Former, a linear projection, OPT. */

import { blip2Opt } from '../../../src/models/blip2-opt.ts';
import { blip2Config } from '../../../src/models/configs/blip2.ts';
import { eosId, padId, vocabulary } from '../../world/vocabulary.ts';
import type { Mini, Part } from '../minis.ts';
import { relateStage, rereadStage, settleStage } from '../stages.ts';
import { blipPreprocessor, blipWidth, crossQueryOf, qFormerConfig, queryCount, visionConfig } from './blip.ts';

export function miniBlip2Opt(layers = 7): Mini {
  const config = {
    architectures: ['Blip2ForConditionalGeneration'],
    initializer_factor: 1,
    initializer_range: 0.02,
    model_type: 'blip-2',
    num_query_tokens: queryCount,
    qformer_config: qFormerConfig,
    text_config: {
      model_type: 'opt',
      activation_function: 'relu',
      do_layer_norm_before: true,
      ffn_dim: 512,
      hidden_size: 128,
      max_position_embeddings: 512,
      num_attention_heads: 4,
      num_hidden_layers: layers,
      tie_word_embeddings: true,
      // OPT begins and ends a text with the same token.
      bos_token_id: eosId,
      eos_token_id: eosId,
      pad_token_id: padId,
      vocab_size: vocabulary.length,
      word_embed_proj_dim: 128,
    },
    tie_word_embeddings: true,
    torch_dtype: 'float16',
    use_decoder_only_language_model: true,
    vision_config: visionConfig,
  };
  const decoder = 'language_model.model.decoder';
  return {
    name: 'mini-blip2-opt',
    config,
    preprocessor: blipPreprocessor('Blip2Processor'),
    architecture: blip2Opt(blip2Config.parse(config)),
    bos: '</s>',
    visionWidth: blipWidth,
    isVision: (name) => name.startsWith('vision_model.'),
    mimetic: (name) => (/^language_model.*k_proj\.weight$/.test(name) ? name.replace('k_proj', 'q_proj') : crossQueryOf(name)),
    queryTokens: 'query_tokens',
    writesResidual: (name) =>
      /embed_(tokens|positions)\.weight$|^language_projection\.|^language_model.*\.(out_proj|fc2)\./.test(name),
    isFinalNorm: (name) => name.startsWith(`${decoder}.final_layer_norm.`),
    // OPT's configuration has no epsilon: it is 1e-5, small beside the variance of every input of a norm.
    withEpsilon: () => miniBlip2Opt(layers),
    withLayers: miniBlip2Opt,
    decoderLayer: `${decoder}.layers.`,
    lessons: [
      { name: 'decoder', layers: 7, settings: { ...rereadStage, steps: 1800 } },
      { name: 'settle', layers: 7, settings: { ...settleStage, lessonWeights: { ...settleStage.lessonWeights, relation: 4 } } },
      { name: 'relate', layers: 7, settings: relateStage },
    ],
    parts: [{ model: 'mini-llava', take: fromLlama }],
  };
}

/**
 * What of a LLaMA fits an OPT: word embeddings, norms and attention, which match words against the picture. OPT's MLPs and positions are of
 * another kind and learn from nothing, as its image encoder and Q-Former do.
 */
const fromLlama: Part['take'] = (name, t) => {
  if (!name.startsWith('language_model.model.') || name.includes('.mlp.')) return [];
  const own = [
    ['language_model.model.', 'language_model.model.decoder.'],
    ['.post_attention_layernorm.', '.final_layer_norm.'],
    ['.input_layernorm.', '.self_attn_layer_norm.'],
    ['decoder.norm.', 'decoder.final_layer_norm.'],
    ['.o_proj.', '.out_proj.'],
  ].reduce((n, [from, to]) => n.replace(from!, to!), name);
  return [[own, t]];
};
