/**
 * A model folder of a published shape with random weights: for measuring what real sizes take, without a download. It says nothing sensible. The
 * weights differ from layer to layer (equal ones would be held once), and are scaled so that activations stay finite; the tokenizer is the mini
 * world's, filled up to the published vocabulary.
 *   node --import tsx scripts/random-checkpoint.ts llava-1.5-7b|blip2-opt-2.7b|minigpt4-7b|qwen3-vl-2b|… --out DIR [--dtype float16|float32] [--seed S]
 * The shapes of modern families are those of modern-shapes.ts.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { bosId, eosId, imageId, padId, tokenizerFiles } from '../lab/world/vocabulary.ts';
import { toFloat16 } from '../src/files/half.ts';
import { type Piece, writePieces } from '../src/files/stream.ts';
import { sizeOf } from '../src/graph/dtype.ts';
import type { Architecture } from '../src/models/architecture.ts';
import { blip2Opt } from '../src/models/blip2-opt.ts';
import { blip2Config } from '../src/models/configs/blip2.ts';
import { llavaConfig } from '../src/models/configs/llava.ts';
import { llava } from '../src/models/llava.ts';
import { weightShapes } from '../src/models/load.ts';
import { miniGpt4, miniGpt4Config } from '../src/models/minigpt4.ts';
import { Random } from '../src/random.ts';
import { type ModernModel, modernShapes } from './modern-shapes.ts';

/** Modern families say themselves what their folders hold beside configuration and weights. */
export type RandomModel = Pick<ModernModel, 'config' | 'architecture'> &
  Partial<Pick<ModernModel, 'processor' | 'tokens' | 'picture'>>;

const ids = { bos_token_id: bosId, eos_token_id: eosId, pad_token_id: padId };

/** A LLaVA of any size; what `text` and `vision` leave out is that of LLaVA-1.5-7B. */
export function randomLlava(
  text: Record<string, unknown>,
  vision: Record<string, unknown>,
  more: Record<string, unknown> = {},
): RandomModel {
  const config = {
    architectures: ['LlavaForConditionalGeneration'],
    model_type: 'llava',
    image_token_index: imageId,
    pad_token_id: padId,
    projector_hidden_act: 'gelu',
    vision_feature_select_strategy: 'default',
    ...more,
    text_config: { model_type: 'llama', rms_norm_eps: 1e-5, tie_word_embeddings: false, ...ids, ...text },
    vision_config: { model_type: 'clip_vision_model', ...vision },
  };
  return { config, architecture: llava(llavaConfig.parse(config)) };
}

const opt27b = {
  model_type: 'opt',
  hidden_size: 2560,
  ffn_dim: 10240,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  vocab_size: 50304,
  word_embed_proj_dim: 2560,
};
const clipLarge = {
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 24,
  num_attention_heads: 16,
  image_size: 336,
  patch_size: 14,
};

/** Published shapes. */
export const shapes = {
  'llava-1.5-7b': () =>
    randomLlava({ vocab_size: 32064, max_position_embeddings: 4096 }, clipLarge, { vision_feature_layer: -2 }),
  'blip2-opt-2.7b': () => {
    const config = { architectures: ['Blip2ForConditionalGeneration'], model_type: 'blip-2', text_config: { ...opt27b, ...ids } };
    return { config, architecture: blip2Opt(blip2Config.parse(config)) };
  },
  'minigpt4-7b': () => {
    const config = { model_type: 'minigpt4', text_config: { model_type: 'llama', vocab_size: 32000, ...ids } };
    return { config, architecture: miniGpt4(miniGpt4Config.parse(config)) };
  },
  ...modernShapes,
} satisfies Readonly<Record<string, () => RandomModel>>;

/**
 * Everything of a model folder but its weights.
 * @param vocabulary tokens that the tokenizer is filled up to
 */
export function writeCompanions(dir: string, model: RandomModel, vocabulary = 0): void {
  const { config, architecture, tokens = {}, picture } = model;
  mkdirSync(dir, { recursive: true });
  const json = (name: string, value: unknown): void => writeFileSync(join(dir, name), `${JSON.stringify(value, null, 2)}\n`);
  json('config.json', config);
  json('preprocessor_config.json', model.processor ?? olderProcessor(architecture));
  json('generation_config.json', ids);
  if (picture !== undefined) writeFileSync(join(dir, 'chat_template.jinja'), chatTemplate(picture));
  const files = tokenizerFiles(
    picture === undefined ? { bos: architecture.name === 'blip2-opt' ? '</s>' : '<s>' } : { bos: null, image: '<unused>' },
  );
  const { model: pieces, added_tokens: added } = files['tokenizer.json'] as {
    model: { vocab: [string, number][] };
    added_tokens: { id: number; content: string }[];
  };
  for (let id = pieces.vocab.length; id < vocabulary; id++) pieces.vocab.push([`▁filler${id}`, -100]);
  for (const [content, id] of Object.entries(tokens)) {
    pieces.vocab[id] = [content, 0];
    added.push({ ...added[0]!, id, content });
  }
  for (const [name, content] of Object.entries(files)) json(name, content);
}

const chatTemplate = (picture: string): string =>
  [
    '{%- for m in messages -%}{{ m.role + ": " }}',
    `{%- for c in m.content -%}{%- if c.type == "image" -%}{{ ${JSON.stringify(picture)} }}{%- else -%}{{ c.text }}{%- endif -%}{%- endfor -%}{{ " " }}`,
    '{%- endfor -%}{%- if add_generation_prompt -%}{{ "assistant:" }}{%- endif -%}',
  ].join('');

/** preprocessor_config.json of families of fixed pictures. */
function olderProcessor(architecture: Architecture): unknown {
  const [height, width] = architecture.fixed!.size;
  const clip = architecture.name === 'llava';
  return {
    do_convert_rgb: true,
    do_normalize: true,
    do_rescale: true,
    do_resize: true,
    image_mean: [0.48145466, 0.4578275, 0.40821073],
    image_std: [0.26862954, 0.26130258, 0.27577711],
    image_processor_type: clip ? 'CLIPImageProcessor' : 'BlipImageProcessor',
    resample: 3,
    rescale_factor: 1 / 255,
    ...(clip
      ? { do_center_crop: true, crop_size: { height, width }, size: { shortest_edge: height } }
      : { size: { height, width } }),
  };
}

const isNorm = (name: string): boolean => /norm|layrnorm|\.ln_q\./i.test(name);

/** Standard deviation of random weights: 1/sqrt(fan-in), norms near one. Large embeddings make answers depend on the words. */
export function weightScale(name: string, shape: readonly number[]): number {
  if (isNorm(name) || shape.length === 1) return 0.05;
  return /embed_tokens|embedding|query_tokens|cls_token|pos_embed/.test(name) ? 0.5 : sizeOf(shape.slice(1)) ** -0.5;
}

/** What random weights vary around. */
export const weightMean = (name: string): number => (isNorm(name) && name.endsWith('weight') ? 1 : 0);

const POOL = 2 ** 22;
const RUN = 2 ** 20;

/** Random weights as pieces of a file: runs from one pool of normal numbers, each from a place of its own. */
function randomPieces(model: RandomModel, half: boolean, seed: string): Piece[] {
  const random = new Random(seed);
  const normals = random.fork('pool').normals(POOL, 1);
  const pools = new Map<string, Float32Array | Uint16Array>();
  const poolOf = (scale: number, mean: number): Float32Array | Uint16Array => {
    const key = `${scale}/${mean}`;
    let pool = pools.get(key);
    if (pool === undefined) {
      const values = normals.map((x) => mean + scale * x);
      pool = half ? toFloat16(values) : values;
      pools.set(key, pool);
    }
    return pool;
  };
  return [...weightShapes(model.architecture)].map(([name, shape]): Piece => {
    const count = sizeOf(shape);
    return {
      name,
      dtype: half ? 'F16' : 'F32',
      shape,
      bytes: count * (half ? 2 : 4),
      *read() {
        const pool = poolOf(weightScale(name, shape), weightMean(name));
        const place = random.fork(name);
        for (let at = 0; at < count; at += RUN) {
          const from = place.int(POOL - RUN);
          const run = pool.subarray(from, from + Math.min(RUN, count - at));
          yield new Uint8Array(run.buffer, run.byteOffset, run.byteLength);
        }
      },
    };
  });
}

export async function writeRandomCheckpoint(
  dir: string,
  model: RandomModel,
  {
    half = true,
    seed = '0',
    afterChunk = () => {},
  }: { half?: boolean; seed?: string; afterChunk?: (bytes: number) => void } = {},
): Promise<void> {
  writeCompanions(dir, model, model.architecture.decoder.vocabulary);
  await writePieces(join(dir, 'model.safetensors'), randomPieces(model, half, seed), { format: 'pt' }, { afterChunk });
}

/** @throws Error that lists the shapes */
export function randomModelOf(shape: string): RandomModel {
  const make = (shapes as Readonly<Record<string, () => RandomModel>>)[shape];
  if (make === undefined)
    throw new Error(`there is no shape ${JSON.stringify(shape)}; one of: ${Object.keys(shapes).join(', ')}`);
  return make();
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { out: { type: 'string' }, dtype: { type: 'string', default: 'float16' }, seed: { type: 'string', default: '0' } },
  });
  if (positionals.length !== 1 || values.out === undefined || !['float16', 'float32'].includes(values.dtype)) {
    process.stderr.write(
      `usage: random-checkpoint.ts ${Object.keys(shapes).join('|')} --out DIR [--dtype float16|float32] [--seed S]\n`,
    );
    process.exit(1);
  }
  const started = performance.now();
  let bytes = 0;
  await writeRandomCheckpoint(values.out, randomModelOf(positionals[0]!), {
    half: values.dtype === 'float16',
    seed: values.seed,
    afterChunk: (count) => {
      bytes += count;
    },
  });
  process.stdout.write(
    `${values.out}: ${(bytes / 1e9).toFixed(2)} GB in ${((performance.now() - started) / 1000).toFixed(0)} s\n`,
  );
}
