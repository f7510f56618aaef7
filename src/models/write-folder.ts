/**
 * A model folder written whole or not at all: everything goes beside the target under another name, which is renamed at the end, so that a stopped
 * conversion leaves nothing that looks like a model.
 */

import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { makeFolder, placeFolder } from '../files/atomic.ts';
import { isRunning } from '../files/hold-folder.ts';
import { type Piece, type PieceOrder, writePieces } from '../files/stream.ts';
import { Stopped } from '../nn/loop.ts';
import { gigabytes } from './memory.ts';

/** Files beside the weights that a folder may have: what loadModel reads, and what other programs look for. */
export const companions = [
  'tokenizer.json',
  'tokenizer.model',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'generation_config.json',
  'preprocessor_config.json',
  'processor_config.json',
  'chat_template.json',
  'chat_template.jinja',
];

export interface FolderPlan {
  pieces: readonly Piece[];
  /** how the pieces follow each other in the file */
  order?: PieceOrder;
  /** name and content */
  json: Record<string, unknown>;
  copies: readonly string[];
}

export interface Written {
  out: string;
  tensors: number;
  bytes: number;
}

export interface WriteOptions {
  /** what it is that is stopped */
  what: string;
  signal?: AbortSignal | undefined;
  onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

/** The absolute path of a folder to write. @throws Error when something is there */
export function newFolder(out: string): string {
  const to = resolve(out);
  if (existsSync(to) && readdirSync(to).length > 0) throw new Error(`${to} is not empty; name a new folder`);
  return to;
}

/** @param to from `newFolder` */
export async function writeFolder(to: string, plan: FolderPlan, { what, signal, onProgress }: WriteOptions): Promise<Written> {
  const { pieces, order, json, copies } = plan;
  const bytes = pieces.reduce((sum, piece) => sum + piece.bytes, 0);
  const parent = dirname(to);
  makeFolder(parent);
  removeLeftovers(to);
  const free = freeBytes(parent);
  if (bytes > free)
    throw new Error(
      `${parent} has ${gigabytes(free)} free, the new model takes ${gigabytes(bytes)}; free some space or choose another place`,
    );
  const draft = join(parent, `.${basename(to)}.${process.pid}${DRAFT}`);
  mkdirSync(draft);
  try {
    for (const [name, value] of Object.entries(json)) writeFileSync(join(draft, name), `${JSON.stringify(value, null, 2)}\n`);
    for (const path of copies) copyFileSync(path, join(draft, basename(path)));
    let done = 0;
    const afterChunk = (count: number): void => {
      done += count;
      onProgress?.(done, bytes);
      if (signal?.aborted) throw new Stopped(`stopped; nothing is left of the ${what} to ${to}`);
    };
    await writePieces(join(draft, 'model.safetensors'), pieces, { format: 'pt' }, { afterChunk, ...(order ? { order } : {}) });
    placeFolder(draft, to);
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

/** Free space where a folder is or will be. */
export function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

export const present = (dir: string, names: readonly string[]): string[] =>
  names.map((name) => join(dir, name)).filter((path) => existsSync(path));
