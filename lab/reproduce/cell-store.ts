/**
 * Finished cells of the tables: an editor on a model and a data set under one seed, in a folder small enough to be committed. It holds summary.json,
 * manifest.json, what the records' results are compared by (records.jsonl.gz), and where the editor was trained training-manifest.json and the
 * training curve (curve.jsonl). Weights are not among it, so a table goes on from committed cells without them.
 *   TABLE/<model>/<dataset>/<editor>[/<variant>]/<seed-n | once>/
 */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { z } from 'zod';
import type { Settings } from '../../src/editors/editor.ts';
import type { Costs } from '../../src/evaluation/costs.ts';
import type { JobIdentity } from '../../src/evaluation/job.ts';
import { manifestFile, type Versions } from '../../src/evaluation/manifest.ts';
import { type Evaluation, hardKinds, type RecordResult } from '../../src/evaluation/metrics.ts';
import { summaryFile } from '../../src/evaluation/runner.ts';
import { writeFileAtomic } from '../../src/files/atomic.ts';
import { anyObject, parseJsonLines, readJsonAs } from '../../src/files/schema.ts';
import { type DatasetKind, queryKinds } from '../../src/input/records.ts';
import { logFile, logLine } from '../../src/nn/loop.ts';
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
    readonly training?: Recipe & { readonly data: DataIdentity; readonly limit: number | null };
  };
  readonly data: DataIdentity & { readonly kind: DatasetKind; readonly evaluated: number };
  readonly protocol: JobIdentity['protocol'];
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

export const askedKinds = [...queryKinds, ...hardKinds] as const;

export interface Cell {
  /** from the table's folder, as `mini-llava/vqa/vead/seed-1` */
  readonly place: string;
  readonly manifest: CellManifest;
  readonly evaluation: Evaluation;
}

export const recordsArchive = 'records.jsonl.gz';
const trainingManifestFile = 'training-manifest.json';
export const curveFile = 'curve.jsonl';

export const seedFolder = (seed: number | null): string => (seed === null ? 'once' : `seed-${seed}`);

export function readCell(table: string, place: string): Cell | undefined {
  const dir = join(table, place);
  if (!existsSync(join(dir, manifestFile)) || !existsSync(join(dir, summaryFile))) return undefined;
  const manifest = readJsonAs(join(dir, manifestFile), anyObject) as unknown as CellManifest;
  if (manifest.finished !== true) return undefined;
  return { place, manifest, evaluation: readJsonAs(join(dir, summaryFile), anyObject) as unknown as Evaluation };
}

/** All finished cells below a folder, by place. */
export function readCells(table: string): Cell[] {
  const cells: Cell[] = [];
  const walk = (dir: string): void => {
    if (!existsSync(dir)) return;
    for (const entry of readdirSync(dir, { withFileTypes: true })) {
      if (!entry.isDirectory() || entry.name === workFolder) continue;
      const path = join(dir, entry.name);
      const cell = existsSync(join(path, recordsArchive))
        ? readCell(table, relative(table, path).split(sep).join('/'))
        : undefined;
      if (cell === undefined) walk(path);
      else cells.push(cell);
    }
  };
  walk(table);
  return cells.sort((a, b) => (a.place < b.place ? -1 : 1));
}

/** Where trainings and evaluations go on while they are not finished; not for keeping. */
export const workFolder = 'work';

export function readCellRecords(table: string, { place }: Cell): CellRecord[] {
  const path = join(table, place, recordsArchive);
  return parseJsonLines(gunzipSync(readFileSync(path)).toString('utf8'), path, storedRecord);
}

/** Six digits tell all fractions of a caption's tokens apart. */
const rounded = (x: number): number => Number(x.toFixed(6));

export function cellRecord({ index, queries }: RecordResult): CellRecord {
  return {
    index,
    accuracy: askedKinds.map((kind) => (queries[kind] === undefined ? null : rounded(queries[kind].accuracy))),
    exact: askedKinds.map((kind) => (queries[kind] === undefined ? null : queries[kind].exact ? 1 : 0)),
  };
}

export interface FinishedWork {
  readonly manifest: CellManifest;
  readonly evaluation: Evaluation;
  readonly results: readonly RecordResult[];
  /** folder of the training, where there was one */
  readonly training?: string | undefined;
}

/** Writes a finished cell; the manifest comes last, since it says that the cell is whole. */
export function writeCell(table: string, place: string, { manifest, evaluation, results, training }: FinishedWork): Cell {
  const dir = join(table, place);
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  const lines = results.map((result) => `${JSON.stringify(cellRecord(result))}\n`).join('');
  writeFileAtomic(join(dir, recordsArchive), gzipSync(lines, { level: 9 }));
  if (training !== undefined) {
    copyFileSync(join(training, manifestFile), join(dir, trainingManifestFile));
    const log = join(training, logFile);
    if (existsSync(log)) writeFileAtomic(join(dir, curveFile), thinnedCurve(readFileSync(log, 'utf8')));
  }
  writeFileAtomic(join(dir, summaryFile), `${JSON.stringify(evaluation, null, 1)}\n`);
  writeFileAtomic(join(dir, manifestFile), `${JSON.stringify(manifest, null, 2)}\n`);
  return { place, manifest, evaluation };
}

const CURVE_POINTS = 40;

/** A log's lines as at most 40, each the mean of its neighbours under the step of the last of them; seconds add up. */
export function thinnedCurve(log: string): string {
  const lines = parseJsonLines(log, logFile, logLine);
  const size = Math.max(1, Math.ceil(lines.length / CURVE_POINTS));
  const short = (x: number): number => Number(x.toPrecision(5));
  const points: string[] = [];
  for (let at = 0; at < lines.length; at += size) {
    const group = lines.slice(at, at + size);
    const total = (name: string): number => group.reduce((sum, line) => sum + (line[name] ?? 0), 0);
    const values = Object.keys(group.at(-1)!).map((name) => {
      if (name === 'step') return [name, group.at(-1)!.step];
      return [name, short(name === 'seconds' ? total(name) : total(name) / group.length)];
    });
    points.push(`${JSON.stringify(Object.fromEntries(values))}\n`);
  }
  return points.join('');
}
