/** Opens a model by folder or built-in name: reads its configuration, binds its weights where they lie on disk, and checks them all. */

import { existsSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { generationConfig, llavaConfig, preprocessorConfig, readConfig, readJson } from '../checkpoints/config.ts';
import { type Checkpoint, openCheckpoint } from '../checkpoints/folder.ts';
import { input, parameterOp, topological, nameOf } from '../graph/index.ts';
import { imageProcessor } from '../image/processor.ts';
import { Weights } from '../nn/weights.ts';
import type { WeightLocation, WeightSource } from '../onnx/emit.ts';
import type { CompileOptions } from '../runtime/program.ts';
import { loadTokenizer, requireToken } from '../text/tokenizer.ts';
import type { Architecture } from './architecture.ts';
import { llava } from './llava.ts';
import { Sites } from './sites.ts';
import { Vlm } from './vlm.ts';

/** Models that come with the repository. */
export const builtInModels = ['mini-llava', 'mini-blip2-opt', 'mini-minigpt4'] as const;

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** The folder of a model named on a command line. */
export function modelFolder(model: string): string {
  if ((builtInModels as readonly string[]).includes(model)) {
    const folder = join(root, 'models', model);
    if (!existsSync(join(folder, 'config.json'))) throw new Error(`the built-in model ${model} is not part of this copy (${folder} has no config.json)`);
    return folder;
  }
  const folder = resolve(model);
  if (!existsSync(folder)) throw new Error(`no model at ${folder}; give a folder, or one of: ${builtInModels.join(', ')}`);
  return folder;
}

const dtypes = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' } as const;

/** Binds weights to their place on disk; what is stored in another type than a float is refused. */
export function weightsOf(checkpoint: Checkpoint): WeightSource {
  return (name): WeightLocation => {
    const { file, entry } = checkpoint.place(name);
    const dtype = dtypes[entry.dtype as keyof typeof dtypes];
    if (dtype === undefined) throw new Error(`${file.path}: ${name} is stored as ${entry.dtype}; weights must be F32, F16 or BF16`);
    return { file: resolve(file.path), offset: entry.begin, bytes: entry.bytes, dtype, shape: entry.shape };
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

/** Checks that the checkpoint has every weight at the shape that config.json asks for. */
export function checkWeights(checkpoint: Checkpoint, architecture: Architecture): void {
  const wrong: string[] = [];
  for (const [name, shape] of weightShapes(architecture)) {
    if (!checkpoint.has(name)) wrong.push(`${name} is missing`);
    else {
      const stored = checkpoint.place(name).entry.shape;
      if (stored.join() !== shape.join()) wrong.push(`${name} is [${stored.join(', ')}], config.json asks for [${shape.join(', ')}]`);
    }
  }
  if (wrong.length > 0) {
    const shown = wrong.slice(0, 8).join('\n  ');
    throw new Error(`${checkpoint.dir}: ${wrong.length} weights do not fit:\n  ${shown}${wrong.length > 8 ? '\n  ...' : ''}`);
  }
}

export type LoadOptions = CompileOptions;

/** Opens a model folder in a published layout. */
export function loadModel(model: string, options: LoadOptions = {}): Vlm {
  const dir = modelFolder(model);
  const config = readJson(join(dir, 'config.json')) as { model_type?: unknown };
  const load = loaders[String(config.model_type) as keyof typeof loaders];
  if (load === undefined) {
    throw new Error(`${join(dir, 'config.json')}: model_type ${JSON.stringify(config.model_type)} is not known; known: ${Object.keys(loaders).join(', ')}`);
  }
  return load(dir, options);
}

function loadLlava(dir: string, options: LoadOptions): Vlm {
  const config = readConfig(join(dir, 'config.json'), llavaConfig);
  const architecture = llava(config);
  const checkpoint = openCheckpoint(dir);
  checkWeights(checkpoint, architecture);
  const tokenizer = loadTokenizer(dir);
  requireToken(tokenizer, '<image>');
  const processor = imageProcessor(readConfig(join(dir, 'preprocessor_config.json'), preprocessorConfig), join(dir, 'preprocessor_config.json'));
  const generation = join(dir, 'generation_config.json');
  const eosIds = existsSync(generation) ? readConfig(generation, generationConfig).eos_token_id : [];
  return new Vlm({
    name: basename(dir),
    architecture,
    weights: weightsOf(checkpoint),
    codec: { encode: (text, o) => tokenizer.encode(text, o), decode: (ids, o) => tokenizer.decode(ids, o) },
    processor: (image) => processor.process(image),
    eosIds: eosIds.length > 0 ? eosIds : config.text_config.eos_token_id,
    fingerprint: () => checkpoint.fingerprint(),
    compileOptions: options,
  });
}

/** One line per published layout. */
const loaders = {
  llava: loadLlava,
};
