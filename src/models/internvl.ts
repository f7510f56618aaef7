/**
 * InternVL3 (Zhu et al. 2025; reference: transformers 5.24 `modeling_internvl.py`): a picture becomes tiles and a thumbnail, InternViT reads each, squares
 * of patches become one visual token, a two-layer projector, Qwen2. Published folder: config.json, safetensors, tokenizer.json,
 * preprocessor_config.json or processor_config.json.
 */

import type { Dim } from '../graph/dim.ts';
import { input, layerNorm, mulDim, type Node, reshape, scope, transpose } from '../graph/index.ts';
import { readImageSettings } from '../input/image/config.ts';
import { internVlProcessor } from '../input/image/modern.ts';
import { encodeWithPictures, oneRun } from '../input/picture-text.ts';
import { loadTokenizer, requireToken } from '../input/text/tokenizer.ts';
import { activations } from '../nn/activations.ts';
import { linear } from '../nn/layers.ts';
import type { Architecture } from './architecture.ts';
import { patchesOf, withoutClassToken } from './clip-vit.ts';
import { type InternVlConfig, internVlLayout } from './configs/internvl.ts';
import { type Family, imageToken } from './family.ts';
import { internVit } from './intern-vit.ts';
import { llama } from './llama.ts';

const tokens = { image: '<IMG_CONTEXT>', begin: '<img>', end: '</img>' } as const;
/** Of the projector's norm, whatever the encoder's norms have. */
const PROJECTOR_EPSILON = 1e-5;

/** Patches that become one visual token, on a side. */
const joinedOf = ({ downsample_ratio }: InternVlConfig): number => 1 / downsample_ratio;
const sideOf = (config: InternVlConfig): number =>
  patchesOf(config.vision_config.image_size, config.vision_config.patch_size) / joinedOf(config);

/** Squares of r x r patches as one row each, in their order: [n, (r s)², d] -> [n, s², r² d]. */
export function joinPatches(x: Node, side: number, r: number): Node {
  const [n, , d] = x.shape as [Dim, number, number];
  const cut = transpose(reshape(x, [n, side, r, side, r, d]), [0, 1, 3, 2, 4, 5]);
  return reshape(cut, [n, side * side, r * r * d]);
}

export function internVl(config: InternVlConfig): Architecture {
  const { vision_config: vision, text_config: text } = config;
  const [side, r] = [sideOf(config), joinedOf(config)];
  // hidden_states[k] is the output of block k - 1; hidden_states[-1] that of the last.
  const layer = config.vision_feature_layer;
  const blocks = layer < 0 ? vision.num_hidden_layers + 1 + layer : layer;
  const act = activations[config.projector_hidden_act];
  return {
    name: 'internvl',
    decoder: llama(text, 'language_model.'),
    usualTokens: 5 * side * side,
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
    pixels: () => ({ pixels: input('pixels', ['b', 'tiles', 3, vision.image_size, vision.image_size]) }),
    vision: ({ pixels }, w, sites) =>
      scope('vision', () => {
        const [b, tiles, ...size] = pixels!.shape as [Dim, Dim, number, number, number];
        const hidden = internVit(reshape(pixels!, [mulDim(b, tiles), ...size]), vision, blocks, 'vision_tower.', w, sites);
        const [wide, d] = [r * r * vision.hidden_size, text.hidden_size];
        const joined = reshape(joinPatches(withoutClassToken(hidden), side, r), [b, mulDim(tiles, side * side), wide]);
        const features = sites.site('vision.features', joined);
        const at = 'multi_modal_projector';
        const [scale, shift] = [w.get(`${at}.layer_norm.weight`, [wide]), w.get(`${at}.layer_norm.bias`, [wide])];
        const y = act(linear(w, `${at}.linear_1`, layerNorm(features, scale, shift, PROJECTOR_EPSILON), wide, d));
        return sites.site('visual', linear(w, `${at}.linear_2`, y, d, d));
      }),
  };
}

export const internVlFamily: Family<InternVlConfig> = {
  layout: internVlLayout,
  open: ({ dir, config, checkpoint }) => {
    const tokenizer = loadTokenizer(dir);
    const imageId = imageToken(dir, tokenizer, tokens.image, 'image_token_id', config.image_token_id);
    for (const text of [tokens.begin, tokens.end]) requireToken(tokenizer, text);
    const architecture = internVl(config);
    const processor = internVlProcessor(readImageSettings(dir), sideOf(config));
    return {
      ...{ architecture, checkpoint, tokenizer, eosIds: config.text_config.eos_token_id, prompt: { imageId } },
      processor: (image) => {
        const { pixels, count, regionOf } = processor.process(image);
        const cells = sideOf(config) ** 2;
        return { pixels, count, grid: [sideOf(config), sideOf(config)], regionOf: (cell) => regionOf(count - cells + cell)! };
      },
    };
  },
};
