/**
 * LLaVA-1.5 (Liu et al. 2023; reference: transformers 4.43 `modeling_llava.py`): CLIP ViT features of one layer, a two-layer projector,
 * LLaMA. Its later sisters have SigLIP, Qwen2 or Mistral in their places. Published folder: config.json, safetensors (single or sharded),
 * tokenizer.json, preprocessor_config.json.
 */

import type { Activation } from '../files/config.ts';
import { type Node, scope } from '../graph/index.ts';
import { llavaChat } from '../input/chat/families.ts';
import { loadTokenizer } from '../input/text/tokenizer.ts';
import { activations } from '../nn/activations.ts';
import { linear } from '../nn/layers.ts';
import type { Architecture, FixedPictures, TextCodec } from './architecture.ts';
import { type ClipVisionConfig, clipVit, patchesOf, withoutClassToken } from './clip-vit.ts';
import { type LlavaConfig as LlavaFileConfig, llavaLayout } from './configs/llava.ts';
import { type Family, fixedProcessor, headOf, imageToken } from './family.ts';
import { type LlamaConfig, llama } from './llama.ts';
import { fixedPixels, prepareFixed, withPictures } from './pictures.ts';
import { siglip } from './siglip.ts';

export interface LlavaConfig {
  text_config: LlamaConfig;
  /** of CLIP, or of SigLIP by its `model_type` */
  vision_config: ClipVisionConfig & { model_type?: string };
  image_token_index: number;
  vision_feature_layer: number;
  vision_feature_select_strategy: 'default' | 'full';
  projector_hidden_act: Activation;
}

export function llava(config: LlavaConfig): Architecture {
  const { vision_config: vision, text_config: text } = config;
  const decoder = llama(text, 'language_model.');
  const side = patchesOf(vision.image_size, vision.patch_size);
  // hidden_states[k] is the output of block k - 1; hidden_states[-1] that of the last.
  const blocks =
    config.vision_feature_layer < 0 ? vision.num_hidden_layers + 1 + config.vision_feature_layer : config.vision_feature_layer;
  const whole = config.vision_feature_select_strategy === 'full';
  const isSiglip = vision.model_type === 'siglip_vision_model';
  const fixed: FixedPictures = {
    count: side * side + (whole && !isSiglip ? 1 : 0),
    grid: [side, side],
    size: [vision.image_size, vision.image_size],
  };
  const placeholder = (codec: TextCodec): string => codec.decode([config.image_token_index], { skipSpecial: false });
  return {
    name: 'llava',
    decoder,
    fixed,
    placeholder,
    chat: llavaChat,
    afterPicture: '\n',
    layout: (parts, codec) => {
      const text = parts.map((part) => ('text' in part ? part.text : placeholder(codec))).join('');
      return withPictures(codec.encode(text), config.image_token_index, parts, placeholder(codec));
    },
    pixels: () => fixedPixels(fixed),
    vision: ({ pixels }, w, sites) =>
      scope('vision', () => {
        const prefix = 'vision_tower.vision_model.';
        const hidden = isSiglip
          ? siglip(pixels!, vision, prefix, w, sites, { layers: blocks, norm: false })
          : clipVit(pixels!, vision, blocks, prefix, w, sites);
        const features: Node = sites.site('vision.features', whole ? hidden : withoutClassToken(hidden));
        const act = activations[config.projector_hidden_act];
        const y = act(linear(w, 'multi_modal_projector.linear_1', features, vision.hidden_size, text.hidden_size));
        return sites.site('visual', linear(w, 'multi_modal_projector.linear_2', y, text.hidden_size, text.hidden_size));
      }),
  };
}

const headNames = { head: 'language_model.lm_head.weight', embedding: 'language_model.model.embed_tokens.weight' };

export const llavaFamily: Family<LlavaFileConfig> = {
  layout: llavaLayout,
  open: (folder) => {
    const { dir, config } = folder;
    const { tie_word_embeddings, checkpoint } = headOf(folder, headNames, config.text_config, config);
    const architecture = llava({ ...config, text_config: { ...config.text_config, tie_word_embeddings } });
    const fixed = architecture.fixed!;
    const tokenizer = loadTokenizer(dir);
    const imageId = imageToken(dir, tokenizer, '<image>', 'image_token_index', config.image_token_index);
    const processor = fixedProcessor(dir, fixed.size, 'CLIPImageProcessor');
    return {
      ...{ architecture, checkpoint, tokenizer, eosIds: config.text_config.eos_token_id, prompt: { imageId } },
      processor: (image) => prepareFixed(fixed, processor, image),
    };
  },
};
