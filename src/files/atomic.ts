/** Files that appear whole or not at all: a temporary file in the same folder, fsync, rename. */
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, rmdirSync, rmSync, statSync, writeSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';

/** At most this much per write call: one call is limited to 2 GiB. */
const CHUNK = 256 * 1024 * 1024;

/**
 * Writes `data` (text, bytes, or a sequence of byte chunks) under `path`; the folder is created when missing.
 * A crash at any moment leaves the former file, or none, never half a file under the final name.
 */
export function writeFileAtomic(path: string, data: string | Uint8Array | Iterable<Uint8Array>): void {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`);
  try {
    makeFolders(resolve(folder));
    const fd = openSync(temporary, 'wx', 0o666);
    try {
      for (const chunk of chunksOf(data)) writeFully(fd, chunk);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, path);
    syncFolder(folder);
  } catch (error) {
    discard(temporary);
    throw new Error(explain(path, error), { cause: error });
  }
}

/**
 * Makes a folder and those above it.
 * @throws Error that says why it cannot be: Node's own way says of a read-only disk that the folder does not exist, and never ends in /proc
 */
export function makeFolder(path: string): void {
  try {
    makeFolders(resolve(path));
  } catch (error) {
    throw new Error(explain(path, error), { cause: error });
  }
}

function makeFolders(path: string): void {
  const isFolder = (): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  if (isFolder()) return;
  if (dirname(path) !== path) makeFolders(dirname(path));
  try {
    mkdirSync(path);
  } catch (error) {
    // Another process may have made it meanwhile.
    if (!isFolder()) throw error;
  }
}

/**
 * Gives a finished folder its final name, which nothing but an empty folder may have.
 * @throws Error when another run was first, or it cannot be
 */
export function placeFolder(draft: string, to: string): void {
  try {
    if (statSync(to, { throwIfNoEntry: false }) !== undefined) rmdirSync(to);
    renameSync(draft, to);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOTEMPTY' || code === 'EEXIST')
      throw new Error(`${to} is not empty: another run wrote it meanwhile; name another folder, or use what is there`, {
        cause: error,
      });
    throw new Error(explain(to, error), { cause: error });
  }
}

/** Cleaning up must not hide the error that made it necessary. */
function discard(temporary: string): void {
  try {
    rmSync(temporary, { force: true });
  } catch {
    // the folder itself does not exist
  }
}

function chunksOf(data: string | Uint8Array | Iterable<Uint8Array>): Iterable<Uint8Array> {
  if (typeof data === 'string') return [Buffer.from(data, 'utf8')];
  return data instanceof Uint8Array ? [data] : data;
}

function writeFully(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.byteLength; ) {
    done += writeSync(fd, bytes, done, Math.min(CHUNK, bytes.byteLength - done));
  }
}

/** The rename itself must survive a power cut; some file systems refuse to sync a folder, which is harmless. */
function syncFolder(folder: string): void {
  try {
    const fd = openSync(folder, 'r');
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch {
    // not supported here
  }
}

function explain(path: string, error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  const reason = error instanceof Error ? error.message : String(error);
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return `no space left to write ${path}; nothing was changed. Free some disk space and run again`;
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return `not allowed to write ${path} (${code}); choose another folder or change its permissions`;
    case 'EISDIR':
      return `cannot write ${path}: a folder has that name; choose another name`;
    case 'ENOTDIR':
    case 'EEXIST':
      return `cannot write ${path}: part of the path is a file, not a folder`;
    default:
      return `cannot write ${path}: ${reason}`;
  }
}
