/**
 * One process at a time in a folder. Whoever comes makes the file `lock.N` behind the highest number there is, which only one can; the highest
 * one holds, as long as its process runs. The highest file is never removed: a lock of a process that ended is taken over without a moment in
 * which two hold it.
 */

import { randomBytes } from 'node:crypto';
import { existsSync, linkSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

/** Former locks that stay, so that whoever lists the folder finds one of the last, however many come and go meanwhile. */
const spare = 8;
const names = /^lock\.(\d+)$/;

export class FolderLock {
  readonly #folder: string;
  readonly #number: number;

  /** @throws Error that names the process that is there */
  constructor(folder: string) {
    this.#folder = resolve(folder);
    for (;;) {
      const highest = Math.max(0, ...numbersIn(this.#folder));
      const holder = highest === 0 ? '' : read(this.path(highest));
      // Another one took the next number, and removed this one.
      if (holder === undefined) continue;
      const pid = runningProcess(holder);
      if (pid !== undefined) throw new Error(`${folder} is in use by process ${pid}; stop it, or name another folder`);
      const own = highest + 1;
      if (!this.#make(own)) continue;
      // Who was slow may have made a number that was passed and removed. A list of a folder may lack what was made while it was read.
      const all = numbersIn(this.#folder).sort((a, b) => a - b);
      if (all.at(-1) !== own || !existsSync(this.path(own))) {
        rmSync(this.path(own), { force: true });
        continue;
      }
      this.#number = own;
      for (const number of all) if (number < own - spare) rmSync(this.path(number), { force: true });
      return;
    }
  }

  path(number: number): string {
    return join(this.#folder, `lock.${number}`);
  }

  /** With its content, or not at all. */
  #make(number: number): boolean {
    const temporary = join(this.#folder, `.lock.${process.pid}.${randomBytes(4).toString('hex')}.tmp`);
    writeFileSync(temporary, `${process.pid} ${startOf(process.pid)}`);
    try {
      linkSync(temporary, this.path(number));
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw error;
    } finally {
      rmSync(temporary, { force: true });
    }
  }

  /** An empty lock names no process. */
  release(): void {
    truncateSync(this.path(this.#number));
  }
}

const numbersIn = (folder: string): number[] =>
  readdirSync(folder).flatMap((name) => {
    const found = names.exec(name)?.[1];
    return found === undefined ? [] : [Number(found)];
  });

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** The process that holds a lock and still runs; a number may have been given to another process since. */
function runningProcess(holder: string): number | undefined {
  const [pid, start] = holder.split(' ');
  const number = Number(pid);
  if (!Number.isInteger(number) || number <= 0) return undefined;
  try {
    process.kill(number, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return undefined;
  }
  return start === startOf(number) ? number : undefined;
}

/** When a process began, in ticks since the machine's start; `-` where the system does not say. */
function startOf(pid: number): string {
  try {
    // The name of the program, in brackets, may hold spaces.
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ')[19]!;
  } catch {
    return '-';
  }
}
