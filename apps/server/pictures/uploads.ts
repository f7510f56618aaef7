/** Pictures that clients keep on the server, named by a hash of their pixels. When there are too many, the ones used longest ago are removed. */

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '../../../src/files/atomic.ts';
import type { Png } from './pictures.ts';

export class Uploads {
  constructor(
    readonly folder: string,
    readonly bounds: { count: number; bytes: number } = { count: 500, bytes: 256e6 },
  ) {
    mkdirSync(folder, { recursive: true });
    // A server that was killed may have left files that are not complete.
    for (const name of readdirSync(folder)) if (name.endsWith('.tmp')) rmSync(join(folder, name), { force: true });
  }

  keep({ id, data }: Png): void {
    const path = this.#path(id);
    const now = new Date();
    if (existsSync(path)) utimesSync(path, now, now);
    else writeFileAtomic(path, data);
    this.#trim();
  }

  get(id: string): Uint8Array | undefined {
    return /^[0-9a-f]{32}$/.test(id) && existsSync(this.#path(id)) ? readFileSync(this.#path(id)) : undefined;
  }

  #path(id: string): string {
    return join(this.folder, `${id}.png`);
  }

  #trim(): void {
    const files = readdirSync(this.folder).map((name) => {
      const { size, mtimeMs } = statSync(join(this.folder, name));
      return { name, size, mtimeMs };
    });
    files.sort((a, b) => b.mtimeMs - a.mtimeMs);
    let bytes = 0;
    for (const [i, { name, size }] of files.entries()) {
      bytes += size;
      if (i >= this.bounds.count || (i > 0 && bytes > this.bounds.bytes)) rmSync(join(this.folder, name), { force: true });
    }
  }
}
