/**
 * Results on disk as JSON lines, one per record, appended a batch at a time. Whatever moment a run is killed at, what was finished is kept and
 * a half-written line is ignored. Several processes write a file each (`records.part-N.jsonl`); `gather` makes one file of them all.
 */

import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { makeFolder, writeFileAtomic } from '../files/atomic.ts';
import { parseJsonLines } from '../files/schema.ts';
import { type RecordResult, recordResult } from './metrics.ts';

export const recordsFile = 'records.jsonl';
export const partFile = (part: number): string => `records.part-${part}.jsonl`;
const isResults = (name: string): boolean => /^records(\.part-\d+)?\.jsonl$/.test(name);

export const hasResults = (folder: string): boolean => existsSync(folder) && readdirSync(folder).some(isResults);

/** Lines by record index; what is not a whole result is left out. */
function readLines(path: string, into: Map<number, string>): void {
  const lines = readFileSync(path, 'utf8').split('\n');
  // Without its newline the last line may be cut off, even where it happens to be JSON.
  lines.pop();
  for (const line of lines) {
    // What does not fit is a line cut off by a kill, followed by those of the run that went on.
    for (const { index } of parseJsonLines(line, path, recordResult, 'skip')) into.set(index, line);
  }
}

/**
 * Puts all whole batches of a folder into one file, in the order of `batches`, and removes the parts.
 * @param batches record indices of each batch
 * @returns the finished batches
 */
export function gather(folder: string, batches: readonly (readonly number[])[]): Set<number> {
  makeFolder(folder);
  const files = readdirSync(folder).filter(isResults);
  const lines = new Map<number, string>();
  for (const name of files) readLines(join(folder, name), lines);
  const finished = batches.flatMap((indices, i) => (indices.every((index) => lines.has(index)) ? [i] : []));
  const kept = finished.flatMap((i) => batches[i]!.map((index) => `${lines.get(index)}\n`)).join('');
  const path = join(folder, recordsFile);
  if (!existsSync(path) || readFileSync(path, 'utf8') !== kept) writeFileAtomic(path, kept);
  for (const name of files) if (name !== recordsFile) rmSync(join(folder, name));
  return new Set(finished);
}

export function readResults(folder: string): RecordResult[] {
  const lines = new Map<number, string>();
  readLines(join(folder, recordsFile), lines);
  return [...lines.values()].flatMap((line) => parseJsonLines(line, folder, recordResult));
}

/** Appends batches to a file of JSON lines; each is on disk when `append` returns. Several processes may append to one file. */
export class Appender {
  readonly #fd: number;

  /** @param goesOn what to do after an error, as its message says it */
  constructor(
    readonly path: string,
    readonly goesOn = 'run again with --resume; the batches before are kept',
  ) {
    this.#fd = openSync(path, 'a+');
    const { size } = fstatSync(this.#fd);
    const last = Buffer.alloc(1);
    // A line that a kill cut off would take the next one with it.
    if (size > 0 && readSync(this.#fd, last, 0, 1, size - 1) === 1 && last.toString() !== '\n') writeSync(this.#fd, '\n');
  }

  append(lines: readonly object[]): void {
    const bytes = Buffer.from(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(this.#fd, bytes, done);
      fsyncSync(this.#fd);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const full = code === 'ENOSPC' || code === 'EDQUOT';
      const reason = full ? 'no space left on the disk. Free some' : `${message}. Put that right`;
      throw new Error(`cannot write ${this.path}: ${reason} and ${this.goesOn}`, {
        cause: error,
      });
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}
