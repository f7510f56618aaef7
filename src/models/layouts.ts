/** What a folder's config.json says it holds, before anything of it is built: the family, its configuration, and the names of its weights. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { parseConfig, withoutNulls } from '../files/config.ts';
import type { Checkpoint } from '../files/folder.ts';
import { type Json, readJson } from '../files/json.ts';
import { openWeights } from '../files/torch-folder.ts';
import type { LayerCount } from './configs/layout.ts';
import { families } from './families.ts';
import type { Family, Folder, Opened } from './family.ts';
import { nearestTo } from './nearest.ts';
import { quantizedIn } from './quantized.ts';

/** A folder's configuration, as its family reads it. */
export interface Described {
  /** its `model_type` */
  readonly family: string;
  readonly config: unknown;
  rename(name: string): string;
  /** numbers of layers that the configuration says */
  readonly layers: readonly LayerCount[];
  open(folder: Omit<Folder<unknown>, 'config'>): Opened;
}

/**
 * Reads a config.json as that of a family that can be opened.
 * @param path for messages
 * @throws Error that says what is not supported, and what is nearest or how to convert it
 */
export function describeConfig(path: string, value: Json): Described {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Error(`${path} is not the configuration of a model: expected an object with model_type`);
  if ('mm_vision_tower' in value || value.model_type === 'llava_llama')
    throw new Error(
      `${path} is of a LLaVA in the layout of its authors' code (mm_vision_tower, without the image encoder's weights). Open the same model in transformers' layout (llava-hf/llava-1.5-7b-hf, llava-hf/llava-1.5-13b-hf), or convert the folder with convert_llava_weights_to_hf.py of transformers 4.57 (src/transformers/models/llava)`,
    );
  const family = typeof value.model_type === 'string' ? value.model_type : '';
  if (!Object.hasOwn(families, family)) {
    throw new Error(
      `${path}: model_type ${JSON.stringify(value.model_type)} is not known; known: ${Object.keys(families).join(', ')}${nearestTo(family)}`,
    );
  }
  quantizedIn(path, value);
  const { layout, open } = families[family as keyof typeof families] as Family<unknown>;
  const config = parseConfig(path, layout.schema, withoutNulls(value));
  return {
    ...{ family, config, rename: layout.rename, layers: layout.layers(config) },
    open: (folder) => open({ ...folder, config }),
  };
}

/** The configuration of a folder that has config.json. */
export function describeFolder(dir: string): Described {
  const path = join(dir, 'config.json');
  if (!existsSync(path))
    throw new Error(
      `${dir} has no config.json; a model is a folder with config.json, the files of its tokenizer and its weights`,
    );
  return describeConfig(path, readJson(path));
}

/**
 * Opens the weights of a described folder by the names that its architecture reads.
 * @throws Error when the folder has other numbers of layers than its configuration
 */
export function openNamed(dir: string, described: Described): Checkpoint {
  const checkpoint = openWeights(dir).renamed(described.rename);
  checkLayers(join(dir, 'config.json'), checkpoint, described.layers);
  return checkpoint;
}

/** More layers than the configuration says would be left out of the answer without a word; far too few would be built before they are missed. */
export function checkLayers(path: string, checkpoint: Checkpoint, counts: readonly LayerCount[]): void {
  for (const { prefix, field, count } of counts) {
    let there = 0;
    for (const name of checkpoint.names())
      if (name.startsWith(prefix)) there = Math.max(there, Number.parseInt(name.slice(prefix.length), 10) + 1);
    if (there > count || (there > 0 && 2 * there < count))
      throw new Error(
        `${path}: ${field} is ${count}, but the weights have ${there} layers (${prefix}0 to ${there - 1}); copy config.json from the place where the model was published`,
      );
  }
}
