/**
 * Gemma 3 (Gemma Team 2025; reference: transformers 5.24 `modeling_gemma3.py`): SigLIP reads a picture stretched to a square, patches are pooled to a
 * fixed number of visual tokens, a norm and one linear map, Gemma's decoder. Published folder: config.json, safetensors, tokenizer.json,
 * preprocessor_config.json or processor_config.json.
 */

import type { Dim } from '../graph/dim.ts';
import { matmul, mean, type Node, reshape, scope, slice } from '../graph/index.ts';
import { readImageSettings } from '../input/image/config.ts';
import { gemmaProcessor } from '../input/image/modern.ts';
import { encodeWithPictures, gemmaPicture } from '../input/picture-text.ts';
import { loadTokenizer } from '../input/text/tokenizer.ts';
import type { Architecture, FixedPictures } from './architecture.ts';
import { patchesOf } from './clip-vit.ts';
import { type Gemma3Config, gemma3Layout } from './configs/gemma3.ts';
import { type Family, headOf, imageToken } from './family.ts';
import { gemma3Decoder, gemmaNorm } from './gemma3-decoder.ts';
import { fixedPixels, prepareViews } from './pictures.ts';
import { siglip } from './siglip.ts';

const tokens = { begin: '<start_of_image>', image: '<image_soft_token>', end: '<end_of_image>' } as const;
/** It begins every text. */
const BEGIN = '<bos>';

/** Means of squares of patches: [n, patches², d] -> [n, side², d]; what the squares leave over at the right and lower edge is not read. */
function pooled(x: Node, patches: number, side: number): Node {
  const [n, , d] = x.shape as [Dim, number, number];
  const square = Math.floor(patches / side);
  const kept = side * square;
  const rows = reshape(x, [n, patches, patches, d]);
  const whole = kept === patches ? rows : slice(slice(rows, 1, 0, kept), 2, 0, kept);
  return reshape(mean(reshape(whole, [n, side, square, side, square, d]), [2, 4]), [n, side * side, d]);
}

export function gemma3(config: Gemma3Config): Architecture {
  const { vision_config: vision, text_config: text, mm_tokens_per_image: count } = config;
  const side = Math.sqrt(count);
  const fixed: FixedPictures = { count, grid: [side, side], size: [vision.image_size, vision.image_size] };
  return {
    name: 'gemma3',
    decoder: gemma3Decoder(text, 'language_model.'),
    fixed,
    placeholder: () => tokens.begin,
    afterPicture: '',
    layout: (parts, { encode }) =>
      encodeWithPictures(
        parts.map((part) => ('text' in part ? part : { picture: gemmaPicture(tokens, part.picture.count) })),
        { text: tokens.image, id: config.image_token_index, mark: tokens.begin },
        encode,
        BEGIN,
      ),
    pixels: () => fixedPixels(fixed),
    vision: ({ pixels }, w, sites) =>
      scope('vision', () => {
        const hidden = siglip(pixels!, vision, 'vision_tower.vision_model.', w, sites);
        const width = vision.hidden_size;
        const features = sites.site('vision.features', pooled(hidden, patchesOf(vision.image_size, vision.patch_size), side));
        const at = 'multi_modal_projector';
        const normal = gemmaNorm(w, `${at}.mm_soft_emb_norm.weight`, features, width, vision.layer_norm_eps);
        return sites.site('visual', matmul(normal, w.get(`${at}.mm_input_projection_weight`, [width, text.hidden_size])));
      }),
  };
}

const headNames = { head: 'language_model.lm_head.weight', embedding: 'language_model.model.embed_tokens.weight' };

export const gemma3Family: Family<Gemma3Config> = {
  layout: gemma3Layout,
  open: (folder) => {
    const { dir, config } = folder;
    const { tie_word_embeddings, checkpoint } = headOf(folder, headNames, config, config.text_config);
    const tokenizer = loadTokenizer(dir);
    const imageId = imageToken(dir, tokenizer, tokens.image, 'image_token_index', config.image_token_index);
    imageToken(dir, tokenizer, tokens.begin, 'boi_token_index', config.boi_token_index);
    imageToken(dir, tokenizer, tokens.end, 'eoi_token_index', config.eoi_token_index);
    const { image_size: size } = config.vision_config;
    const processor = gemmaProcessor(readImageSettings(dir), Math.sqrt(config.mm_tokens_per_image), size);
    const eosIds = config.eos_token_id.length > 0 ? config.eos_token_id : config.text_config.eos_token_id;
    return {
      ...{ checkpoint, tokenizer, eosIds, prompt: { imageId } },
      architecture: gemma3({ ...config, text_config: { ...config.text_config, tie_word_embeddings } }),
      processor: (image) => prepareViews(processor.process(image)),
    };
  },
};
