/** mini-minigpt4: EVA ViT, `ln_vision`, Q-Former, a linear projection, LLaMA; in one folder, as `convert` writes MiniGPT-4. */

import { f32 } from '../../../src/graph/dtype.ts';
import { miniGpt4, miniGpt4Config } from '../../../src/models/minigpt4.ts';
import { bosId, eosId, padId, vocabulary } from '../../world/vocabulary.ts';
import type { Mini, Part } from '../minis.ts';
import { rereadStage, settleStage } from '../stages.ts';
import { blipPreprocessor, blipWidth, crossQueryOf, qFormerConfig, queryCount, visionConfig } from './blip.ts';

export function miniMiniGpt4(epsilon = 1e-5, layers = 7): Mini {
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
      num_hidden_layers: layers,
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
    withEpsilon: (factor) => miniMiniGpt4(epsilon * factor, layers),
    withLayers: (n) => miniMiniGpt4(epsilon, n),
    decoderLayer: 'llama_model.model.layers.',
    lessons: [
      { name: 'decoder', layers: 7, settings: rereadStage },
      { name: 'settle', layers: 7, settings: settleStage },
    ],
    // As the published one: BLIP-2's image encoder and Q-Former, LLaVA's language model; the projection between them is new.
    parts: [
      { model: 'mini-blip2-opt', take: fromBlip2 },
      {
        model: 'mini-llava',
        take: (name, t) => (name.startsWith('language_model.') ? [[name.replace('language_model.', 'llama_model.'), t]] : []),
      },
    ],
  };
}

/** BLIP-2's image encoder and Q-Former under MiniGPT-4's names. The encoder's keys have no bias here: it moves all scores of a query alike. */
const fromBlip2: Part['take'] = (name, t) => {
  const d = t.shape[0]! / 3;
  const at = name.replace('vision_model.encoder.layers.', 'visual_encoder.blocks.');
  if (name.endsWith('self_attn.qkv.bias'))
    return (['q', 'v'] as const).map((part, i) => [
      at.replace('self_attn.qkv.bias', `attn.${part}_bias`),
      f32(t.data.slice(2 * i * d, (2 * i + 1) * d), [d]),
    ]);
  const own = renames.reduce((n, [from, to]) => n.replace(from, to), at);
  return /^(visual_encoder|ln_vision|Qformer)\.|^query_tokens$/.test(own) ? [[own, t]] : [];
};

const renames: readonly (readonly [string, string])[] = [
  ['vision_model.post_layernorm', 'ln_vision'],
  ['vision_model.embeddings.class_embedding', 'visual_encoder.cls_token'],
  ['vision_model.embeddings.patch_embedding', 'visual_encoder.patch_embed.proj'],
  ['vision_model.embeddings.position_embedding', 'visual_encoder.pos_embed'],
  ['self_attn.projection', 'attn.proj'],
  ['self_attn.qkv', 'attn.qkv'],
  ['.layer_norm', '.norm'],
  ['qformer.layernorm', 'Qformer.bert.embeddings.LayerNorm'],
  ['qformer.encoder', 'Qformer.bert.encoder'],
  ['attention.attention.', 'attention.self.'],
];
