/**
 * MiniGPT-4 (Zhu et al. 2023; reference: the VisEdit authors' `minigpt4.py`): EVA ViT-g, `ln_vision`, the Q-Former of BLIP-2, a linear
 * projection, Vicuna. Weight names are those of the reference's module, whichever files the weights lie in (minigpt4-folder.ts).
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { parseConfig, width } from '../files/config.ts';
import { layerNorm, scope } from '../graph/index.ts';
import { miniGpt4Chat } from '../input/chat/families.ts';
import { preprocessorConfig } from '../input/image/config.ts';
import { type ImageProcessor, imageProcessor } from '../input/image/processor.ts';
import { loadTokenizer, type Tokenizer } from '../input/text/tokenizer.ts';
import { linear } from '../nn/layers.ts';
import type { Architecture, FixedPictures } from './architecture.ts';
import { blipVit, evaVitNames } from './blip-vit.ts';
import { patchesOf } from './clip-vit.ts';
import { blip2VisionConfig, qFormerConfig } from './configs/blip2.ts';
import { type Layout, renameBy } from './configs/layout.ts';
import { llamaConfig } from './configs/llama.ts';
import { type Family, fixedProcessor, type Opened } from './family.ts';
import { llama } from './llama.ts';
import type { MiniGpt4Folder } from './minigpt4-folder.ts';
import { fixedPixels, pieces, prepareFixed } from './pictures.ts';
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

/** The authors read LLaMA's tokenizer.model; folders that transformers 5 writes have tokenizer.json alone. */
const vicunaTokenizer = (dir: string): Tokenizer => loadTokenizer(dir, { slow: existsSync(join(dir, 'tokenizer.model')) });

const opened = (
  config: MiniGpt4Config,
  tokenizer: Tokenizer,
  processorFor: (architecture: Architecture) => ImageProcessor,
): Omit<Opened, 'checkpoint'> => {
  const architecture = miniGpt4(config);
  const processor = processorFor(architecture);
  return {
    ...{ architecture, tokenizer, eosIds: config.text_config.eos_token_id, prompt: 'unseen' },
    processor: (image) => prepareFixed(architecture.fixed!, processor, image),
  };
};

/** In one folder, as `convert` writes it. */
export const miniGpt4Family: Family<MiniGpt4Config> = {
  layout: miniGpt4Layout,
  open: ({ dir, config, checkpoint }) => ({
    ...opened(config, vicunaTokenizer(dir), ({ fixed }) => fixedProcessor(dir, fixed!.size, 'BlipImageProcessor')),
    checkpoint,
  }),
};

/** As published. */
export function openPublished(dir: string, { config, checkpoint, derived, llamaFolder, processor }: MiniGpt4Folder): Opened {
  const path = join(dir, 'processor_config.yaml');
  const settings = parseConfig(path, preprocessorConfig, {
    image_processor_type: 'BlipImageProcessor',
    size: processor.size,
    image_mean: processor.mean,
    image_std: processor.std,
  });
  return { ...opened(config, vicunaTokenizer(llamaFolder), () => imageProcessor(settings, path)), checkpoint, derived };
}
