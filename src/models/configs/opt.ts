/** config.json of an OPT decoder, with the defaults of transformers' OPTConfig. */
import { z } from 'zod';
import { activation, exactly, flag, headsDivideWidth, id, ids, layerCount, width } from '../../files/config.ts';

/** OPTConfig */
export const optConfig = z
  .looseObject({
    model_type: exactly('opt', 'an OPT decoder'),
    vocab_size: width.default(50272),
    hidden_size: width.default(768),
    num_hidden_layers: layerCount.default(12),
    ffn_dim: width.default(3072),
    max_position_embeddings: width.default(2048),
    do_layer_norm_before: flag(true),
    _remove_final_layer_norm: flag(false),
    word_embed_proj_dim: width.nullish(),
    num_attention_heads: width.default(12),
    activation_function: activation.default('relu'),
    enable_bias: flag(true),
    layer_norm_elementwise_affine: flag(true),
    tie_word_embeddings: flag(true),
    pad_token_id: id.default(1),
    bos_token_id: id.default(2),
    eos_token_id: ids.transform((list) => (list.length > 0 ? list : [2])),
  })
  .superRefine(headsDivideWidth)
  .transform((config) => ({ ...config, word_embed_proj_dim: config.word_embed_proj_dim ?? config.hidden_size }))
  .refine((config) => config.word_embed_proj_dim === config.hidden_size, {
    path: ['word_embed_proj_dim'],
    message: 'only hidden_size is supported: visual tokens have that width and stand beside the words',
  });
export type OptConfig = z.output<typeof optConfig>;
