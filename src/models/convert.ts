/**
 * `convert`: any readable model as one safetensors folder. Everything is written beside the target under another name and renamed at the
 * end, so that a stopped conversion leaves nothing that looks like a model.
 */

import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { readJson } from '../checkpoints/config.ts';
import type { Checkpoint } from '../checkpoints/folder.ts';
import { type FloatDType, type Piece, storedPiece, tensorPiece, writePieces } from '../checkpoints/stream.ts';
import { openWeights } from '../checkpoints/torch-folder.ts';
import type { Tensor } from '../graph/dtype.ts';
import { Stopped } from '../training/loop.ts';
import { loadModel, modelFolder, weightShapes } from './load.ts';
import { miniGpt4 } from './minigpt4.ts';
import { isMiniGpt4Folder, openMiniGpt4 } from './minigpt4-folder.ts';

export interface ConvertOptions {
  out: string;
  /** type of the weights; each keeps its own when left out */
  dtype?: FloatDType;
  signal?: AbortSignal;
  onProgress?: (doneBytes: number, totalBytes: number) => void;
}

export interface Converted {
  out: string;
  tensors: number;
  bytes: number;
}

/** Files beside the weights that a folder may have: what loadModel reads, and what other programs look for. */
const companions = [
  'tokenizer.json',
  'tokenizer.model',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'generation_config.json',
  'processor_config.json',
  'chat_template.json',
];

interface Plan {
  pieces: Piece[];
  /** name and content */
  json: Record<string, unknown>;
  copies: string[];
}

export async function convert(model: string, { out, dtype, signal, onProgress }: ConvertOptions): Promise<Converted> {
  const from = modelFolder(model);
  const to = resolve(out);
  if (existsSync(to) && readdirSync(to).length > 0) throw new Error(`${to} is not empty; name a new folder`);
  // Opening checks the whole model: all weights there, all shapes as configured.
  await loadModel(from).release();
  const { pieces, json, copies } =
    !existsSync(join(from, 'config.json')) && isMiniGpt4Folder(from) ? planMiniGpt4(from, dtype) : planFolder(from, dtype);
  const bytes = pieces.reduce((sum, piece) => sum + piece.bytes, 0);
  const parent = dirname(to);
  mkdirSync(parent, { recursive: true });
  removeLeftovers(to);
  const free = freeBytes(parent);
  if (bytes > free)
    throw new Error(
      `${parent} has ${gigabytes(free)} free, the converted model takes ${gigabytes(bytes)}; free some space or choose another place`,
    );
  const draft = join(parent, `.${basename(to)}.${process.pid}${DRAFT}`);
  mkdirSync(draft);
  try {
    for (const [name, value] of Object.entries(json)) writeFileSync(join(draft, name), `${JSON.stringify(value, null, 2)}\n`);
    for (const path of copies) copyFileSync(path, join(draft, basename(path)));
    let done = 0;
    await writePieces(join(draft, 'model.safetensors'), pieces, { format: 'pt' }, (count) => {
      done += count;
      onProgress?.(done, bytes);
      if (signal?.aborted) throw new Stopped(`stopped; nothing is left of the conversion to ${to}`);
    });
    if (existsSync(to)) rmdirSync(to);
    renameSync(draft, to);
  } catch (error) {
    rmSync(draft, { recursive: true, force: true });
    throw error;
  }
  return { out: to, tensors: pieces.length, bytes };
}

const DRAFT = '.converting';

/** Drafts of conversions to the same place whose process is gone. */
function removeLeftovers(to: string): void {
  const start = `.${basename(to)}.`;
  for (const name of readdirSync(dirname(to))) {
    if (!name.startsWith(start) || !name.endsWith(DRAFT)) continue;
    const pid = Number(name.slice(start.length, -DRAFT.length));
    if (Number.isInteger(pid) && pid > 0 && !isRunning(pid)) rmSync(join(dirname(to), name), { recursive: true });
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;

const present = (dir: string, names: readonly string[]): string[] =>
  names.map((name) => join(dir, name)).filter((path) => existsSync(path));

/** A folder with config.json keeps all its tensors, read here or not: other programs may ask for them. */
function planFolder(dir: string, dtype: FloatDType | undefined): Plan {
  const checkpoint: Checkpoint = openWeights(dir);
  const config = readJson(join(dir, 'config.json')) as Record<string, unknown>;
  return {
    pieces: checkpoint.names().map((name) => {
      const { file, entry } = checkpoint.place(name);
      return storedPiece(name, file, entry, dtype);
    }),
    json: { 'config.json': dtype === undefined ? config : { ...config, torch_dtype: dtype } },
    copies: present(dir, [...companions, 'preprocessor_config.json']),
  };
}

/** MiniGPT-4's four files become one with the tensors that the model reads: its Q-Former file also holds BERT's text half. */
function planMiniGpt4(dir: string, dtype: FloatDType | undefined): Plan {
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
    copies: present(llamaFolder, companions),
  };
}
