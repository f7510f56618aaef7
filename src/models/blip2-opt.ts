/**
 * BLIP2-OPT (Li et al. 2023; reference: transformers 4.43 `modeling_blip_2.py`): EVA ViT, Q-Former, a linear projection, OPT. Published
 * folder: config.json, safetensors (single or sharded) or pytorch_model*.bin, tokenizer.json, preprocessor_config.json.
 */

import { layerNorm, scope } from '../graph/index.ts';
import { blip2Chat } from '../input/chat/families.ts';
import { linear } from '../nn/layers.ts';
import type { Architecture, FixedPictures } from './architecture.ts';
import { blip2VitNames, blipVit } from './blip-vit.ts';
import { patchesOf } from './clip-vit.ts';
import type { Blip2Config } from './configs/blip2.ts';
import { opt } from './opt.ts';
import { fixedPixels, pieces } from './pictures.ts';
import { blip2QFormerNames, qFormer } from './q-former.ts';

export function blip2Opt(config: Blip2Config): Architecture {
  const { vision_config: vision, qformer_config: query, text_config: text, num_query_tokens: count } = config;
  const side = patchesOf(vision.image_size, vision.patch_size);
  const fixed: FixedPictures = { count, grid: [side, side], size: [vision.image_size, vision.image_size] };
  return {
    name: 'blip2-opt',
    decoder: opt(text, 'language_model.'),
    fixed,
    patchMap: 'qformer.map',
    chat: blip2Chat,
    afterPicture: '',
    // A picture at the start stands before the special token that begins the text.
    layout: (parts, codec) => pieces(parts, codec, 'text'),
    pixels: () => fixedPixels(fixed),
    vision: ({ pixels }, w, sites) =>
      scope('vision', () => {
        const d = vision.hidden_size;
        const hidden = blipVit(pixels!, vision, blip2VitNames, w, sites);
        const post = 'vision_model.post_layernorm';
        const normal = layerNorm(hidden, w.get(`${post}.weight`, [d]), w.get(`${post}.bias`, [d]), vision.layer_norm_eps);
        const queries = qFormer(sites.site('vision.features', normal), query, count, blip2QFormerNames, w, sites);
        return sites.site('visual', linear(w, 'language_projection', queries, query.hidden_size, text.hidden_size));
      }),
  };
}
