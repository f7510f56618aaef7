/** `convert`: any readable model as one safetensors folder. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Checkpoint, TensorPlace } from '../files/folder.ts';
import { anyObject, readJsonAs } from '../files/schema.ts';
import { type FloatDType, type Piece, storedPiece, tensorPiece } from '../files/stream.ts';
import { openWeights } from '../files/torch-folder.ts';
import type { Tensor } from '../graph/dtype.ts';
import { describeFolder } from './layouts.ts';
import { loadModel, modelFolder, weightShapes } from './load.ts';
import { miniGpt4 } from './minigpt4.ts';
import { isMiniGpt4Folder, openMiniGpt4 } from './minigpt4-folder.ts';
import { quantizedFrom } from './quantized.ts';
import { companions, type FolderPlan, newFolder, present, type Written, writeFolder } from './write-folder.ts';

export interface ConvertOptions {
  out: string;
  /** type of the weights; each keeps its own when left out */
  dtype?: FloatDType;
  /** what is added to weights, by the names that the architecture reads */
  changes?: ReadonlyMap<string, Tensor<'float32'>> | undefined;
  signal?: AbortSignal;
  onProgress?: (doneBytes: number, totalBytes: number) => void;
}

export type Converted = Written;

export async function convert(model: string, { out, dtype, changes, signal, onProgress }: ConvertOptions): Promise<Converted> {
  const from = modelFolder(model);
  const target = newFolder(out);
  // Opening checks the whole model: all weights there, all shapes as configured.
  await loadModel(from, { maxMemory: Number.POSITIVE_INFINITY }).release();
  const quantized = quantizedFrom(from);
  if (quantized !== undefined && dtype !== undefined)
    throw new Error(
      `${from} is stored in ${quantized.dtype}, which has no floats to convert; convert the model that it was made from`,
    );
  if (quantized !== undefined && changes !== undefined)
    throw new Error(
      `${from} is stored in ${quantized.dtype}, which nothing can be added to; take the model that it was made from`,
    );
  const plan = planOf(from, dtype, changes ?? new Map());
  return writeFolder(target, plan, { what: 'conversion', signal, onProgress });
}

type Changes = ReadonlyMap<string, Tensor<'float32'>>;

const planOf = (from: string, dtype: FloatDType | undefined, changes: Changes): FolderPlan =>
  !existsSync(join(from, 'config.json')) && isMiniGpt4Folder(from)
    ? planMiniGpt4(from, dtype, changes)
    : planFolder(from, dtype, changes);

/** A stored tensor, with a change added to it where there is one. @param read the name that the architecture reads it by */
function changedPiece(
  name: string,
  read: string,
  { file, entry }: TensorPlace,
  dtype: FloatDType | undefined,
  changes: Changes,
): Piece {
  const change = changes.get(read);
  if (change === undefined) return storedPiece(name, file, entry, dtype);
  const { data, shape } = file.readTensor(entry, { as: 'float32' }) as Tensor<'float32'>;
  const sum = { dtype: 'float32' as const, shape, data: data.map((x, i) => x + change.data[i]!) };
  return tensorPiece(name, sum, dtype ?? (entry.dtype === 'F16' ? 'float16' : 'float32'));
}

/** @throws Error when a change belongs to no stored weight */
function checkPlaced(from: string, changes: Changes, names: Iterable<string>): void {
  const there = new Set(names);
  for (const name of changes.keys())
    if (!there.has(name)) throw new Error(`${from} stores no weight ${name}, so its change cannot be written into it`);
}

/** A folder with config.json keeps all its tensors, read here or not: other programs may ask for them. */
function planFolder(dir: string, dtype: FloatDType | undefined, changes: Changes): FolderPlan {
  const checkpoint: Checkpoint = openWeights(dir);
  const { rename } = describeFolder(dir);
  checkPlaced(dir, changes, checkpoint.names().map(rename));
  const config = readJsonAs(join(dir, 'config.json'), anyObject);
  return {
    pieces: checkpoint.names().map((name) => changedPiece(name, rename(name), checkpoint.place(name), dtype, changes)),
    json: { 'config.json': dtype === undefined ? config : { ...config, torch_dtype: dtype } },
    copies: present(dir, companions),
  };
}

/** MiniGPT-4's four files become one with the tensors that the model reads: its Q-Former file also holds BERT's text half. */
function planMiniGpt4(dir: string, dtype: FloatDType | undefined, changes: Changes): FolderPlan {
  const { config, checkpoint, derived, llamaFolder, processor } = openMiniGpt4(dir);
  const names = [...weightShapes(miniGpt4(config)).keys()];
  checkPlaced(
    dir,
    changes,
    names.filter((name) => !derived.has(name)),
  );
  const pieces = names.map((name) => {
    const made = derived.get(name)?.();
    if (made !== undefined) return tensorPiece(name, made as Tensor<'float32'>, dtype);
    return changedPiece(name, name, checkpoint.place(name), dtype, changes);
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
