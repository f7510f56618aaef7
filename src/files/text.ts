/** Reading small files whole: only files, only so large, only UTF-8. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';

export const MEBIBYTE = 1024 * 1024;

/**
 * The text of a file, without a byte order mark.
 * @param most bytes that it may have
 * @throws Error that names the file when it is missing, not a file, too large or not UTF-8
 */
export function readText(path: string, most: number): string {
  const bytes = readWhole(path, most);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new Error(`${path} is not UTF-8 text`, { cause: error });
  }
}

/** The bytes of a file. */
export function readWhole(path: string, most: number): Uint8Array<ArrayBuffer> {
  let fd: number;
  try {
    // A pipe without a writer would hold the process for ever.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new Error(missing ? `${path} does not exist` : `cannot read ${path}: ${(error as Error).message}`, { cause: error });
  }
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile()) throw new Error(`${path} is not a file`);
    if (stats.size > most)
      throw new Error(`${path} has ${stats.size} bytes; at most ${most} are read, since such a file has far fewer`);
    const bytes = new Uint8Array(stats.size);
    for (let done = 0; done < bytes.length; ) {
      const read = readSync(fd, bytes, done, bytes.length - done, done);
      if (read === 0) throw new Error(`${path} ended at offset ${done} while it was being read`);
      done += read;
    }
    return bytes;
  } finally {
    closeSync(fd);
  }
}
