/** Data sets that clients may browse: the files that the operator named, or a mini world, which is drawn at the first request for it. */

import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { buildWorld, type WorldSizes, worldVersion } from '../../lab/world/build.ts';
import { hardKinds } from '../../src/evaluation/metrics.ts';
import {
  type DatasetKind,
  datasetKind,
  type EditRecord,
  openRecords,
  queryKinds,
  type RecordQuery,
} from '../../src/input/records.ts';
import { ApiError } from './errors.ts';
import type { DatasetFile } from './options.ts';

/** Records of the mini world that are drawn for browsing. */
const sizes: WorldSizes = { vqaTrain: 0, vqaTest: 160, captionTrain: 0, captionTest: 60 };

interface Source {
  readonly id: string;
  readonly title: string;
  readonly file: DatasetFile;
  /** makes the file where it is not there */
  readonly make?: () => Promise<void>;
}

export interface Dataset {
  readonly id: string;
  readonly kind: DatasetKind;
  readonly records: readonly EditRecord[];
  /** files of all pictures, each once */
  readonly pictures: readonly string[];
  /** number of each picture in `pictures`, by its file */
  readonly numberOf: ReadonlyMap<string, number>;
  readonly sha256: string;
}

export interface DatasetFacts {
  readonly id: string;
  readonly title: string;
  readonly kind: DatasetKind;
  readonly state: 'ready' | 'absent';
  readonly records: number | null;
}

export class Datasets {
  readonly #sources: readonly Source[];
  readonly #open = new Map<string, Promise<Dataset>>();
  readonly #known = new Map<string, Dataset>();

  constructor(files: readonly DatasetFile[], worlds: string, seed: number) {
    this.#sources = files.length > 0 ? named(files) : miniWorld(join(worlds, `${seed}-${worldVersion}`), seed);
  }

  /** Opens the files that were named, so that a server does not begin with records that it cannot show. @throws RecordsError */
  async openNamed(): Promise<void> {
    for (const { id, make } of this.#sources) if (make === undefined) await this.get(id);
  }

  list(): DatasetFacts[] {
    return this.#sources.map(({ id, title, file }) => {
      const known = this.#known.get(id);
      const ready = existsSync(file.data);
      return {
        id,
        title,
        kind: known?.kind ?? datasetKind(file.data, []),
        state: ready ? 'ready' : 'absent',
        records: known?.records.length ?? null,
      };
    });
  }

  /** @throws ApiError 404 */
  get(id: string): Promise<Dataset> {
    const source = this.#sources.find((one) => one.id === id);
    if (source === undefined)
      throw new ApiError(404, 'dataset_not_found', `there is no data set ${JSON.stringify(id)}`, { param: 'id' });
    let dataset = this.#open.get(id);
    if (dataset === undefined) {
      dataset = open(source);
      this.#open.set(id, dataset);
      dataset.then(
        (one) => this.#known.set(id, one),
        () => this.#open.delete(id),
      );
    }
    return dataset;
  }

  /** File of a picture; undefined: there is none. */
  async picture(id: string, number: number): Promise<string | undefined> {
    if (!this.#sources.some((one) => one.id === id)) return undefined;
    return (await this.get(id)).pictures[number];
  }

  /** The data set that a run was made on, among those that are open. */
  bySha256(sha256: string): string | null {
    return [...this.#known.values()].find((one) => one.sha256 === sha256)?.id ?? null;
  }
}

function named(files: readonly DatasetFile[]): Source[] {
  const used = new Set<string>();
  return files.map((file) => {
    const name = basename(file.data)
      .replace(/\.json$/i, '')
      .replace(/[^\w.-]+/g, '-');
    let id = name;
    for (let n = 2; used.has(id); n++) id = `${name}-${n}`;
    used.add(id);
    return { id, title: basename(file.data), file };
  });
}

function miniWorld(folder: string, seed: number): Source[] {
  let making: Promise<void> | undefined;
  const make = (): Promise<void> => {
    making ??= buildWorld({ seed, out: folder, sizes }).then(
      () => {},
      (error: unknown) => {
        making = undefined;
        throw error;
      },
    );
    return making;
  };
  return [
    {
      id: 'mini-world-vqa',
      title: 'Mini world: questions',
      file: { data: join(folder, 'vqa_test.json'), images: join(folder, 'images') },
      make,
    },
    {
      id: 'mini-world-caption',
      title: 'Mini world: captions',
      file: { data: join(folder, 'caption_test.json'), images: join(folder, 'images') },
      make,
    },
  ];
}

async function open({ id, file: { data, images }, make }: Source): Promise<Dataset> {
  if (make !== undefined && !existsSync(dirname(data))) await make();
  const { kind, records } = openRecords(data, images);
  const pictures = [
    ...new Set(records.flatMap((record) => queriesOf(record).flatMap(([, { image }]) => (image === null ? [] : [image])))),
  ];
  const sha256 = createHash('sha256').update(readFileSync(data)).digest('hex');
  return { id, kind, records, pictures, numberOf: new Map(pictures.map((path, i) => [path, i])), sha256 };
}

/** All queries of a record by their kinds, including those that are close to the edit. */
export function queriesOf({ queries, hard }: EditRecord): [kind: string, query: RecordQuery][] {
  const close = hardKinds.flatMap((kind): [string, RecordQuery][] => {
    const query = hard?.[kind];
    return query === undefined ? [] : [[kind, query]];
  });
  return [...queryKinds.map((kind): [string, RecordQuery] => [kind, queries[kind]]), ...close];
}
