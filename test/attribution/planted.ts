/**
 * A LLaVA whose answer provably hangs on one patch: it says "cat" where a patch is white and "rabbit" where none is. Every weight is 0 but these: the image
 * encoder makes a dimension of how white a patch is; the attention of layer 2 looks from every word at the patch with the largest such value, and writes
 * what it found into the dimension that "cat" is read from.
 */
import { join } from 'node:path';
import { vocabulary } from '../../lab/world/vocabulary.ts';
import { randomLlava, writeCompanions } from '../../scripts/random-checkpoint.ts';
import { writeSafetensors } from '../../src/files/safetensors.ts';
import { f32, sizeOf, type Tensor } from '../../src/graph/dtype.ts';
import type { Region, RgbImage } from '../../src/input/segments.ts';
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

function weight(name: string, shape: readonly number[]): Tensor<'float32'> {
  const data = new Float32Array(sizeOf(shape));
  if (/norm\d?\.weight$|layrnorm\.weight$/.test(name)) data.fill(1);
  if (name.endsWith('patch_embedding.weight')) data.fill(0.1, 0, data.length / vision);
  if (name.endsWith('position_embedding.weight')) for (let i = vision - 1; i < data.length; i += vision) data[i] = 10;
  if (name === 'language_model.model.embed_tokens.weight') for (let i = 0; i < data.length; i += hidden) data[i] = 1;
  if (name === 'multi_modal_projector.linear_1.bias') data[0] = -5;
  if (name === 'multi_modal_projector.linear_2.bias') data[3] = 1;
  for (const [row, column, value] of planted[name] ?? []) data[row * shape[1]! + column] = value;
  return f32(data, shape);
}

/** Writes the folder and returns its path. */
export function writePlanted(dir: string): string {
  const model = randomLlava(
    {
      ...{ hidden_size: hidden, intermediate_size: 48, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 4 },
      ...{ vocab_size: vocabulary.length, max_position_embeddings: 128 },
    },
    { hidden_size: vision, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 4, image_size: 16, patch_size: 4 },
    { vision_feature_layer: -1 },
  );
  writeCompanions(dir, model);
  const weights = new Map(
    [...weightShapes(model.architecture)].map(([name, shape]): [string, Tensor] => [name, weight(name, shape)]),
  );
  writeSafetensors(join(dir, 'model.safetensors'), weights, { format: 'pt' });
  return dir;
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
