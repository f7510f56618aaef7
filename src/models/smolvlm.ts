/**
 * SmolVLM2 (Marafioti et al. 2025; reference: transformers 5.24 `modeling_smolvlm.py`): a picture becomes tiles, with the whole picture last; SigLIP
 * reads each, squares of patches become one visual token through a linear map, LLaMA. Published folder: config.json, safetensors, tokenizer.json,
 * preprocessor_config.json or processor_config.json.
 */

import { type Dim, mulDim } from '../graph/dim.ts';
import { reshape, scope } from '../graph/index.ts';
import { readImageSettings } from '../input/image/config.ts';
import { smolVlmProcessor } from '../input/image/modern.ts';
import { finestView } from '../input/image/views.ts';
import { encodeWithPictures, type PictureText, tiledPicture } from '../input/picture-text.ts';
import type { Picture } from '../input/segments.ts';
import { loadTokenizer, requireToken } from '../input/text/tokenizer.ts';
import { linear } from '../nn/layers.ts';
import type { Architecture } from './architecture.ts';
import { patchesOf } from './clip-vit.ts';
import { type SmolVlmConfig, smolVlmLayout } from './configs/smolvlm.ts';
import { type Family, headOf, imageToken } from './family.ts';
import { llama } from './llama.ts';
import { joinPatches, prepareViews, tiledPixels } from './pictures.ts';
import { siglip } from './siglip.ts';

const tokens = { around: '<fake_token_around_image>', image: '<image>', whole: '<global-img>' } as const;

/** Visual tokens along a tile. */
const sideOf = ({ vision_config: { image_size, patch_size }, scale_factor }: SmolVlmConfig): number =>
  patchesOf(image_size, patch_size) / scale_factor;

/** A picture of which only the place matters is one tile. */
function pictureText({ count, views }: Picture): PictureText {
  const tiles = (views && finestView(views).tiles) ?? [0, 0];
  return tiledPicture(tokens, tiles, count / (tiles[0] * tiles[1] + 1));
}

export function smolVlm(config: SmolVlmConfig): Architecture {
  const { vision_config: vision, text_config: text, scale_factor: r } = config;
  const side = sideOf(config);
  return {
    name: 'smolvlm',
    decoder: llama(text, { model: 'model.text_model.', head: 'lm_head' }),
    // of a picture of 4 : 3
    usualTokens: 13 * side * side,
    tiled: true,
    placeholder: () => tokens.image,
    afterPicture: '',
    layout: (parts, { encode }) =>
      encodeWithPictures(
        parts.map((part) => ('text' in part ? part : { picture: pictureText(part.picture) })),
        { text: tokens.image, id: config.image_token_id },
        encode,
      ),
    pixels: () => tiledPixels(vision.image_size),
    vision: ({ pixels }, w, sites) =>
      scope('vision', () => {
        const [b, tiles, ...size] = pixels!.shape as [Dim, Dim, number, number, number];
        const hidden = siglip(reshape(pixels!, [mulDim(b, tiles), ...size]), vision, 'model.vision_model.', w, sites);
        const wide = r * r * vision.hidden_size;
        const joined = reshape(joinPatches(hidden, side * r, r), [b, mulDim(tiles, side * side), wide]);
        const features = sites.site('vision.features', joined);
        return sites.site(
          'visual',
          linear(w, 'model.connector.modality_projection.proj', features, wide, text.hidden_size, false),
        );
      }),
  };
}

const headNames = { head: 'lm_head.weight', embedding: 'model.text_model.embed_tokens.weight' };

export const smolVlmFamily: Family<SmolVlmConfig> = {
  layout: smolVlmLayout,
  open: (folder) => {
    const { dir, config } = folder;
    const { tie_word_embeddings, checkpoint } = headOf(folder, headNames, config, config.text_config);
    const tokenizer = loadTokenizer(dir);
    const imageId = imageToken(dir, tokenizer, tokens.image, 'image_token_id', config.image_token_id);
    for (const text of [tokens.around, tokens.whole, '<row_1_col_1>']) requireToken(tokenizer, text);
    const processor = smolVlmProcessor(readImageSettings(dir, folder.limits), sideOf(config), config.vision_config.image_size);
    return {
      ...{ checkpoint, tokenizer, eosIds: config.text_config.eos_token_id, prompt: { imageId } },
      architecture: smolVlm({ ...config, text_config: { ...config.text_config, tie_word_embeddings } }),
      processor: (image) => prepareViews(processor.process(image)),
    };
  },
};
