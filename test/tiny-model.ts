/**
 * LLaVA folders of any size with random weights, in the published layout, for tests and for the bench: they need no download and say nothing
 * sensible. The tokenizer is the mini world's.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { llavaConfig } from '../src/checkpoints/config.ts';
import { toFloat16, writeSafetensors } from '../src/checkpoints/safetensors.ts';
import { bosId, eosId, imageId, padId, vocabulary, writeTokenizer } from '../src/data/world/vocabulary.ts';
import { f32, sizeOf, type Tensor } from '../src/graph/dtype.ts';
import { llava } from '../src/models/llava.ts';
import { weightShapes } from '../src/models/load.ts';
import type { RgbImage } from '../src/models/vlm.ts';
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

/** Weights of a random model: normal with 1/sqrt(fan-in), norms near one. Large embeddings make its answers depend on the words. */
export function randomWeight(name: string, shape: readonly number[], seed: string): Tensor<'float32'> {
  const norm = /norm|layrnorm/.test(name);
  const embedding = /embed_tokens|embedding/.test(name);
  const scale = norm || shape.length === 1 ? 0.05 : embedding ? 0.5 : sizeOf(shape.slice(1)) ** -0.5;
  const data = new Random(`${seed}/${name}`).normals(sizeOf(shape), scale);
  if (norm && name.endsWith('weight')) for (let i = 0; i < data.length; i++) data[i]! += 1;
  return f32(data, shape);
}

/** Writes the folder and returns its path. */
export function writeRandomLlava(dir: string, given: Partial<Sizes> = {}): string {
  const s = { ...tinySizes, ...given };
  const image = s.side * s.patch;
  const config = {
    architectures: ['LlavaForConditionalGeneration'],
    model_type: 'llava',
    image_token_index: imageId,
    pad_token_id: padId,
    projector_hidden_act: 'gelu',
    vision_feature_layer: -1,
    vision_feature_select_strategy: 'default',
    text_config: {
      model_type: 'llama',
      hidden_size: s.hidden,
      intermediate_size: s.mlp,
      num_hidden_layers: s.layers,
      num_attention_heads: s.heads,
      num_key_value_heads: s.keyHeads,
      vocab_size: s.vocabulary,
      max_position_embeddings: s.positions,
      rms_norm_eps: 1e-5,
      tie_word_embeddings: false,
      bos_token_id: bosId,
      eos_token_id: eosId,
      pad_token_id: padId,
    },
    vision_config: {
      model_type: 'clip_vision_model',
      hidden_size: s.visionHidden,
      intermediate_size: 2 * s.visionHidden,
      num_hidden_layers: s.visionLayers,
      num_attention_heads: 4,
      image_size: image,
      patch_size: s.patch,
    },
  };
  const preprocessor = {
    crop_size: { height: image, width: image },
    do_center_crop: true,
    do_convert_rgb: true,
    do_normalize: true,
    do_rescale: true,
    do_resize: true,
    image_mean: [0.48145466, 0.4578275, 0.40821073],
    image_std: [0.26862954, 0.26130258, 0.27577711],
    image_processor_type: 'CLIPImageProcessor',
    resample: 3,
    rescale_factor: 1 / 255,
    size: { shortest_edge: image },
  };
  mkdirSync(dir, { recursive: true });
  const json = (name: string, value: unknown): void => writeFileSync(join(dir, name), `${JSON.stringify(value, null, 2)}\n`);
  json('config.json', config);
  json('preprocessor_config.json', preprocessor);
  json('generation_config.json', { bos_token_id: bosId, eos_token_id: eosId, pad_token_id: padId });
  writeTokenizer(dir);
  const shapes = weightShapes(llava(llavaConfig.parse(config)));
  const weights = new Map(
    [...shapes].map(([name, shape]): [string, Tensor] => {
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
