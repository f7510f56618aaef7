/**
 * Writes the mini world's records: vqa_train.json, vqa_test.json, caption_train.json, caption_test.json, images/ and manifest.json.
 * Everything is written beside the target and renamed at the end: a build that is killed leaves no half-written world.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import sharp from 'sharp';
import { makeFolder, placeFolder } from '../../src/files/atomic.ts';
import { Atlas } from './atlas.ts';
import { type Blank, blanks, composeRecords, type Picture } from './compose.ts';
import type { Split } from './concepts.ts';
import { canvas, render } from './scene.ts';
import { EditSplitter, type SplitKind } from './split.ts';

/** Rises when the same seed gives other records. Version 1 had splits by seed; a world of seed 1 has the same records in both. */
export const worldVersion = 2;

export interface WorldSizes {
  readonly vqaTrain: number;
  readonly vqaTest: number;
  readonly captionTrain: number;
  readonly captionTest: number;
}

const defaultSizes: WorldSizes = { vqaTrain: 12000, vqaTest: 1200, captionTrain: 6000, captionTest: 500 };

export interface WorldManifest {
  readonly version: number;
  readonly seed: string;
  /** what says which side an edit is on; in worlds of version 1 the seed did, and the field is absent */
  readonly split?: SplitKind;
  /** targets of two words, captions with a low floor, other text-only questions in the test than in the training */
  readonly hard?: boolean;
  readonly sizes: WorldSizes;
  readonly images: number;
  /** SHA-256 of each record file, and of all pictures' pixels in order. */
  readonly hashes: Readonly<Record<string, string>>;
}

export interface BuildOptions {
  readonly seed: string | number;
  readonly out: string;
  /** by content when absent; by seed gives the records of version 1 */
  readonly split?: SplitKind;
  readonly hard?: boolean;
  readonly sizes?: Partial<WorldSizes>;
  /** Called as pictures are written. */
  readonly onProgress?: (done: number, total: number) => void;
}

const inFlight = 8;
const sets: readonly (readonly ['vqa' | 'caption', Split, keyof WorldSizes])[] = [
  ['vqa', 'train', 'vqaTrain'],
  ['vqa', 'test', 'vqaTest'],
  ['caption', 'train', 'captionTrain'],
  ['caption', 'test', 'captionTest'],
];
const sha256 = (content: string | Uint8Array): string => createHash('sha256').update(content).digest('hex');

/**
 * Writes the mini world: records of edits and captions in the layout of E-VQA and E-IC, their pictures (72 x 72 PNG) and manifest.json. The same seed, sizes, split
 * and difficulty give the same bytes.
 * @throws Error when the folder is not empty, or a size is no whole number
 */
export async function buildWorld(options: BuildOptions): Promise<WorldManifest> {
  const seed = String(options.seed);
  const sizes = { ...defaultSizes, ...options.sizes };
  for (const [name, size] of Object.entries(sizes)) {
    if (!Number.isInteger(size) || size < 0)
      throw new Error(`size of the mini world: ${name} must be a whole number, not ${size}`);
  }
  const out = resolve(options.out);
  if (existsSync(out) && readdirSync(out).length > 0) {
    throw new Error(`${out} is not empty: name another folder for the mini world, or remove this one`);
  }
  removeAbandoned(out);
  const folder = `${out}.partial-${process.pid}`;
  try {
    makeFolder(join(folder, 'images'));
    const { split: by = 'content', hard = false } = options;
    const splitter = splitterOf({ seed, split: by });
    const hashes: Record<string, string> = {};
    const pictures: (Picture | Blank)[] = hard ? blanks() : [];
    for (const [what, split, size] of sets) {
      const set = composeRecords(splitter, seed, what, split, sizes[size], hard);
      const text = `${JSON.stringify(set.records, null, 1)}\n`;
      writeFileSync(join(folder, `${what}_${split}.json`), text);
      hashes[`${what}_${split}.json`] = sha256(text);
      pictures.push(...set.pictures);
    }
    hashes.images = await writePictures(join(folder, 'images'), pictures, options.onProgress);
    const manifest: WorldManifest = { version: worldVersion, seed, split: by, hard, sizes, images: pictures.length, hashes };
    writeFileSync(join(folder, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
    placeFolder(folder, out);
    return manifest;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The split that a world was made with. */
export const splitterOf = ({ seed, split = 'seed' }: Pick<WorldManifest, 'seed' | 'split'>): EditSplitter =>
  split === 'seed' ? new EditSplitter(seed) : new EditSplitter();

/** Returns the hash over all pixels. Pictures are small: speed of encoding matters more than bytes. */
async function writePictures(
  folder: string,
  pictures: readonly (Picture | Blank)[],
  onProgress?: BuildOptions['onProgress'],
): Promise<string> {
  const atlas = await Atlas.load();
  const hash = createHash('sha256');
  let next = 0;
  let done = 0;
  let failed = false;
  const work = async (): Promise<void> => {
    try {
      while (next < pictures.length && !failed) {
        const picture = pictures[next++]!;
        const pixels = 'pixels' in picture ? picture.pixels : render(atlas, picture.scene);
        hash.update(pixels);
        const png = sharp(pixels, { raw: { width: canvas, height: canvas, channels: 3 } }).png({ compressionLevel: 3 });
        await png.toFile(join(folder, picture.file));
        onProgress?.(++done, pictures.length);
      }
    } catch (error) {
      failed = true;
      throw error;
    }
  };
  // All writers stop before the caller clears the folder.
  const ended = await Promise.allSettled(Array.from({ length: inFlight }, work));
  for (const result of ended) if (result.status === 'rejected') throw result.reason;
  return hash.digest('hex');
}

/** Partial folders of builds whose process has ended. */
function removeAbandoned(out: string): void {
  if (!existsSync(dirname(out))) return;
  for (const name of readdirSync(dirname(out))) {
    const pid = name.startsWith(`${basename(out)}.partial-`) ? Number(name.slice(basename(out).length + 9)) : 0;
    if (pid > 0 && !isRunning(pid)) rmSync(join(dirname(out), name), { recursive: true, force: true });
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
