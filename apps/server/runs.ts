/** Evaluations and trainings in folders, and finished cells of tables: what they are, their records, their curves. Read anew when their files change. */

import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { isColumnFile, readColumn } from '../../lab/reproduce/cell-store.ts';
import { manifestFile } from '../../src/evaluation/manifest.ts';
import type { RecordResult } from '../../src/evaluation/metrics.ts';
import { summaryFile } from '../../src/evaluation/runner.ts';
import { readResults, recordsFile } from '../../src/evaluation/store.ts';
import { readJson } from '../../src/files/json.ts';
import { readJsonLines } from '../../src/files/schema.ts';
import { type LogLine, logFile, logLine } from '../../src/nn/loop.ts';
import type { Datasets } from './datasets.ts';
import { ApiError } from './errors.ts';

/** Depth to which folders are searched. */
const depth = 6;
/** Folders are searched again after this time. */
const anewMilliseconds = 2000;
/** A run whose files did not change for so long has stopped. */
const quietSeconds = 180;

const manifestSchema = z.object({
  command: z.string().optional(),
  finished: z.boolean().optional(),
  identity: z
    .object({
      model: z.object({ name: z.string() }).optional(),
      editor: z.union([z.string(), z.object({ id: z.string() })]).optional(),
      data: z.object({ file: z.string(), sha256: z.string(), records: z.number().optional() }).optional(),
      options: z.record(z.string(), z.unknown()).optional(),
    })
    .optional(),
  timings: z
    .object({ seconds: z.number().optional(), sessions: z.array(z.object({ started: z.string().optional() })).optional() })
    .optional(),
});
const summarySchema = z.record(z.string(), z.unknown());

export interface RunFacts {
  readonly object: 'run';
  readonly id: string;
  readonly kind: 'evaluation' | 'training';
  readonly state: 'running' | 'finished' | 'stopped';
  readonly editor: string | null;
  readonly model: string | null;
  /** name of the file of records */
  readonly data: string | null;
  readonly dataset: string | null;
  readonly finished: boolean;
  readonly started: string | null;
  /** seconds since 1970 of the last change */
  readonly updated: number;
  readonly seconds: number | null;
  readonly count: number | null;
  readonly summary: Readonly<Record<string, number>> | null;
  readonly loss: number | null;
  readonly steps: { readonly done: number; readonly total: number | null } | null;
}

const five = ['reliability', 'textGenerality', 'modalGenerality', 'textLocality', 'modalLocality', 'average'] as const;

/** A file's content as long as the file stays the same. */
class Fresh<T> {
  readonly #known = new Map<string, { stamp: string; value: T }>();
  constructor(readonly read: (path: string) => T) {}

  get(path: string): T | undefined {
    const found = statSync(path, { throwIfNoEntry: false });
    if (found === undefined) return undefined;
    const stamp = `${found.mtimeMs}|${found.size}`;
    const known = this.#known.get(path);
    if (known?.stamp === stamp) return known.value;
    const value = this.read(path);
    this.#known.delete(path);
    this.#known.set(path, { stamp, value });
    if (this.#known.size > 64) this.#known.delete(this.#known.keys().next().value as string);
    return value;
  }
}

const json = (path: string): unknown => {
  try {
    return readJson(path);
  } catch {
    return undefined;
  }
};

/** Where a run is kept: in a folder, or as a line of a table's file. */
type Kept = { readonly folder: string } | { readonly file: string; readonly place: string };

interface Contents {
  /** of a cell: how its editor was trained belongs to it */
  readonly kind?: 'evaluation';
  readonly manifest: unknown;
  readonly summary: Record<string, unknown> | undefined;
  readonly log: readonly LogLine[] | undefined;
  /** seconds since 1970 of the last change */
  readonly updated: number;
}

export class Runs {
  #found: { at: number; runs: Map<string, Kept> } | undefined;
  readonly #roots: readonly { name: string; path: string }[];
  readonly #manifests = new Fresh(json);
  readonly #summaries = new Fresh((path) => summarySchema.safeParse(json(path)).data);
  readonly #logs = new Fresh(readLog);
  readonly #records = new Fresh((path) => readResults(dirname(path)));
  readonly #columns = new Fresh(readColumn);

  constructor(
    folders: readonly string[],
    readonly datasets: Datasets,
  ) {
    const used = new Set<string>();
    this.#roots = folders.map((folder) => {
      const path = resolve(folder);
      let name = basename(path);
      for (let n = 2; used.has(name); n++) name = `${basename(path)}-${n}`;
      used.add(name);
      return { name, path };
    });
  }

  /** By id; a client names only what is found here. Folders are looked through anew after a moment. */
  #runs(): Map<string, Kept> {
    const now = performance.now();
    if (this.#found === undefined || now - this.#found.at > anewMilliseconds) this.#found = { at: now, runs: this.#look() };
    return this.#found.runs;
  }

  #look(): Map<string, Kept> {
    const found = new Map<string, Kept>();
    const look = (path: string, id: string, left: number): void => {
      if (existsSync(join(path, manifestFile))) found.set(id, { folder: path });
      for (const entry of readdirSync(path, { withFileTypes: true })) {
        const inside = join(path, entry.name);
        if (isColumnFile(entry.name))
          for (const place of this.#columns.get(inside)?.keys() ?? [])
            found.set(`${id}~${place.replaceAll('/', '~')}`, { file: inside, place });
        if (left > 0 && entry.isDirectory() && /^[\w.-]+$/.test(entry.name) && !entry.name.startsWith('.'))
          look(inside, `${id}~${entry.name}`, left - 1);
      }
    };
    for (const { name, path } of this.#roots) if (existsSync(path)) look(path, name, depth);
    return found;
  }

  /** The latest first. */
  list(): RunFacts[] {
    return [...this.#runs()].map(([id, kept]) => this.#facts(id, this.#contents(kept))).sort((a, b) => b.updated - a.updated);
  }

  get(id: string): { facts: RunFacts; manifest: unknown; summary: unknown } {
    const contents = this.#contents(this.#kept(id));
    return { facts: this.#facts(id, contents), manifest: contents.manifest ?? null, summary: contents.summary ?? null };
  }

  /** None of a cell: it keeps of each record what tests are paired by, and no answers. */
  records(id: string): readonly RecordResult[] {
    const kept = this.#kept(id);
    return ('folder' in kept && this.#records.get(join(kept.folder, recordsFile))) || [];
  }

  log(id: string): readonly LogLine[] {
    return this.#contents(this.#kept(id)).log ?? [];
  }

  #kept(id: string): Kept {
    const kept = this.#runs().get(id);
    if (kept === undefined) throw new ApiError(404, 'run_not_found', `there is no run ${JSON.stringify(id)}`, { param: 'id' });
    return kept;
  }

  #contents(kept: Kept): Contents {
    if ('file' in kept) {
      const cell = this.#columns.get(kept.file)?.get(kept.place);
      const summary = cell?.evaluation as Record<string, unknown> | undefined;
      return { kind: 'evaluation', manifest: cell?.manifest, summary, log: cell?.curve, updated: changed(kept.file) };
    }
    const at = (name: string): string => join(kept.folder, name);
    return {
      manifest: this.#manifests.get(at(manifestFile)),
      summary: this.#summaries.get(at(summaryFile)),
      log: this.#logs.get(at(logFile)),
      updated: Math.max(...[manifestFile, logFile, recordsFile].map((name) => changed(at(name)))),
    };
  }

  #facts(id: string, { kind, manifest, summary, log, updated }: Contents): RunFacts {
    const { identity, timings, finished = false } = manifestSchema.safeParse(manifest).data ?? {};
    const training = kind === undefined && (log !== undefined || (summary === undefined && identity?.options !== undefined));
    const quiet = Date.now() / 1000 - updated > quietSeconds;
    const last = log?.at(-1);
    const { editor, data } = identity ?? {};
    const total = identity?.options?.steps;
    return {
      object: 'run',
      id,
      kind: training ? 'training' : 'evaluation',
      state: finished ? 'finished' : quiet ? 'stopped' : 'running',
      editor: editor === undefined ? null : typeof editor === 'string' ? editor : editor.id,
      model: identity?.model?.name ?? null,
      data: data?.file ?? null,
      dataset: data === undefined ? null : this.datasets.bySha256(data.sha256),
      finished,
      started: timings?.sessions?.[0]?.started ?? null,
      updated,
      seconds: timings?.seconds ?? null,
      count: typeof summary?.count === 'number' ? summary.count : (data?.records ?? null),
      summary: training || summary === undefined ? null : fiveOf(summary),
      loss: last?.loss ?? null,
      steps: training ? { done: last?.step ?? 0, total: typeof total === 'number' ? total : null } : null,
    };
  }
}

/** 0 where there is no such file. */
const changed = (path: string): number => (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0) / 1000;

function fiveOf(summary: Record<string, unknown>): Record<string, number> | null {
  const found = five.flatMap((name): [string, number][] => (typeof summary[name] === 'number' ? [[name, summary[name]]] : []));
  return found.length === 0 ? null : Object.fromEntries(found);
}

/** Lines of a training's log; one that is cut off is left out. */
function readLog(path: string): LogLine[] {
  return readJsonLines(path, logLine, 'skip');
}

/** At most so many of some values, evenly spread, the last one among them. */
export function thinned<T>(values: readonly T[], points: number): T[] {
  if (values.length <= points) return [...values];
  const step = (values.length - 1) / Math.max(1, points - 1);
  return Array.from({ length: points }, (_, i) => values[Math.round(values.length - 1 - (points - 1 - i) * step)]!);
}
