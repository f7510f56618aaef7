/** config.json of SmolVLM2, and of SmolVLM and Idefics3, which are the same under another name; with the defaults of transformers' SmolVLMConfig. */
import { z } from 'zod';
import { flag, id, upTo } from '../../files/config.ts';
import type { Layout } from './layout.ts';
import { llamaConfig } from './llama.ts';
import { siglipVisionConfig } from './siglip.ts';

const visionConfig = siglipVisionConfig(['smolvlm_vision', 'idefics3_vision', 'idefics3'], {
  ...{ hidden_size: 1152, num_attention_heads: 16, patch_size: 32 },
});

export const smolVlmConfig = z
  .looseObject({
    model_type: z.enum(['smolvlm', 'idefics3'], 'expected "smolvlm" or "idefics3"'),
    image_token_id: id.default(128257),
    /** patches that become one visual token, on a side */
    scale_factor: upTo(16).default(2),
    tie_word_embeddings: flag(false),
    text_config: llamaConfig.prefault({ rms_norm_eps: 1e-5 }),
    vision_config: visionConfig.prefault({}),
  })
  .superRefine(({ scale_factor: r, vision_config: { image_size: size, patch_size: patch } }, context) => {
    const side = Math.floor(size / patch);
    if (side % r !== 0)
      context.addIssue({
        code: 'custom',
        path: ['scale_factor'],
        message: `${r} does not divide the ${side} patches on a side of a tile`,
      });
  });
export type SmolVlmConfig = z.output<typeof smolVlmConfig>;

export const smolVlmLayout: Layout<SmolVlmConfig> = {
  schema: smolVlmConfig,
  rename: (name) => name,
  layers: ({ text_config, vision_config }) => [
    { prefix: 'model.text_model.layers.', field: 'text_config.num_hidden_layers', count: text_config.num_hidden_layers },
    {
      prefix: 'model.vision_model.encoder.layers.',
      field: 'vision_config.num_hidden_layers',
      count: vision_config.num_hidden_layers,
    },
  ],
};
