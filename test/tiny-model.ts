/**
 * LLaVA folders of any size with random weights, in the published layout, for tests and for the bench: they need no download and say nothing
 * sensible. The tokenizer is the mini world's.
 */
import { join } from 'node:path';
import { vocabulary } from '../lab/world/vocabulary.ts';
import { randomLlava, weightMean, weightScale, writeCompanions } from '../scripts/random-checkpoint.ts';
import { toFloat16, writeSafetensors } from '../src/files/safetensors.ts';
import { f32, sizeOf, type Tensor } from '../src/graph/dtype.ts';
import type { RgbImage } from '../src/input/segments.ts';
import { weightShapes } from '../src/models/load.ts';
import { Random } from '../src/random.ts';

export interface Sizes {
  hidden: number;
  layers: number;
  heads: number;
  keyHeads: number;
  mlp: number;
  /** at least that of the mini world's tokenizer */
  vocabulary: number;
  positions: number;
  visionHidden: number;
  visionLayers: number;
  /** patches on one side of the picture */
  side: number;
  patch: number;
  half: boolean;
  seed: string;
}

export const tinySizes: Sizes = {
  hidden: 32,
  layers: 4,
  heads: 4,
  keyHeads: 4,
  mlp: 48,
  vocabulary: vocabulary.length,
  positions: 128,
  visionHidden: 16,
  visionLayers: 2,
  side: 3,
  patch: 4,
  half: false,
  seed: 'tiny',
};

/** Weights of a random model, each of a stream of its own. */
export function randomWeight(name: string, shape: readonly number[], seed: string): Tensor<'float32'> {
  const data = new Random(`${seed}/${name}`).normals(sizeOf(shape), weightScale(name, shape));
  const mean = weightMean(name);
  if (mean !== 0) for (let i = 0; i < data.length; i++) data[i]! += mean;
  return f32(data, shape);
}

/** Writes the folder and returns its path. */
export function writeRandomLlava(dir: string, given: Partial<Sizes> = {}): string {
  const s = { ...tinySizes, ...given };
  const model = randomLlava(
    {
      hidden_size: s.hidden,
      intermediate_size: s.mlp,
      num_hidden_layers: s.layers,
      num_attention_heads: s.heads,
      num_key_value_heads: s.keyHeads,
      vocab_size: s.vocabulary,
      max_position_embeddings: s.positions,
    },
    {
      hidden_size: s.visionHidden,
      intermediate_size: 2 * s.visionHidden,
      num_hidden_layers: s.visionLayers,
      num_attention_heads: 4,
      image_size: s.side * s.patch,
      patch_size: s.patch,
    },
    { vision_feature_layer: -1 },
  );
  writeCompanions(dir, model);
  const weights = new Map(
    [...weightShapes(model.architecture)].map(([name, shape]): [string, Tensor] => {
      const made = randomWeight(name, shape, s.seed);
      return [name, s.half ? { dtype: 'float16', shape, data: toFloat16(made.data) } : made];
    }),
  );
  writeSafetensors(join(dir, 'model.safetensors'), weights, { format: 'pt' });
  return dir;
}

/** A picture of random pixels. */
export function randomPicture(seed: string | number, width = 24, height = width): RgbImage {
  const random = new Random(`${seed}/picture`);
  return { width, height, data: Uint8Array.from({ length: width * height * 3 }, () => random.int(256)) };
}
