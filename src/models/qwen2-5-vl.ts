/**
 * Qwen2.5-VL (Bai et al. 2025; reference: transformers 5.24 `modeling_qwen2_5_vl.py`): pictures of any size, an image encoder with windows, Qwen2 with
 * positions of time, row and column. Published folder: config.json, safetensors, tokenizer.json, preprocessor_config.json or processor_config.json.
 */

import { scope } from '../graph/index.ts';
import { loadTokenizer } from '../input/text/tokenizer.ts';
import type { Architecture } from './architecture.ts';
import { type Qwen25VlConfig, qwen25VlLayout } from './configs/qwen-vl.ts';
import { type Family, headOf } from './family.ts';
import { llama } from './llama.ts';
import { openQwen, qwenText } from './qwen-vl.ts';
import { qwen25Inputs, qwen25Merger, qwen25Places, qwen25Tower } from './qwen25-tower.ts';

export function qwen25Vl(config: Qwen25VlConfig): Architecture {
  const { vision_config: vision, text_config: text } = config;
  return {
    ...qwenText(config.image_token_id),
    name: 'qwen2_5_vl',
    decoder: llama(text, { model: 'model.', head: 'lm_head' }),
    pixels: () => qwen25Inputs(vision),
    vision: (inputs, w, sites) =>
      scope('vision', () => {
        const features = sites.site('vision.features', qwen25Tower(inputs, vision, 'visual.', w, sites));
        return sites.site('visual', qwen25Merger(features, vision, 'visual.', w));
      }),
  };
}

const headNames = { head: 'lm_head.weight', embedding: 'model.embed_tokens.weight' };

export const qwen25VlFamily: Family<Qwen25VlConfig> = {
  layout: qwen25VlLayout,
  open: (folder) => {
    const { dir, config } = folder;
    const { tie_word_embeddings, checkpoint } = headOf(folder, headNames, config, config.text_config);
    const tokenizer = loadTokenizer(dir);
    return {
      ...{ checkpoint, tokenizer, eosIds: config.text_config.eos_token_id },
      ...openQwen(folder, tokenizer, config, (grid) => qwen25Places(config.vision_config, grid)),
      architecture: qwen25Vl({ ...config, text_config: { ...config.text_config, tie_word_embeddings } }),
    };
  },
};
