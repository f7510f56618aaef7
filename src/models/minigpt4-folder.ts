/**
 * MiniGPT-4 as it is published: model_config.yaml names a LLaMA folder and three torch files (EVA ViT; Q-Former, `ln_vision` and query
 * tokens; the projection), whose tensors are brought together under the names of the reference's module.
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { layerCount, parseConfig, readConfig, width } from '../files/config.ts';
import { Checkpoint, type TensorPlace } from '../files/folder.ts';
import { openWeights, placesOf } from '../files/torch-folder.ts';
import { openTorch } from '../files/torch-pickle.ts';
import { readYaml } from '../files/yaml.ts';
import { f32, type Tensor } from '../graph/dtype.ts';
import { qFormerConfig } from './configs/blip2.ts';
import { llamaConfig } from './configs/llama.ts';
import { type MiniGpt4Config, miniGpt4Config, miniGpt4Layout } from './minigpt4.ts';

const POSITIONS = 'visual_encoder.pos_embed';

const fileName = z.string('expected the name of a file').min(1, 'expected the name of a file');
const modelSchema = z.looseObject({
  llama_model: fileName,
  vit_path: fileName,
  q_former_model: fileName,
  ckpt: fileName,
  bert_base_uncased_config_path: fileName,
  image_size: width.default(224),
  num_query_token: width.default(32),
  has_qformer: z.literal(true, 'only true is supported: MiniGPT-4 without a Q-Former is another model').default(true),
  vit_model: z.literal('eva_clip_g', 'only eva_clip_g is supported').default('eva_clip_g'),
});

const rgb = z.array(z.number()).length(3, 'expected three numbers, one per colour').nullish();
const processorSchema = z.looseObject({ image_size: width.default(224), mean: rgb, std: rgb });

/** Sizes that the published code fixes: EVA ViT-g, of which it drops the last of 40 blocks. */
const vitSchema = z.looseObject({
  img_size: width.optional(),
  patch_size: width.default(14),
  embed_dim: width.default(1408),
  depth: layerCount.default(39),
  num_heads: width.default(16),
  mlp_ratio: z.number('expected a number').positive('expected a number above 0').default(4.3637),
  qkv_bias: z.boolean('expected true or false').default(true),
  norm_eps: z.number('expected a number').positive('expected a number above 0').default(1e-6),
});
const vitFileSchema = z.looseObject({ vit: vitSchema.prefault({}) });

/** BERT's names of the Q-Former's sizes. */
const bertSchema = z.looseObject({ cross_attention_freq: width.default(2) });

export interface MiniGpt4Folder {
  readonly config: MiniGpt4Config;
  readonly checkpoint: Checkpoint;
  /** tensors that must be made from stored ones */
  readonly derived: ReadonlyMap<string, () => Tensor>;
  readonly llamaFolder: string;
  readonly processor: { readonly size: number; readonly mean?: number[]; readonly std?: number[] };
}

export const isMiniGpt4Folder = (dir: string): boolean => existsSync(join(dir, 'model_config.yaml'));

export function openMiniGpt4(dir: string): MiniGpt4Folder {
  const model = readYaml(join(dir, 'model_config.yaml'), modelSchema);
  const llamaFolder = join(dir, model.llama_model);
  const vitPath = join(dir, 'eva_vit_config.json');
  const vit = (existsSync(vitPath) ? readConfig(vitPath, vitFileSchema) : parseConfig(vitPath, vitFileSchema, {})).vit;
  const size = vit.img_size ?? model.image_size;
  const bertPath = join(dir, model.bert_base_uncased_config_path);
  const config = parseConfig(dir, miniGpt4Config, {
    model_type: 'minigpt4',
    num_query_tokens: model.num_query_token,
    text_config: readConfig(join(llamaFolder, 'config.json'), llamaConfig),
    vision_config: {
      hidden_size: vit.embed_dim,
      intermediate_size: Math.trunc(vit.embed_dim * vit.mlp_ratio),
      num_hidden_layers: vit.depth,
      num_attention_heads: vit.num_heads,
      image_size: size,
      patch_size: vit.patch_size,
      layer_norm_eps: vit.norm_eps,
      qkv_bias: vit.qkv_bias,
    },
    qformer_config: {
      ...readConfig(bertPath, qFormerConfig),
      cross_attention_frequency: readConfig(bertPath, bertSchema).cross_attention_freq,
      encoder_hidden_size: vit.embed_dim,
    },
  });
  const checkpoint = gather(dir, llamaFolder, model);
  const processorPath = join(dir, 'processor_config.yaml');
  const processor = existsSync(processorPath) ? readYaml(processorPath, processorSchema) : { image_size: size };
  if (processor.image_size !== size) {
    throw new Error(`${processorPath}: image_size is ${processor.image_size}, but the image encoder takes pictures of ${size}`);
  }
  return {
    config,
    checkpoint,
    derived: resizedPositions(checkpoint, config),
    llamaFolder,
    processor: processorOf(size, processor),
  };
}

function processorOf(
  size: number,
  { mean, std }: { mean?: number[] | null | undefined; std?: number[] | null | undefined },
): MiniGpt4Folder['processor'] {
  return { size, ...(mean ? { mean } : {}), ...(std ? { std } : {}) };
}

/** All tensors under one set of names; where files repeat a name, the reference loads the later one over the earlier. */
function gather(dir: string, llamaFolder: string, model: z.output<typeof modelSchema>): Checkpoint {
  const llama = openWeights(llamaFolder);
  const places = new Map<string, TensorPlace>(llama.names().map((name) => [`llama_model.${name}`, llama.place(name)]));
  const layers: [string, TensorPlace][][] = [
    placesOf(openTorch(join(dir, model.vit_path)), 'visual_encoder.'),
    placesOf(openTorch(join(dir, model.q_former_model), 'model')),
    placesOf(openTorch(join(dir, model.ckpt), 'model')),
  ];
  for (const layer of layers) for (const [name, place] of layer) places.set(name, place);
  return new Checkpoint(dir, places).renamed(miniGpt4Layout.rename);
}

/** Position embeddings for another picture size are interpolated from the stored ones, as the reference does. */
function resizedPositions(checkpoint: Checkpoint, { vision_config: vision }: MiniGpt4Config): Map<string, () => Tensor> {
  const derived = new Map<string, () => Tensor>();
  if (!checkpoint.has(POSITIONS)) return derived;
  const [one, tokens, d] = checkpoint.place(POSITIONS).entry.shape as [number, number, number];
  const side = Math.trunc(vision.image_size / vision.patch_size);
  const from = Math.sqrt(tokens - 1);
  if (one !== 1 || d !== vision.hidden_size || !Number.isInteger(from) || from === side) return derived;
  derived.set(POSITIONS, () => {
    const { data } = checkpoint.get(POSITIONS, undefined, { as: 'float32' });
    const out = new Float32Array((1 + side * side) * d);
    out.set(data.subarray(0, d));
    out.set(interpolate(data.subarray(d), from, side, d), d);
    return f32(out, [1, 1 + side * side, d]);
  });
  return derived;
}

/** torch's bicubic interpolation (a = −0.75, corners not aligned) of a square grid of vectors, [from², d] -> [to², d]. */
export function interpolate(grid: Float32Array, from: number, to: number, d: number): Float32Array {
  const A = -0.75;
  const near = (x: number): number => ((A + 2) * x - (A + 3)) * x * x + 1;
  const far = (x: number): number => ((A * x - 5 * A) * x + 8 * A) * x - 4 * A;
  const taps = Array.from({ length: to }, (_, i) => {
    const at = ((i + 0.5) * from) / to - 0.5;
    const base = Math.floor(at);
    const t = at - base;
    return [far(1 + t), near(t), near(1 - t), far(2 - t)].map((weight, n) => ({
      weight,
      index: Math.min(from - 1, Math.max(0, base - 1 + n)),
    }));
  });
  const out = new Float32Array(to * to * d);
  for (let y = 0; y < to; y++) {
    for (let x = 0; x < to; x++) {
      for (let c = 0; c < d; c++) {
        let sum = 0;
        for (const row of taps[y]!)
          for (const column of taps[x]!) sum += row.weight * column.weight * grid[(row.index * from + column.index) * d + c]!;
        out[(y * to + x) * d + c] = sum;
      }
    }
  }
  return out;
}
