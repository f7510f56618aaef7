/** Opens a model by folder or built-in name: reads its configuration, binds its weights where they lie on disk, and checks them all. */

import { existsSync, statSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { z } from 'zod';
import { parseConfig, readConfig } from '../files/config.ts';
import { isHubId, pulledFolder } from '../files/hub.ts';
import { packageRoot } from '../files/package-root.ts';
import { chosenDevice, type DeviceChoice, engineOn } from '../runtime/node.ts';
import type { CompileOptions, Engine } from '../runtime/program.ts';
import { chatOf } from './chat.ts';
import { type GenerationConfig, generationConfig } from './configs/generation.ts';
import type { Opened } from './family.ts';
import { notFiniteWeight } from './finite.ts';
import { checkLayers, describeFolder, openNamed } from './layouts.ts';
import { batchWithin, checkFree, chooseResidency, memoryOnCard, numbersOf, type Residency } from './memory.ts';
import { miniGpt4Layout, openPublished } from './minigpt4.ts';
import { isMiniGpt4Folder, openMiniGpt4 } from './minigpt4-folder.ts';
import { checkType, quantizedFrom, storedTypeOf } from './quantized.ts';
import { modelSize } from './size.ts';
import { tokenRules } from './token-rules.ts';
import { Vlm } from './vlm.ts';
import { isRounded, type WeightType } from './weight-types.ts';
import { blocksOf, checkWeights, isLarge, storedBlocks, weightsOf, weightUses } from './weights.ts';

export { weightShapes } from './weights.ts';

/** Models that come with the repository. */
export const builtInModels = ['mini-llava', 'mini-blip2-opt', 'mini-minigpt4', 'mini-qwen3-vl'] as const;

/** The folder of a model named on a command line: a built-in name, a folder, or a hub model that was pulled. */
export function modelFolder(model: string): string {
  if ((builtInModels as readonly string[]).includes(model)) {
    const folder = join(packageRoot, 'models', model);
    if (!existsSync(join(folder, 'config.json')))
      throw new Error(`the built-in model ${model} is not part of this copy (${folder} has no config.json)`);
    return folder;
  }
  const folder = resolve(model);
  const found = statSync(folder, { throwIfNoEntry: false });
  if (found?.isDirectory()) return folder;
  if (found !== undefined)
    throw new Error(`${folder} is a file; a model is the folder that holds its config.json, tokenizer and weights`);
  const pulled = pulledFolder(model);
  if (pulled !== undefined) return pulled;
  const fetch = isHubId(model) ? `, or fetch it from a hub: visedit pull ${model}` : '';
  throw new Error(`no model at ${folder}; give a folder, or one of: ${builtInModels.join(', ')}${fetch}`);
}

export interface LoadOptions extends CompileOptions {
  /** gives the engine that programs are made by, from that of the device: to look at their runs, or to let them wait */
  behind?: ((engine: Engine) => Engine) | undefined;
  /** what weights are kept as; as they are stored when left out. Whole numbers are rounded from floats, or stored so by `visedit quantize` */
  dtype?: WeightType | undefined;
  /** bytes of private memory that answering may take; what the machine has when left out */
  maxMemory?: number | undefined;
  /** pixels that a picture has at least and at most for the image encoder, where its processor scales by such limits; its own when left out */
  minPixels?: number | undefined;
  maxPixels?: number | undefined;
  /** how the model is run; chosen by its size and the memory when left out */
  residency?: Residency | undefined;
  /** where it runs; default: VISEDIT_DEVICE, or `auto`: CUDA where it works and the model is large, otherwise the processor */
  device?: DeviceChoice | undefined;
  /** an editor is trained: memory goes to its steps */
  training?: boolean | undefined;
}

/**
 * Opens a model folder in a published layout. Weights stay on disk until a program reads them.
 * @param model a built-in name, a folder, or a hub model that was pulled
 * @throws Error that says what is missing, has the wrong size or is not supported, and in which file
 */
export function loadModel(model: string, options: LoadOptions = {}): Vlm {
  const dir = modelFolder(model);
  if (!existsSync(join(dir, 'config.json')) && isMiniGpt4Folder(dir)) return loadPublishedMiniGpt4(dir, options);
  const described = describeFolder(dir);
  const rounded = isRounded(options.dtype) && storedTypeOf(dir) === undefined;
  const { minPixels, maxPixels } = options;
  const folder = { dir, checkpoint: openNamed(dir, described), rounded, limits: { minPixels, maxPixels } };
  return assemble(dir, described.open(folder), options);
}

/** Weights stay mapped from disk and are widened at each use. */
const mappedOptions: CompileOptions = { half: 'perUse', prepack: false };
/** Programs of one layer hold packed blocks; what they hold beside them is given back after each run. */
const packedOptions: CompileOptions = { arena: false };

/** Checks the weights and chooses how the model is run. */
function assemble(dir: string, opened: Opened, options: LoadOptions): Vlm {
  const { architecture, checkpoint, derived, tokenizer, processor } = opened;
  const { dtype, maxMemory, minPixels, maxPixels, residency, device, training, behind, ...compileOptions } = options;
  const name = basename(dir);
  if (architecture.fixed !== undefined && (minPixels ?? maxPixels) !== undefined) {
    const [height, width] = architecture.fixed.size;
    throw new Error(`${name} reads every picture as ${width} by ${height} pixels; leave --max-pixels and --min-pixels out`);
  }
  checkType(name, dtype, storedTypeOf(dir));
  const uses = weightUses(architecture);
  checkWeights(checkpoint, uses, derived);
  const size = modelSize(architecture, uses, checkpoint, dtype);
  const engine = engineOn(device ?? chosenDevice(), numbersOf(size.vision) + numbersOf(size.decoder));
  const onCard = engine.device.name !== 'cpu';
  const free = maxMemory ?? (onCard ? (engine.device.card?.memory ?? totalmem()) : freemem());
  const memory = onCard
    ? memoryOnCard(name, size, free)
    : chooseResidency(name, size, maxMemory ?? totalmem(), { given: residency, training });
  if (maxMemory === undefined && !onCard) checkFree(name, memory, free);
  const [path, generation] = generationOf(tokenizer.dir);
  const eosIds = generation.eos_token_id.length > 0 ? generation.eos_token_id : opened.eosIds;
  const inBlocks = (weight: string): boolean =>
    (storedBlocks(checkpoint, weight) ?? blocksOf(dtype ?? 'float32', uses.get(weight)!)) !== undefined;
  const packs = (read: readonly string[]): boolean =>
    memory.residency === 'layered' && read.every((weight) => !isLarge(uses.get(weight)!.shape) || inBlocks(weight));
  return new Vlm({
    name,
    architecture,
    engine: behind?.(engine) ?? engine,
    weights: weightsOf(checkpoint, uses, { derived, type: dtype }),
    codec: tokenizer,
    processor,
    eosIds,
    chat: () => chatOf(architecture, tokenizer, dir, tokenizer.dir),
    rules: tokenRules(generation, { eosIds, prompt: opened.prompt, path }),
    fingerprint: () => quantizedFrom(dir)?.source ?? checkpoint.fingerprint(),
    notFinite: () => notFiniteWeight(checkpoint),
    compileOptions: memory.residency === 'whole' ? compileOptions : { ...compileOptions, ...mappedOptions },
    layered:
      memory.residency === 'whole'
        ? undefined
        : (read) => ({ ...compileOptions, ...(packs(read) ? packedOptions : { ...mappedOptions, arena: false }) }),
    memory,
    memoryBudget: free,
    batchLimit: batchWithin(memory, free),
    sizes: (type) => modelSize(architecture, uses, checkpoint, type),
  });
}

/** generation_config.json; files older than it say the same in config.json, of the decoder or of the whole. */
function generationOf(dir: string): [path: string, GenerationConfig] {
  const path = join(dir, 'generation_config.json');
  if (existsSync(path)) return [path, readConfig(path, generationConfig)];
  const { text_config, ...own } = readConfig(
    join(dir, 'config.json'),
    z.looseObject({ text_config: z.looseObject({}).optional() }),
  );
  return [join(dir, 'config.json'), parseConfig(join(dir, 'config.json'), generationConfig, { ...text_config, ...own })];
}

/** MiniGPT-4 as published: model_config.yaml, a LLaMA folder, three torch files. */
function loadPublishedMiniGpt4(dir: string, options: LoadOptions): Vlm {
  const published = openMiniGpt4(dir);
  checkLayers(dir, published.checkpoint, miniGpt4Layout.layers(published.config));
  return assemble(dir, openPublished(dir, published), options);
}
