/**
 * Finished cells of the tables: an editor on a model and a data set under one seed. A column's cells (those of one model and data set) are the lines of
 * one JSON-lines file, small enough to be committed. Cells are appended as they are finished; of several under one place the last counts. Weights are
 * not among it, so a table goes on from committed cells without them.
 *   TABLE/<model>-<dataset>.cells.jsonl
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { z } from 'zod';
import type { Settings } from '../../src/editors/editor.ts';
import type { Costs } from '../../src/evaluation/costs.ts';
import type { JobIdentity } from '../../src/evaluation/job.ts';
import { type Manifest, type Versions, withProtocolName } from '../../src/evaluation/manifest.ts';
import { type Evaluation, hardKinds, type RecordResult } from '../../src/evaluation/metrics.ts';
import type { SequentialPoint } from '../../src/evaluation/sequential.ts';
import { Appender } from '../../src/evaluation/store.ts';
import { makeFolder } from '../../src/files/atomic.ts';
import { anyObject, parseJsonLines, readJsonLines } from '../../src/files/schema.ts';
import { type DatasetKind, queryKinds } from '../../src/input/records.ts';
import { type LogLine, logFile, logLine } from '../../src/nn/loop.ts';
import type { DataIdentity } from './data.ts';
import type { Recipe } from './recipes.ts';

/** All that a cell's figures depend on and that is known before the work: a finished cell with the same one is not done again. */
export interface CellIdentity {
  readonly model: { readonly name: string; readonly fingerprint: string; readonly dtype?: string };
  readonly editor: {
    readonly id: string;
    /** null: it draws nothing, so there is one cell for all seeds */
    readonly seed: number | null;
    /** sha256 of weights that come with the model */
    readonly shipped?: string;
    /** `start`: sha256 of the weights that it goes on from */
    readonly training?: Recipe & { readonly data: DataIdentity; readonly limit: number | null; readonly start?: string };
    /** settings of each edit that are asked for beyond the protocol's */
    readonly edit?: Settings;
  };
  readonly data: DataIdentity & { readonly kind: DatasetKind; readonly evaluated: number };
  readonly protocol: JobIdentity['protocol'];
  /** of Table 5: edits that stay, in runs that begin with the unedited model */
  readonly lifelong?: Lifelong;
}

/** How edits that stay are measured. */
export interface Lifelong {
  /** most edits in the model */
  readonly edits: number;
  /** longest runs in which each edit is asked for at its own moment, too */
  readonly moments: number;
  /** records asked at each length, chosen at random; absent: all */
  readonly sample?: number;
}

export interface CellManifest {
  readonly command: string;
  readonly identity: CellIdentity;
  readonly finished: true;
  readonly versions: Versions;
  /** of what the editor learned */
  readonly weights: { readonly sha256: string; readonly settings: Settings } | null;
  readonly seconds: { readonly training: number | null; readonly evaluation: number };
  readonly costs: Costs;
}

/** What is kept of a record: of each kind in `askedKinds`, token accuracy and exact match; null where it has no such query. */
export interface CellRecord {
  readonly index: number;
  readonly accuracy: readonly (number | null)[];
  readonly exact: readonly (0 | 1 | null)[];
}

const storedRecord = z.object({
  index: z.int(),
  accuracy: z.array(z.number().nullable()),
  exact: z.array(z.union([z.literal(0), z.literal(1), z.null()])),
}) satisfies z.ZodType<CellRecord>;

const askedKinds = [...queryKinds, ...hardKinds] as const;

/** A line of a column's file. */
export interface Cell {
  /** `<model>/<dataset>/<editor>[/<variant>]/<seed-n | once>` */
  readonly place: string;
  readonly manifest: CellManifest;
  readonly evaluation: Evaluation;
  /** how the editor was trained, where it was */
  readonly training?: Partial<Manifest<unknown>>;
  /** the training's curve, in at most 40 points */
  readonly curve?: readonly LogLine[];
  /** one `CellRecord` a line, gzip in base64; by them tests are paired */
  readonly records: string;
  /** of Table 5: by the number of edits in the model; `evaluation` and `records` are those of the last */
  readonly points?: readonly CellPoint[];
}

export interface CellPoint extends SequentialPoint {
  /** as of a cell */
  readonly records: string;
  /** of the runs of this length */
  readonly costs: Costs;
}

const ending = '.cells.jsonl';
export const isColumnFile = (name: string): boolean => name.endsWith(ending);

export const seedFolder = (seed: number | null): string => (seed === null ? 'once' : `seed-${seed}`);

const storedCell = z.object({
  place: z.string(),
  manifest: z.looseObject({ finished: z.literal(true) }),
  evaluation: anyObject,
  training: anyObject.optional(),
  curve: z.array(logLine).optional(),
  records: z.string(),
  points: z.array(z.looseObject({ edits: z.int(), evaluation: anyObject, records: z.string() })).optional(),
});

/** Cells of a column's file by place; a line that a kill cut off is none. */
export function readColumn(path: string): Map<string, Cell> {
  const cells = (readJsonLines(path, storedCell, 'skip') as unknown as Cell[]).map(
    ({ manifest, ...cell }): Cell => ({
      ...cell,
      manifest: { ...manifest, identity: withProtocolName(manifest.identity) },
    }),
  );
  return new Map(cells.map((cell) => [cell.place, cell]));
}

/** All finished cells of a table, by place. */
export function readCells(table: string): Cell[] {
  const files = existsSync(table) ? readdirSync(table).filter(isColumnFile) : [];
  const cells = files.flatMap((name) => [...readColumn(join(table, name)).values()]);
  return cells.sort((a, b) => (a.place < b.place ? -1 : 1));
}

/** Where trainings and evaluations go on while they are not finished; not for keeping. */
export const workFolder = 'work';

export const cellRecords = ({ place, records }: Pick<Cell, 'place' | 'records'>): CellRecord[] =>
  parseJsonLines(gunzipSync(Buffer.from(records, 'base64')).toString('utf8'), `records of ${place}`, storedRecord);

/** Six digits tell all fractions of a caption's tokens apart. */
const rounded = (x: number): number => Number(x.toFixed(6));

function cellRecord({ index, queries }: RecordResult): CellRecord {
  return {
    index,
    accuracy: askedKinds.map((kind) => (queries[kind] === undefined ? null : rounded(queries[kind].accuracy))),
    exact: askedKinds.map((kind) => (queries[kind] === undefined ? null : queries[kind].exact ? 1 : 0)),
  };
}

export const packRecords = (results: readonly RecordResult[]): string =>
  gzipSync(results.map((result) => `${JSON.stringify(cellRecord(result))}\n`).join(''), { level: 9 }).toString('base64');

/** Adds a finished cell; it is on disk when this returns. */
export function writeCell(table: string, cell: Cell): void {
  const [model, dataset] = cell.place.split('/');
  makeFolder(table);
  const file = new Appender(join(table, `${model}-${dataset}${ending}`), 'run again; the cells before are kept');
  try {
    file.append([cell]);
  } finally {
    file.close();
  }
}

const CURVE_POINTS = 40;

/** A log's lines as at most 40, each the mean of its neighbours under the step of the last of them; seconds add up. */
export function thinnedCurve(log: string): LogLine[] {
  const lines = parseJsonLines(log, logFile, logLine);
  const size = Math.max(1, Math.ceil(lines.length / CURVE_POINTS));
  const short = (x: number): number => Number(x.toPrecision(5));
  const points: LogLine[] = [];
  for (let at = 0; at < lines.length; at += size) {
    const group = lines.slice(at, at + size);
    const total = (name: string): number => group.reduce((sum, line) => sum + (line[name] ?? 0), 0);
    const values = Object.keys(group.at(-1)!).map((name) => {
      if (name === 'step') return [name, group.at(-1)!.step];
      return [name, short(name === 'seconds' ? total(name) : total(name) / group.length)];
    });
    points.push(Object.fromEntries(values) as LogLine);
  }
  return points;
}
