/** One process at a time in a folder: a file names the process; that of one that ended is taken over. */

import { closeSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';

export class FolderLock {
  readonly #path: string;

  /** @throws Error that names the process that is there */
  constructor(folder: string) {
    this.#path = resolve(folder, 'server.lock');
    for (let tries = 0; ; tries++) {
      try {
        const fd = openSync(this.#path, 'wx');
        writeSync(fd, String(process.pid));
        closeSync(fd);
        held.add(this.#path);
        return;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || tries > 3) throw error;
        const pid = this.#holder();
        if (pid !== undefined)
          throw new Error(
            `${folder} is in use by another server (process ${pid}); stop it, or name another folder with --data-dir`,
          );
        rmSync(this.#path, { force: true });
      }
    }
  }

  /** The process that has the lock and still runs. */
  #holder(): number | undefined {
    const pid = Number(readFileSync(this.#path, 'utf8'));
    if (!Number.isInteger(pid) || pid <= 0) return undefined;
    const alive = pid === process.pid ? held.has(this.#path) : isRunning(pid);
    return alive ? pid : undefined;
  }

  release(): void {
    held.delete(this.#path);
    rmSync(this.#path, { force: true });
  }
}

/** Locks of this process: a number that is this process's own may also be left from one before it, in a container that began anew. */
const held = new Set<string>();

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
