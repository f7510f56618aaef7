/**
 * The records that tables are made from: the mini world as `world build` writes it, the official E-VQA and E-IC as published
 * (`vqa/vqa_train.json`, `vqa/vqa_eval.json`, `caption/caption_train_edit.json`, `caption/caption_eval_edit.json`), or named files.
 */
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type FileId, fileId } from '../../src/evaluation/manifest.ts';
import { type DatasetKind, openRecords } from '../../src/input/records.ts';
import { buildWorld, type WorldSizes } from '../world/build.ts';

export const datasets = { vqa: 'E-VQA', caption: 'E-IC' } as const satisfies Record<DatasetKind, string>;
export const datasetKinds = Object.keys(datasets) as DatasetKind[];

export interface DataFiles {
  /** absent: editors that train must come with weights */
  readonly train?: string | undefined;
  readonly test: string;
}

export interface TableData {
  readonly files: Readonly<Partial<Record<DatasetKind, DataFiles>>>;
  /** folder that image paths start from */
  readonly images: string;
}

export interface DataOptions {
  /** a folder in either layout */
  folder?: string | undefined;
  /** files by kind: the one with "train" in its name is the training split */
  vqa?: readonly string[] | undefined;
  caption?: readonly string[] | undefined;
  /** default: `images` in the folder, else the folder */
  images?: string | undefined;
}

/** Names in a folder, the first that is there. */
const names: Readonly<Record<DatasetKind, Readonly<Record<'train' | 'test', readonly string[]>>>> = {
  vqa: {
    train: ['vqa_train.json', 'vqa/vqa_train.json'],
    test: ['vqa_test.json', 'vqa_eval.json', 'vqa/vqa_eval.json', 'vqa/vqa_test.json'],
  },
  caption: {
    train: ['caption_train.json', 'caption_train_edit.json', 'caption/caption_train_edit.json', 'caption/caption_train.json'],
    test: ['caption_test.json', 'caption_eval_edit.json', 'caption/caption_eval_edit.json', 'caption/caption_test.json'],
  },
};

/** Seed of the mini world that is drawn when no data are named: every table of a folder has the same records. */
export const worldSeed = 1;

/**
 * Finds the files; draws the mini world where nothing is named.
 * @throws Error that says which files were looked for
 */
export async function tableData(
  { folder, vqa = [], caption = [], images }: DataOptions,
  draw: { readonly out: string; readonly sizes?: Partial<WorldSizes>; readonly hard?: boolean },
  log: (text: string) => void,
): Promise<TableData> {
  if (vqa.length + caption.length > 0) {
    const files = { ...named('vqa', vqa), ...named('caption', caption) };
    if (images === undefined && folder === undefined)
      throw new Error('files of records are named without the folder that their image paths start from; name it with --images');
    return { files, images: images ?? imagesOf(folder!) };
  }
  const from = folder ?? draw.out;
  if (folder === undefined && !existsSync(join(from, 'manifest.json'))) {
    log('Drawing the mini world ...');
    await buildWorld({ seed: worldSeed, ...draw });
  }
  const files: Partial<Record<DatasetKind, DataFiles>> = {};
  for (const kind of datasetKinds) {
    const [train, test] = (['train', 'test'] as const).map((split) =>
      names[kind][split].map((name) => join(from, name)).find((path) => existsSync(path)),
    );
    if (test !== undefined) files[kind] = { train, test };
  }
  if (Object.keys(files).length === 0) {
    const looked = datasetKinds.flatMap((kind) => names[kind].test).join(', ');
    throw new Error(`${from} holds no records to evaluate; looked for: ${looked}. Name files with --data-vqa and --data-caption`);
  }
  return { files, images: images ?? imagesOf(from) };
}

const imagesOf = (folder: string): string => (existsSync(join(folder, 'images')) ? join(folder, 'images') : folder);

function named(kind: DatasetKind, paths: readonly string[]): Partial<Record<DatasetKind, DataFiles>> {
  if (paths.length === 0) return {};
  const isTrain = (path: string): boolean => basename(path).includes('train');
  const [train, test] = [paths.filter(isTrain), paths.filter((path) => !isTrain(path))];
  if (test.length !== 1 || train.length > 1)
    throw new Error(
      `--data-${kind} takes one file to evaluate and at most one to train on, which has "train" in its name; got ${paths.join(', ')}`,
    );
  return { [kind]: { train: train[0], test: test[0]! } };
}

export interface DataIdentity extends FileId {
  readonly records: number;
}

/** What the figures depend on, of one file. Reading checks the records that are used, and their pictures. */
export class DataIdentities {
  readonly #known = new Map<string, DataIdentity>();

  constructor(readonly images: string) {}

  /** @param limit of the records that are used: the first so many */
  of(path: string, limit: number | undefined): DataIdentity {
    const known = this.#known.get(path) ?? { ...fileId(path), records: openRecords(path, this.images, { limit }).total };
    this.#known.set(path, known);
    return known;
  }
}
