/**
 * MiniGPT-4 (Zhu et al. 2023; reference: the VisEdit authors' `minigpt4.py`): EVA ViT-g, `ln_vision`, the Q-Former of BLIP-2, a linear
 * projection, Vicuna. Weight names are those of the reference's module, whichever files the weights lie in (minigpt4-folder.ts).
 */

import { z } from 'zod';
import { width } from '../files/config.ts';
import { layerNorm, scope } from '../graph/index.ts';
import { miniGpt4Chat } from '../input/chat/families.ts';
import { linear } from '../nn/layers.ts';
import type { Architecture, FixedPictures } from './architecture.ts';
import { blipVit, evaVitNames } from './blip-vit.ts';
import { patchesOf } from './clip-vit.ts';
import { blip2VisionConfig, qFormerConfig } from './configs/blip2.ts';
import { type Layout, renameBy } from './configs/layout.ts';
import { llamaConfig } from './configs/llama.ts';
import { llama } from './llama.ts';
import { fixedPixels, pieces } from './pictures.ts';
import { lavisQFormerNames, qFormer } from './q-former.ts';

/** config.json of a MiniGPT-4 in one folder; the published files say the same in four places. */
export const miniGpt4Config = z.looseObject({
  model_type: z.literal('minigpt4', 'expected "minigpt4"'),
  num_query_tokens: width.default(32),
  text_config: llamaConfig.prefault({}),
  vision_config: blip2VisionConfig.prefault({}),
  qformer_config: qFormerConfig.prefault({}),
});
export type MiniGpt4Config = z.output<typeof miniGpt4Config>;

/** The image encoder's file may hold more blocks than are read: the published code leaves out the last. */
export const miniGpt4Layout: Layout<MiniGpt4Config> = {
  schema: miniGpt4Config,
  rename: renameBy([
    [/^llama_model\.(?=(layers|embed_tokens|norm)\.)/, 'llama_model.model.'],
    [/^(Qformer\.bert\..*\bLayerNorm\.)gamma$/, '$1weight'],
    [/^(Qformer\.bert\..*\bLayerNorm\.)beta$/, '$1bias'],
  ]),
  layers: ({ text_config, qformer_config }) => [
    { prefix: 'llama_model.model.layers.', field: 'text_config.num_hidden_layers', count: text_config.num_hidden_layers },
    { prefix: 'Qformer.bert.encoder.layer.', field: 'qformer_config.num_hidden_layers', count: qformer_config.num_hidden_layers },
  ],
};

const PLACEHOLDER = '<ImageHere>';
/** `ln_vision` is a plain LayerNorm; the encoder's own norms have a smaller epsilon. */
const NORM_EPSILON = 1e-5;

export function miniGpt4(config: MiniGpt4Config): Architecture {
  const { vision_config: vision, qformer_config: query, text_config: text, num_query_tokens: count } = config;
  const side = patchesOf(vision.image_size, vision.patch_size);
  const fixed: FixedPictures = { count, grid: [side, side], size: [vision.image_size, vision.image_size] };
  return {
    name: 'minigpt4',
    decoder: llama(text, 'llama_model.'),
    fixed,
    patchMap: 'qformer.map',
    placeholder: () => PLACEHOLDER,
    chat: miniGpt4Chat,
    afterPicture: '\n',
    // Each text is tokenised by itself; the special token that begins the input stands before a picture at the start.
    layout: (parts, codec) => pieces(parts, codec, 'input'),
    pixels: () => fixedPixels(fixed),
    vision: ({ pixels }, w, sites) =>
      scope('vision', () => {
        const d = vision.hidden_size;
        const hidden = blipVit(pixels!, vision, evaVitNames, w, sites);
        const normal = layerNorm(hidden, w.get('ln_vision.weight', [d]), w.get('ln_vision.bias', [d]), NORM_EPSILON);
        const queries = qFormer(sites.site('vision.features', normal), query, count, lavisQFormerNames, w, sites);
        return sites.site('visual', linear(w, 'llama_proj', queries, query.hidden_size, text.hidden_size));
      }),
  };
}
