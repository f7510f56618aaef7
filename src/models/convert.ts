/** `convert`: any readable model as one safetensors folder. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Checkpoint } from '../files/folder.ts';
import { anyObject, readJsonAs } from '../files/schema.ts';
import { type FloatDType, storedPiece, tensorPiece } from '../files/stream.ts';
import { openWeights } from '../files/torch-folder.ts';
import type { Tensor } from '../graph/dtype.ts';
import { loadModel, modelFolder, weightShapes } from './load.ts';
import { miniGpt4 } from './minigpt4.ts';
import { isMiniGpt4Folder, openMiniGpt4 } from './minigpt4-folder.ts';
import { quantizedFrom } from './quantized.ts';
import { companions, type FolderPlan, newFolder, present, type Written, writeFolder } from './write-folder.ts';

export interface ConvertOptions {
  out: string;
  /** type of the weights; each keeps its own when left out */
  dtype?: FloatDType;
  signal?: AbortSignal;
  onProgress?: (doneBytes: number, totalBytes: number) => void;
}

export type Converted = Written;

export async function convert(model: string, { out, dtype, signal, onProgress }: ConvertOptions): Promise<Converted> {
  const from = modelFolder(model);
  const target = newFolder(out);
  // Opening checks the whole model: all weights there, all shapes as configured.
  await loadModel(from, { maxMemory: Number.POSITIVE_INFINITY }).release();
  const quantized = quantizedFrom(from);
  if (quantized !== undefined && dtype !== undefined)
    throw new Error(
      `${from} is stored in ${quantized.dtype}, which has no floats to convert; convert the model that it was made from`,
    );
  const plan = planOf(from, dtype);
  return writeFolder(target, plan, { what: 'conversion', signal, onProgress });
}

const planOf = (from: string, dtype: FloatDType | undefined): FolderPlan =>
  !existsSync(join(from, 'config.json')) && isMiniGpt4Folder(from) ? planMiniGpt4(from, dtype) : planFolder(from, dtype);

/** A folder with config.json keeps all its tensors, read here or not: other programs may ask for them. */
function planFolder(dir: string, dtype: FloatDType | undefined): FolderPlan {
  const checkpoint: Checkpoint = openWeights(dir);
  const config = readJsonAs(join(dir, 'config.json'), anyObject);
  return {
    pieces: checkpoint.names().map((name) => {
      const { file, entry } = checkpoint.place(name);
      return storedPiece(name, file, entry, dtype);
    }),
    json: { 'config.json': dtype === undefined ? config : { ...config, torch_dtype: dtype } },
    copies: present(dir, companions),
  };
}

/** MiniGPT-4's four files become one with the tensors that the model reads: its Q-Former file also holds BERT's text half. */
function planMiniGpt4(dir: string, dtype: FloatDType | undefined): FolderPlan {
  const { config, checkpoint, derived, llamaFolder, processor } = openMiniGpt4(dir);
  const pieces = [...weightShapes(miniGpt4(config)).keys()].map((name) => {
    const made = derived.get(name)?.();
    if (made !== undefined) return tensorPiece(name, made as Tensor<'float32'>, dtype);
    const { file, entry } = checkpoint.place(name);
    return storedPiece(name, file, entry, dtype);
  });
  const { size, mean, std } = processor;
  return {
    pieces,
    json: {
      'config.json': { ...config, ...(dtype === undefined ? {} : { torch_dtype: dtype }) },
      'preprocessor_config.json': {
        image_processor_type: 'BlipImageProcessor',
        size: { height: size, width: size },
        resample: 3,
        ...(mean ? { image_mean: mean } : {}),
        ...(std ? { image_std: std } : {}),
      },
    },
    copies: present(
      llamaFolder,
      companions.filter((name) => !name.includes('processor_config')),
    ),
  };
}
