/**
 * A copy of a model's folder that no other program writes to. Weights stay mapped from the disk: where another program cuts a mapped file off, the
 * system ends the process that reads it (SIGBUS), which no program can catch.
 */
import { chmodSync, constants, cpSync, mkdtempSync, readdirSync, rmSync, statfsSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { makeFolder } from '../files/atomic.ts';
import { isRunning } from '../files/hold-folder.ts';
import { modelFolder } from './load.ts';

const PREFIX = '.private-copy.';

/**
 * Copies a model below a folder, for this process alone; it goes when the process ends. Copies of processes that were killed are removed. File systems
 * that share blocks between files (btrfs, XFS) copy at once and take no space.
 * @returns the copy, which has the name of the model's folder
 * @throws Error when there is no room
 */
export function privateCopy(model: string, folder: string): string {
  const from = modelFolder(model);
  makeFolder(folder);
  for (const name of readdirSync(folder)) {
    const pid = name.startsWith(PREFIX) ? Number(name.slice(PREFIX.length).split('.')[0]) : Number.NaN;
    if (Number.isInteger(pid) && pid > 0 && !isRunning(pid)) rmSync(join(folder, name), { recursive: true, force: true });
  }
  const own = mkdtempSync(join(folder, `${PREFIX}${process.pid}.`));
  process.on('exit', () => rmSync(own, { recursive: true, force: true }));
  chmodSync(own, 0o700);
  const to = join(own, basename(from));
  try {
    cpSync(from, to, { recursive: true, dereference: true, mode: constants.COPYFILE_FICLONE });
  } catch (error) {
    rmSync(own, { recursive: true, force: true });
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    const { bavail, bsize } = statfsSync(folder);
    throw new Error(
      `${folder} has no room for a copy of ${from}: ${Math.round((bavail * bsize) / 1e6)} MB are free, it takes ${Math.round(sizeOf(from) / 1e6)} MB`,
      { cause: error },
    );
  }
  return to;
}

const sizeOf = (folder: string): number =>
  readdirSync(folder, { recursive: true }).reduce((sum, name) => sum + statSync(join(folder, String(name))).size, 0);
