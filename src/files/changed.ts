/** Files that stay mapped or are read in parts: they must stay the file that was opened. */
import { statSync } from 'node:fs';

/** What tells that a file is the one that was opened. */
export interface FileState {
  readonly size: number;
  readonly mtimeMs: number;
  readonly ino: number;
}

/** A file of weights was cut off, overwritten or replaced while a program had it open: nothing that is computed of it can be trusted. */
export class FileChanged extends Error {
  override name = 'FileChanged';

  constructor(readonly path: string) {
    super(`${path} was changed after it was opened; open the model again`);
  }
}

/** @throws FileChanged unless size, time and inode are those of the file that was opened */
export function assertUnchanged(
  path: string,
  opened: FileState,
  now: FileState | undefined = statSync(path, { throwIfNoEntry: false }),
): void {
  if (now === undefined || now.size !== opened.size || now.mtimeMs !== opened.mtimeMs || now.ino !== opened.ino)
    throw new FileChanged(path);
}
