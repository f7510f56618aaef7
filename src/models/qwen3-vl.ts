/**
 * Qwen3-VL (Qwen team 2025; reference: transformers 5.24 `modeling_qwen3_vl.py`): pictures of any size, an image encoder of which several layers feed
 * the decoder's first layers (DeepStack), Qwen3 with interleaved positions of time, row and column. Published folder: config.json, safetensors,
 * tokenizer.json, preprocessor_config.json or processor_config.json.
 */

import { scope } from '../graph/index.ts';
import { loadTokenizer } from '../input/text/tokenizer.ts';
import type { Architecture } from './architecture.ts';
import { type Qwen3VlConfig, qwen3VlLayout } from './configs/qwen-vl.ts';
import { type Family, headOf } from './family.ts';
import { llama } from './llama.ts';
import { openQwen, qwenText } from './qwen-vl.ts';
import { deepCount, qwen3Inputs, qwen3Merger, qwen3Places, qwen3Tower } from './qwen3-tower.ts';

export function qwen3Vl(config: Qwen3VlConfig): Architecture {
  const { vision_config: vision, text_config: text } = config;
  const decoder = llama(text, { model: 'model.language_model.', head: 'lm_head' });
  return {
    ...qwenText(config.image_token_id),
    name: 'qwen3_vl',
    decoder: { ...decoder, deepLayers: deepCount(vision) },
    pixels: () => qwen3Inputs(vision),
    vision: (inputs, w, sites) =>
      scope('vision', () => {
        const features = sites.site('vision.features', qwen3Tower(inputs, vision, 'model.visual.', w, sites));
        return sites.site('visual', qwen3Merger(features, vision, 'model.visual.', w));
      }),
  };
}

const headNames = { head: 'lm_head.weight', embedding: 'model.language_model.embed_tokens.weight' };

export const qwen3VlFamily: Family<Qwen3VlConfig> = {
  layout: qwen3VlLayout,
  open: (folder) => {
    const { dir, config } = folder;
    const { tie_word_embeddings, checkpoint } = headOf(folder, headNames, config, config.text_config);
    const tokenizer = loadTokenizer(dir);
    return {
      ...{ checkpoint, tokenizer, eosIds: config.text_config.eos_token_id },
      ...openQwen(folder, tokenizer, config, (grid) => qwen3Places(config.vision_config, grid)),
      architecture: qwen3Vl({ ...config, text_config: { ...config.text_config, tie_word_embeddings } }),
    };
  },
};
