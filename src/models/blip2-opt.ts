/**
 * BLIP2-OPT (Li et al. 2023; reference: transformers 4.43 `modeling_blip_2.py`): EVA ViT, Q-Former, a linear projection, OPT. Published
 * folder: config.json, safetensors (single or sharded) or pytorch_model*.bin, tokenizer.json, preprocessor_config.json.
 */

import type { Checkpoint } from '../files/folder.ts';
import { layerNorm, scope } from '../graph/index.ts';
import { blip2Chat } from '../input/chat/families.ts';
import { loadTokenizer } from '../input/text/tokenizer.ts';
import { linear } from '../nn/layers.ts';
import type { Architecture, FixedPictures } from './architecture.ts';
import { blip2VitNames, blipVit } from './blip-vit.ts';
import { patchesOf } from './clip-vit.ts';
import type { Blip2Config } from './configs/blip2.ts';
import { blip2Layout } from './configs/blip2.ts';
import { type Family, fixedProcessor } from './family.ts';
import { opt } from './opt.ts';
import { fixedPixels, pieces, prepareFixed } from './pictures.ts';
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

/** Files that keep one name of a tied pair may keep the head's. */
function withTiedEmbeddings(checkpoint: Checkpoint): Checkpoint {
  const [embedding, head] = ['language_model.model.decoder.embed_tokens.weight', 'language_model.lm_head.weight'] as const;
  if (checkpoint.has(embedding) || !checkpoint.has(head)) return checkpoint;
  return checkpoint.renamed((name) => (name === head ? embedding : name));
}

export const blip2Family: Family<Blip2Config> = {
  layout: blip2Layout,
  open: ({ dir, config, checkpoint }) => {
    const architecture = blip2Opt(config);
    const fixed = architecture.fixed!;
    const processor = fixedProcessor(dir, fixed.size, 'BlipImageProcessor');
    return {
      ...{
        architecture,
        tokenizer: loadTokenizer(dir),
        eosIds: config.text_config.eos_token_id,
        prompt: { imageId: config.image_token_index ?? undefined },
      },
      checkpoint: config.text_config.tie_word_embeddings ? withTiedEmbeddings(checkpoint) : checkpoint,
      processor: (image) => prepareFixed(fixed, processor, image),
    };
  },
};
