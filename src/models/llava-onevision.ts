/**
 * LLaVA-OneVision (Li et al. 2024; reference: transformers 5.24 `modeling_llava_onevision.py`): SigLIP reads the whole picture and the tiles of the
 * resolution that fits it best, a two-layer projector, the tiles' tokens packed without margins and with a token after each row, Qwen2. Pictures of a
 * prompt that has several are not cut. Published folder: config.json, safetensors, tokenizer.json, preprocessor_config.json or processor_config.json.
 */

import { addDim, type Dim, mulDim } from '../graph/dim.ts';
import { add, concat, expand, gather, input, matmul, type Node, range, reshape, scope, slice } from '../graph/index.ts';
import { readImageSettings } from '../input/image/config.ts';
import { oneVisionProcessor } from '../input/image/modern.ts';
import { encodeWithPictures, oneRun } from '../input/picture-text.ts';
import { loadTokenizer } from '../input/text/tokenizer.ts';
import { activations } from '../nn/activations.ts';
import { linear } from '../nn/layers.ts';
import type { Architecture } from './architecture.ts';
import { patchesOf } from './clip-vit.ts';
import { type LlavaOneVisionConfig, llavaOneVisionLayout } from './configs/llava-onevision.ts';
import { type Family, headOf, imageToken } from './family.ts';
import { llama } from './llama.ts';
import { prepareViews, tiledPixels } from './pictures.ts';
import { siglip } from './siglip.ts';

const image = '<image>';

/** Tiles' worth of visual tokens that are kept: 9 of `anyres_max_9`. */
const mostTiles = ({ vision_aspect_ratio: ratio }: LlavaOneVisionConfig): number => Number(/\d+$/.exec(ratio)![0]);

/**
 * Tokens of tiles [b, t, d] and the token that ends a row [d] -> packed tokens [b, v, d], each a sum of c of them.
 * @param tokens int64 [b, v, c], places among the tokens of the tiles; t is the end of a row @param shares [b, v, c]
 */
function pack(tiles: Node, rowEnd: Node, tokens: Node, shares: Node): Node {
  const [b, t, d] = tiles.shape as [Dim, Dim, number];
  const [, v, c] = tokens.shape as [Dim, Dim, Dim];
  const rows = addDim(t, 1);
  const table = concat([tiles, expand(reshape(rowEnd, [1, 1, d]), [b, 1, d])], 1);
  const first = slice(reshape(range(mulDim(b, rows)), [b, 1, rows]), 2, 0, 1);
  const chosen = gather(reshape(table, [mulDim(b, rows), d]), add(tokens, first));
  return reshape(matmul(reshape(shares, [b, v, 1, c]), chosen), [b, v, d]);
}

export function llavaOneVision(config: LlavaOneVisionConfig): Architecture {
  const { vision_config: vision, text_config: text } = config;
  const side = patchesOf(vision.image_size, vision.patch_size);
  // hidden_states[k] is the output of block k - 1; hidden_states[-1] that of the last.
  const layer = config.vision_feature_layer;
  const layers = layer < 0 ? vision.num_hidden_layers + 1 + layer : layer;
  const act = activations[config.projector_hidden_act];
  return {
    name: 'llava_onevision',
    decoder: llama(text, 'language_model.'),
    usualTokens: 5 * side * (side + 1),
    tiled: true,
    readsTogether: true,
    placeholder: () => image,
    afterPicture: '\n',
    layout: (parts, { encode }) =>
      encodeWithPictures(
        parts.map((part) => ('text' in part ? part : { picture: oneRun(image, part.picture.count) })),
        { text: image, id: config.image_token_index },
        encode,
      ),
    pixels: () => ({
      ...tiledPixels(vision.image_size),
      tokens: input('tokens', ['b', 'v', 'c'], 'int64'),
      shares: input('shares', ['b', 'v', 'c']),
    }),
    vision: ({ pixels, tokens, shares }, w, sites) =>
      scope('vision', () => {
        const [b, tiles, ...size] = pixels!.shape as [Dim, Dim, number, number, number];
        const [d, prefix] = [vision.hidden_size, 'vision_tower.vision_model.'];
        const hidden = siglip(reshape(pixels!, [mulDim(b, tiles), ...size]), vision, prefix, w, sites, { layers, norm: false });
        const features = sites.site('vision.features', reshape(hidden, [b, mulDim(tiles, side * side), d]));
        const y = act(linear(w, 'multi_modal_projector.linear_1', features, d, text.hidden_size));
        const seen = linear(w, 'multi_modal_projector.linear_2', y, text.hidden_size, text.hidden_size);
        return sites.site('visual', pack(seen, w.get('image_newline', [text.hidden_size]), tokens!, shares!));
      }),
  };
}

const headNames = { head: 'language_model.lm_head.weight', embedding: 'language_model.model.embed_tokens.weight' };

export const llavaOneVisionFamily: Family<LlavaOneVisionConfig> = {
  layout: llavaOneVisionLayout,
  open: (folder) => {
    const { dir, config } = folder;
    const { image_size, patch_size } = config.vision_config;
    const { tie_word_embeddings, checkpoint } = headOf(folder, headNames, config, config.text_config);
    const tokenizer = loadTokenizer(dir);
    const imageId = imageToken(dir, tokenizer, image, 'image_token_index', config.image_token_index);
    const side = patchesOf(image_size, patch_size);
    const processor = oneVisionProcessor(readImageSettings(dir, folder.limits), side, mostTiles(config), image_size);
    return {
      ...{ checkpoint, tokenizer, eosIds: config.text_config.eos_token_id, prompt: { imageId } },
      architecture: llavaOneVision({ ...config, text_config: { ...config.text_config, tie_word_embeddings } }),
      processor: (picture, together) => prepareViews(processor.process(picture, together)),
    };
  },
};
