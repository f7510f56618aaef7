/**
 * InternVL3 (Zhu et al. 2025; reference: transformers 5.24 `modeling_internvl.py`): a picture becomes tiles and a thumbnail, InternViT reads each, squares
 * of patches become one visual token, a two-layer projector, Qwen2. Published folder: config.json, safetensors, tokenizer.json,
 * preprocessor_config.json or processor_config.json.
 */

import { type Dim, mulDim } from '../graph/dim.ts';
import { layerNorm, reshape, scope } from '../graph/index.ts';
import { readImageSettings } from '../input/image/config.ts';
import { internVlProcessor } from '../input/image/modern.ts';
import { encodeWithPictures, oneRun } from '../input/picture-text.ts';
import { loadTokenizer, requireToken } from '../input/text/tokenizer.ts';
import { activations } from '../nn/activations.ts';
import { linear } from '../nn/layers.ts';
import type { Architecture } from './architecture.ts';
import { patchesOf, withoutClassToken } from './clip-vit.ts';
import { type InternVlConfig, internVlLayout } from './configs/internvl.ts';
import { type Family, headOf, imageToken } from './family.ts';
import { internVit } from './intern-vit.ts';
import { llama } from './llama.ts';
import { joinPatches, prepareViews, tiledPixels } from './pictures.ts';

const tokens = { image: '<IMG_CONTEXT>', begin: '<img>', end: '</img>' } as const;
/** Of the projector's norm, whatever the encoder's norms have. */
const PROJECTOR_EPSILON = 1e-5;

/** Visual tokens along a tile. */
const sideOf = ({ vision_config: { image_size, patch_size }, downsample_ratio: ratio }: InternVlConfig): number =>
  patchesOf(image_size, patch_size) * ratio;

export function internVl(config: InternVlConfig): Architecture {
  const { vision_config: vision, text_config: text, downsample_ratio: ratio } = config;
  const [side, r] = [sideOf(config), 1 / ratio];
  // hidden_states[k] is the output of block k - 1; hidden_states[-1] that of the last.
  const layer = config.vision_feature_layer;
  const blocks = layer < 0 ? vision.num_hidden_layers + 1 + layer : layer;
  const act = activations[config.projector_hidden_act];
  return {
    name: 'internvl',
    decoder: llama(text, 'language_model.'),
    // of a picture of 4 : 3
    usualTokens: 13 * side * side,
    tiled: true,
    placeholder: () => tokens.image,
    afterPicture: '\n',
    layout: (parts, { encode }) =>
      encodeWithPictures(
        parts.map((part) =>
          'text' in part ? part : { picture: oneRun(tokens.image, part.picture.count, tokens.begin, tokens.end) },
        ),
        { text: tokens.image, id: config.image_token_id },
        encode,
      ),
    pixels: () => tiledPixels(vision.image_size),
    vision: ({ pixels }, w, sites) =>
      scope('vision', () => {
        const [b, tiles, ...size] = pixels!.shape as [Dim, Dim, number, number, number];
        const hidden = internVit(reshape(pixels!, [mulDim(b, tiles), ...size]), vision, blocks, 'vision_tower.', w, sites);
        const [wide, d] = [r * r * vision.hidden_size, text.hidden_size];
        const joined = joinPatches(withoutClassToken(hidden), side * r, r);
        const features = sites.site('vision.features', reshape(joined, [b, mulDim(tiles, side * side), wide]));
        const at = 'multi_modal_projector';
        const [scale, shift] = [w.get(`${at}.layer_norm.weight`, [wide]), w.get(`${at}.layer_norm.bias`, [wide])];
        const y = act(linear(w, `${at}.linear_1`, layerNorm(features, scale, shift, PROJECTOR_EPSILON), wide, d));
        return sites.site('visual', linear(w, `${at}.linear_2`, y, d, d));
      }),
  };
}

const headNames = { head: 'language_model.lm_head.weight', embedding: 'language_model.model.embed_tokens.weight' };

export const internVlFamily: Family<InternVlConfig> = {
  layout: internVlLayout,
  open: (folder) => {
    const { dir, config } = folder;
    const { tie_word_embeddings, checkpoint } = headOf(folder, headNames, config, config.text_config);
    const tokenizer = loadTokenizer(dir);
    const imageId = imageToken(dir, tokenizer, tokens.image, 'image_token_id', config.image_token_id);
    for (const text of [tokens.begin, tokens.end]) requireToken(tokenizer, text);
    const processor = internVlProcessor(readImageSettings(dir, folder.limits), sideOf(config), config.vision_config.image_size);
    return {
      ...{ checkpoint, tokenizer, eosIds: config.text_config.eos_token_id, prompt: { imageId } },
      architecture: internVl({ ...config, text_config: { ...config.text_config, tie_word_embeddings } }),
      processor: (image) => prepareViews(processor.process(image)),
    };
  },
};
