/**
 * Models whose answer provably hangs on one patch: they say "cat" where a patch is white and "rabbit" where none is. Every weight is 0 but these: the image
 * encoder makes a dimension of how white a patch is; the attention of layer 2 looks from every word at the patch with the largest such value, and writes
 * what it found into the dimension that "cat" is read from. One is a LLaVA. The other reads tiles, a LLaVA-OneVision: of a white patch of a tile, the
 * view of the whole picture has a quarter of a patch, which is not white enough to count.
 */
import { join } from 'node:path';
import { vocabulary } from '../../lab/world/vocabulary.ts';
import { type RandomModel, randomLlava, writeCompanions } from '../../scripts/random-checkpoint.ts';
import { writeSafetensors } from '../../src/files/safetensors.ts';
import { f32, sizeOf, type Tensor } from '../../src/graph/dtype.ts';
import type { Region, RgbImage } from '../../src/input/segments.ts';
import { llavaOneVisionConfig } from '../../src/models/configs/llava-onevision.ts';
import { llavaOneVision } from '../../src/models/llava-onevision.ts';
import { weightShapes } from '../../src/models/load.ts';

export const readingLayer = 2;
const hidden = 32;
const vision = 16;
const idOf = (word: string): number => vocabulary.findIndex(({ piece }) => piece === `▁${word}`);
export const answers = { white: idOf('cat'), none: idOf('rabbit') };

/** Elements that are not 0, as [row, column, value] of a weight; `ones` are all 1. */
const planted: Readonly<Record<string, readonly (readonly [number, number, number])[]>> = {
  'multi_modal_projector.linear_1.weight': [[0, 0, 5]],
  'multi_modal_projector.linear_2.weight': [[1, 0, 2]],
  [`language_model.model.layers.${readingLayer}.self_attn.q_proj.weight`]: [[3, 0, 1.9]],
  [`language_model.model.layers.${readingLayer}.self_attn.k_proj.weight`]: [
    [3, 1, 1.9],
    // Words hold the attention where no patch is white, so that noise is not taken for white.
    [3, 0, 1.26],
  ],
  [`language_model.model.layers.${readingLayer}.self_attn.v_proj.weight`]: [
    [0, 1, 1],
    [1, 4, 1],
  ],
  [`language_model.model.layers.${readingLayer}.self_attn.o_proj.weight`]: [
    [2, 0, 0.7],
    [5, 1, 0.7],
  ],
  'language_model.lm_head.weight': [
    [answers.white, 2, 3],
    [answers.none, 0, 2],
  ],
};

/** What is 0 in most weights: `value` of some elements. */
function weight(name: string, shape: readonly number[], own: typeof planted): Tensor<'float32'> {
  const data = new Float32Array(sizeOf(shape));
  if (/norm\d?\.weight$|layrnorm\.weight$/.test(name)) data.fill(1);
  if (name.endsWith('patch_embedding.weight')) data.fill(0.1, 0, data.length / vision);
  if (name.endsWith('position_embedding.weight')) for (let i = vision - 1; i < data.length; i += vision) data[i] = 10;
  if (name === 'language_model.model.embed_tokens.weight') for (let i = 0; i < data.length; i += hidden) data[i] = 1;
  if (name === 'multi_modal_projector.linear_1.bias') data[0] = -5;
  if (name === 'multi_modal_projector.linear_2.bias' || name === 'image_newline') data[3] = 1;
  for (const [row, column, value] of own[name] ?? []) data[row * shape[1]! + column] = value;
  return f32(data, shape);
}

function writeModel(dir: string, model: RandomModel, own: typeof planted): string {
  writeCompanions(dir, model);
  const weights = new Map(
    [...weightShapes(model.architecture)].map(([name, shape]): [string, Tensor] => [name, weight(name, shape, own)]),
  );
  writeSafetensors(join(dir, 'model.safetensors'), weights, { format: 'pt' });
  return dir;
}

const decoder = {
  hidden_size: hidden,
  intermediate_size: 48,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 4,
};
const encoder = {
  hidden_size: vision,
  intermediate_size: 32,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  image_size: 16,
  patch_size: 4,
};

/** Writes the folder of the LLaVA and returns its path. */
export function writePlanted(dir: string): string {
  const text = { ...decoder, vocab_size: vocabulary.length, max_position_embeddings: 128 };
  return writeModel(dir, randomLlava(text, encoder, { vision_feature_layer: -1 }), planted);
}

/** Writes the folder of the model of tiles and returns its path. */
export function writePlantedTiles(dir: string): string {
  const image = vocabulary.length;
  const grid = [16, 32].flatMap((height) => [16, 32].map((width) => [height, width]));
  const config = {
    ...{ architectures: ['LlavaOnevisionForConditionalGeneration'], model_type: 'llava_onevision', image_token_index: image },
    ...{ image_grid_pinpoints: grid, vision_aspect_ratio: 'anyres_max_9', vision_feature_layer: -1 },
    text_config: { model_type: 'qwen2', ...decoder, vocab_size: image + 1, max_position_embeddings: 256, rope_theta: 1e6 },
    vision_config: { model_type: 'siglip_vision_model', ...encoder },
  };
  const half = [0.5, 0.5, 0.5];
  const processor = {
    ...{ image_processor_type: 'LlavaOnevisionImageProcessor', image_mean: half, image_std: half, resample: 3 },
    ...{ size: { height: 16, width: 16 }, image_grid_pinpoints: grid },
  };
  const architecture = llavaOneVision(llavaOneVisionConfig.parse(config));
  const model = { config, architecture, processor, tokens: { '<image>': image }, picture: '<image>\n' };
  return writeModel(dir, model, { ...planted, 'multi_modal_projector.linear_1.weight': [[0, 0, 2.5]] });
}

/** A black picture with a white part. */
export function marked(width: number, height: number, part?: Region): RgbImage {
  const data = new Uint8Array(3 * width * height);
  if (part !== undefined)
    for (let y = Math.round(part.top); y < Math.round(part.top + part.height); y++)
      for (let x = Math.round(part.left); x < Math.round(part.left + part.width); x++)
        data.fill(255, 3 * (y * width + x), 3 * (y * width + x) + 3);
  return { width, height, data };
}
