/** Opens a model by folder or built-in name: reads its configuration, binds its weights where they lie on disk, and checks them all. */

import { existsSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  blip2Config,
  generationConfig,
  llavaConfig,
  parseConfig,
  preprocessorConfig,
  readConfig,
  readJson,
} from '../checkpoints/config.ts';
import { Checkpoint } from '../checkpoints/folder.ts';
import { isHubId, pulledFolder } from '../checkpoints/hub.ts';
import { openWeights } from '../checkpoints/torch-folder.ts';
import { isContiguous } from '../checkpoints/torch-pickle.ts';
import type { Tensor } from '../graph/dtype.ts';
import { input, nameOf, parameterOp, topological } from '../graph/index.ts';
import { type ImageProcessor, imageProcessor } from '../image/processor.ts';
import { Weights } from '../nn/weights.ts';
import type { WeightLocation, WeightSource } from '../onnx/emit.ts';
import type { CompileOptions } from '../runtime/program.ts';
import { loadTokenizer, requireToken, type Tokenizer } from '../text/tokenizer.ts';
import type { Architecture } from './architecture.ts';
import { blip2Opt } from './blip2-opt.ts';
import { llava } from './llava.ts';
import { miniGpt4, miniGpt4Config } from './minigpt4.ts';
import { isMiniGpt4Folder, openMiniGpt4 } from './minigpt4-folder.ts';
import { Sites } from './sites.ts';
import { Vlm } from './vlm.ts';

/** Models that come with the repository. */
export const builtInModels = ['mini-llava', 'mini-blip2-opt', 'mini-minigpt4'] as const;

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** The folder of a model named on a command line: a built-in name, a folder, or a hub model that was pulled. */
export function modelFolder(model: string): string {
  if ((builtInModels as readonly string[]).includes(model)) {
    const folder = join(root, 'models', model);
    if (!existsSync(join(folder, 'config.json')))
      throw new Error(`the built-in model ${model} is not part of this copy (${folder} has no config.json)`);
    return folder;
  }
  const folder = resolve(model);
  if (existsSync(folder)) return folder;
  const pulled = pulledFolder(model);
  if (pulled !== undefined) return pulled;
  const fetch = isHubId(model) ? `, or fetch it from a hub: visedit pull ${model}` : '';
  throw new Error(`no model at ${folder}; give a folder, or one of: ${builtInModels.join(', ')}${fetch}`);
}

const dtypes = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' } as const;

/**
 * Binds weights to their place on disk; what is stored in another type than a float is refused. Tensors of torch files that are not
 * contiguous are read into memory.
 * @param derived weights that are made from stored ones
 */
export function weightsOf(checkpoint: Checkpoint, derived: ReadonlyMap<string, () => Tensor> = new Map()): WeightSource {
  // Hubs keep files elsewhere and link to them, but the engine refuses links that lead out of a folder.
  const real = new Map<string, string>();
  const realPath = (path: string): string => {
    const known = real.get(path) ?? realpathSync(path);
    real.set(path, known);
    return known;
  };
  return (name): WeightLocation | Tensor => {
    const made = derived.get(name)?.();
    if (made !== undefined) return made;
    const { file, entry } = checkpoint.place(name);
    const dtype = dtypes[entry.dtype as keyof typeof dtypes];
    if (dtype === undefined)
      throw new Error(`${file.path}: ${name} is stored as ${entry.dtype}; weights must be F32, F16 or BF16`);
    if (!isContiguous(entry)) return file.readTensor(entry, { as: 'float32' });
    return { file: realPath(file.path), offset: entry.begin, bytes: entry.bytes, dtype, shape: entry.shape };
  };
}

/** Names and shapes of every weight that an architecture reads. */
export function weightShapes(architecture: Architecture): Map<string, readonly number[]> {
  const weights = new Weights();
  const { decoder } = architecture;
  const positions = input('positions', ['b', 'l'], 'int64');
  const bias = input('bias', ['b', 1, 'l', 'l']);
  const sites = new Sites();
  architecture.vision(input('pixels', ['b', 3, ...architecture.imageSize]), weights, new Sites());
  let x = decoder.enter(decoder.embed(input('ids', ['b', 'l'], 'int64'), weights), positions, weights);
  for (let i = 0; i < decoder.layers; i++) x = decoder.layer(i, x, { weights, sites, positions, bias });
  const logits = decoder.head(x, weights);
  const leaves = topological([logits, ...weights.entries().values()]).filter((n) => n.op === parameterOp);
  return new Map(leaves.map((n) => [nameOf(n), n.shape as number[]]));
}

/** Checks that the checkpoint has every weight at the shape that the configuration asks for; all that do not fit are named. */
export function checkWeights(
  checkpoint: Checkpoint,
  architecture: Architecture,
  derived: ReadonlyMap<string, unknown> = new Map(),
): void {
  const wrong: string[] = [];
  const shapes = weightShapes(architecture);
  let missing = 0;
  for (const [name, shape] of shapes) {
    if (derived.has(name)) continue;
    if (!checkpoint.has(name)) {
      missing++;
      wrong.push(`${name} is missing`);
      continue;
    }
    const { file, entry } = checkpoint.place(name);
    if (entry.shape.join() !== shape.join()) {
      wrong.push(
        `${name} is [${entry.shape.join(', ')}] in ${basename(file.path)}, the configuration asks for [${shape.join(', ')}]`,
      );
    }
  }
  if (wrong.length === 0) return;
  // What the model would not read tells which part is of another model.
  const strangers = missing === 0 ? [] : checkpoint.names().filter((name) => !shapes.has(name));
  const hint = strangers.length === 0 ? '' : `\n  not read by this model: ${byLayer(strangers, 8).join(', ')}`;
  const what = `${wrong.length} weights do not fit; are all its parts of one model?`;
  throw new Error(`${checkpoint.dir}: ${what}\n  ${byLayer(wrong, 60).join('\n  ')}${hint}`);
}

/** Lines that differ in the number of a layer only, as one: `layers.{0,2,4}.norm`. */
function byLayer(lines: readonly string[], most: number): string[] {
  const groups = new Map<string, number[]>();
  for (const line of lines) {
    const layer = /\.(\d+)\./.exec(line)?.[1];
    const key = line.replace(/\.\d+\./, '.*.');
    groups.set(key, [...(groups.get(key) ?? []), ...(layer === undefined ? [] : [Number(layer)])]);
  }
  const numbers = (n: readonly number[]): string => {
    if (n.length < 4) return n.join();
    const inOrder = n.every((layer, i) => layer === n[0]! + i);
    return inOrder ? `${n[0]}..${n.at(-1)}` : `${n.slice(0, 3).join()},..${n.at(-1)}`;
  };
  const out = [...groups].map(([key, n]) => (n.length < 2 ? key.replace('*', n.join()) : key.replace('*', `{${numbers(n)}}`)));
  return out.length <= most ? out : [...out.slice(0, most), `... and ${out.length - most} more`];
}

export type LoadOptions = CompileOptions;

/** Opens a model folder in a published layout. */
export function loadModel(model: string, options: LoadOptions = {}): Vlm {
  const dir = modelFolder(model);
  const path = join(dir, 'config.json');
  if (!existsSync(path) && isMiniGpt4Folder(dir)) return loadPublishedMiniGpt4(dir, options);
  const config = readJson(path) as { model_type?: unknown };
  const load = loaders[String(config.model_type) as keyof typeof loaders];
  if (load === undefined) {
    throw new Error(
      `${path}: model_type ${JSON.stringify(config.model_type)} is not known; known: ${Object.keys(loaders).join(', ')}`,
    );
  }
  return load(dir, options);
}

/** The parts of every model: its checked weights, its tokenizer, and what ends an answer. */
function assemble(
  dir: string,
  architecture: Architecture,
  checkpoint: Checkpoint,
  tokenizer: Tokenizer,
  processor: ImageProcessor,
  eosIds: readonly number[],
  options: LoadOptions,
  derived?: ReadonlyMap<string, () => Tensor>,
): Vlm {
  checkWeights(checkpoint, architecture, derived);
  const generation = join(tokenizer.dir, 'generation_config.json');
  const named = existsSync(generation) ? readConfig(generation, generationConfig).eos_token_id : [];
  return new Vlm({
    name: basename(dir),
    architecture,
    weights: weightsOf(checkpoint, derived),
    codec: { encode: (text, o) => tokenizer.encode(text, o), decode: (ids, o) => tokenizer.decode(ids, o) },
    processor: (image) => processor.process(image),
    eosIds: named.length > 0 ? named : eosIds,
    fingerprint: () => checkpoint.fingerprint(),
    compileOptions: options,
  });
}

/** The processor that preprocessor_config.json describes; its pictures must have the size that the model takes. */
function processorOf(dir: string, [height, width]: readonly [number, number]): ImageProcessor {
  const path = join(dir, 'preprocessor_config.json');
  const processor = imageProcessor(readConfig(path, preprocessorConfig), path);
  if (processor.height !== height || processor.width !== width) {
    throw new Error(
      `${path} makes pictures of ${processor.height} by ${processor.width}, config.json asks for ${height} by ${width}`,
    );
  }
  return processor;
}

function loadLlava(dir: string, options: LoadOptions): Vlm {
  const config = readConfig(join(dir, 'config.json'), llavaConfig);
  const architecture = llava(config);
  const tokenizer = loadTokenizer(dir);
  requireToken(tokenizer, '<image>');
  const processor = processorOf(dir, architecture.imageSize);
  return assemble(dir, architecture, openWeights(dir), tokenizer, processor, config.text_config.eos_token_id, options);
}

function loadBlip2(dir: string, options: LoadOptions): Vlm {
  const config = readConfig(join(dir, 'config.json'), blip2Config);
  const architecture = blip2Opt(config);
  const tied = config.text_config.tie_word_embeddings;
  const checkpoint = tied ? withTiedEmbeddings(openWeights(dir)) : openWeights(dir);
  const processor = processorOf(dir, architecture.imageSize);
  return assemble(dir, architecture, checkpoint, loadTokenizer(dir), processor, config.text_config.eos_token_id, options);
}

/** Files that keep one name of a tied pair may keep the head's. */
function withTiedEmbeddings(checkpoint: Checkpoint): Checkpoint {
  const [embedding, head] = ['language_model.model.decoder.embed_tokens.weight', 'language_model.lm_head.weight'] as const;
  if (checkpoint.has(embedding) || !checkpoint.has(head)) return checkpoint;
  const places = checkpoint.names().map((name) => [name === head ? embedding : name, checkpoint.place(name)] as const);
  return new Checkpoint(checkpoint.dir, new Map(places));
}

/** A MiniGPT-4 in one folder, as `convert` writes it. */
function loadMiniGpt4(dir: string, options: LoadOptions): Vlm {
  const config = readConfig(join(dir, 'config.json'), miniGpt4Config);
  const architecture = miniGpt4(config);
  const tokenizer = loadTokenizer(dir, { slow: existsSync(join(dir, 'tokenizer.model')) });
  const processor = processorOf(dir, architecture.imageSize);
  return assemble(dir, architecture, openWeights(dir), tokenizer, processor, config.text_config.eos_token_id, options);
}

/** MiniGPT-4 as published: model_config.yaml, a LLaMA folder, three torch files. */
function loadPublishedMiniGpt4(dir: string, options: LoadOptions): Vlm {
  const { config, checkpoint, derived, llamaFolder, processor: settings } = openMiniGpt4(dir);
  const processor = imageProcessor(
    parseConfig(join(dir, 'processor_config.yaml'), preprocessorConfig, {
      image_processor_type: 'BlipImageProcessor',
      size: settings.size,
      image_mean: settings.mean,
      image_std: settings.std,
    }),
  );
  const tokenizer = loadTokenizer(llamaFolder, { slow: true });
  return assemble(dir, miniGpt4(config), checkpoint, tokenizer, processor, config.text_config.eos_token_id, options, derived);
}

/** One line per published layout. */
const loaders = {
  llava: loadLlava,
  'blip-2': loadBlip2,
  minigpt4: loadMiniGpt4,
};
