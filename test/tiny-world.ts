/** A few records of the mini world, and folders to put them in, for tests that need edits and pictures on disk. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildWorld, type WorldSizes } from '../lab/world/build.ts';

/** A folder for the files of one test file; the caller removes it. */
export const temporaryFolder = (): string => mkdtempSync(join(tmpdir(), 'visedit-test-'));

export interface TinyWorld {
  train: string;
  test: string;
  images: string;
}

/** Writes a small mini world to `folder`. */
export async function writeTinyWorld(folder: string, sizes: Partial<WorldSizes> = {}): Promise<TinyWorld> {
  await buildWorld({
    seed: 'tiny',
    out: folder,
    sizes: { vqaTrain: 12, vqaTest: 11, captionTrain: 0, captionTest: 0, ...sizes },
  });
  return { train: join(folder, 'vqa_train.json'), test: join(folder, 'vqa_test.json'), images: join(folder, 'images') };
}
