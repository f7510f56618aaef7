/**
 * Changes as lines of JSON behind one another, each on disk before `append` returns. A line that a crash cut off was never confirmed: it is
 * dropped when the log is opened. A write that fails, as on a full disk, leaves the log as it was.
 */

import { closeSync, existsSync, fstatSync, fsyncSync, ftruncateSync, openSync, rmSync, truncateSync, writeSync } from 'node:fs';
import { writeFileAtomic } from './atomic.ts';
import { parseJson } from './json.ts';
import { readWhole } from './text.ts';

/** Bytes of a log: 10,000 edits whose sets changed 200 times take a hundredth. */
const MOST = 2 ** 30;
/** Bytes that are kept free for changes that make room. */
const reserve = 256 * 1024;

export class ChangeLog {
  #fd: number | undefined;
  #size: number;
  /** lines there are */
  #lines: number;

  /**
   * @param replay told of every change, oldest first
   * @param readOnly nothing is written: what another process is about to write is left alone
   * @throws Error that names the line that cannot be read
   */
  constructor(
    readonly path: string,
    replay: (change: unknown) => void,
    readOnly = false,
  ) {
    const bytes = existsSync(path) ? Buffer.from(readWhole(path, MOST).buffer) : Buffer.alloc(0);
    const end = bytes.lastIndexOf(0x0a) + 1;
    if (end < bytes.length && !readOnly) truncateSync(path, end);
    let line = 0;
    for (let from = 0; from < end; line++) {
      const to = bytes.indexOf(0x0a, from);
      const what = `${path}, line ${line + 1}`;
      const change = parseJson(bytes.toString('utf8', from, to), what);
      try {
        replay(change);
      } catch (error) {
        throw new Error(`${what}: ${(error as Error).message}; put back a copy of the file`, { cause: error });
      }
      from = to + 1;
    }
    this.#lines = line;
    this.#size = end;
    if (readOnly) return;
    this.#fd = openSync(path, 'a');
    this.#keepReserve();
  }

  /** @throws Error when the log was opened to be read only */
  get #open(): number {
    if (this.#fd === undefined) throw new Error(`${this.path} is only read here`);
    return this.#fd;
  }

  get lines(): number {
    return this.#lines;
  }

  /** @param makesRoom the change frees space: it takes from the reserve when the disk is full */
  append(change: unknown, makesRoom = false): void {
    const line = Buffer.from(`${JSON.stringify(change)}\n`);
    try {
      this.#write(line);
    } catch (error) {
      if (!makesRoom || !existsSync(this.#reserve)) throw error;
      rmSync(this.#reserve, { force: true });
      this.#write(line);
    }
  }

  #write(line: Buffer): void {
    const fd = this.#open;
    try {
      for (let done = 0; done < line.length; ) done += writeSync(fd, line, done);
      fsyncSync(fd);
    } catch (error) {
      ftruncateSync(fd, this.#size);
      throw new Error(`cannot write ${this.path}: ${(error as Error).message}`, { cause: error });
    }
    this.#size += line.length;
    this.#lines++;
  }

  /** After a change that made room. */
  refill(): void {
    if (!existsSync(this.#reserve)) this.#keepReserve();
  }

  /** Puts fewer changes in the place of all that there are. */
  replace(changes: Iterable<unknown>): void {
    let count = 0;
    const lines = function* (): Iterable<Uint8Array> {
      for (const change of changes) {
        count++;
        yield Buffer.from(`${JSON.stringify(change)}\n`);
      }
    };
    writeFileAtomic(this.path, lines());
    closeSync(this.#open);
    this.#fd = openSync(this.path, 'a');
    this.#size = fstatSync(this.#fd).size;
    this.#lines = count;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }

  get #reserve(): string {
    return `${this.path}.reserve`;
  }

  /** Without room for it there is none. */
  #keepReserve(): void {
    if (existsSync(this.#reserve)) return;
    try {
      writeFileAtomic(this.#reserve, Buffer.alloc(reserve, 1));
    } catch {
      // the disk is full already
    }
  }
}
