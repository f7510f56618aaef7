/**
 * A search over the settings of an editor that works per edit: every combination makes the same edits, of training records, and the one with the
 * best average of the five metrics is the choice. Teacher forced, as the metrics are. What is finished in the file is not done again.
 */

import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { z } from 'zod';
import type { Edit, EditorWeights, Settings } from '../editors/editor.ts';
import { findEditor } from '../editors/outside.ts';
import { weightsFor } from '../editors/shipped.ts';
import { makeFolder, writeFileAtomic } from '../files/atomic.ts';
import { readJsonAs } from '../files/schema.ts';
import { type DatasetKind, openRecords, type QueryKind, queryKinds } from '../input/records.ts';
import { type TargetAnswer, unedited } from '../models/answer.ts';
import { loadModel } from '../models/load.ts';
import type { Vlm } from '../models/vlm.ts';
import { type FileId, fileId, type Versions, versions } from './manifest.ts';
import { type FiveMetrics, tokenAccuracy } from './metrics.ts';
import { type Loaded, load, requestOf } from './queries.ts';

export interface SearchJob {
  /** folder or built-in name */
  readonly model: string;
  readonly editor: string;
  /** of an editor that needs some */
  readonly weights?: string | undefined;
  /** records of the training split */
  readonly data: string;
  readonly images: string;
  /** records that are edited, drawn by the seed */
  readonly edits: number;
  readonly seed: number;
  readonly grid: readonly Settings[];
  readonly threads?: number | undefined;
}

export interface Combination {
  readonly settings: Settings;
  readonly metrics: FiveMetrics;
  readonly secondsPerEdit: number;
}

export interface SearchResult {
  readonly command: string;
  readonly identity: {
    readonly model: { readonly name: string; readonly fingerprint: string };
    readonly editor: { readonly id: string; readonly weights: FileId | null };
    readonly data: FileId & { readonly kind: DatasetKind; readonly edits: number };
    readonly seed: number;
    readonly versions: Versions;
  };
  /** in the order of the grid */
  readonly combinations: readonly Combination[];
  readonly best: Settings;
}

/** What is needed of a file to go on with it; that its identity agrees is checked apart. */
const earlierSearch = z.looseObject({
  identity: z.unknown(),
  combinations: z.array(
    z.looseObject({
      settings: z.record(z.string(), z.unknown()),
      metrics: z.looseObject({ average: z.number() }),
      secondsPerEdit: z.number(),
    }),
  ),
});

/** Every combination of the values of some settings, the last one varying fastest. */
export function gridOf(values: Readonly<Record<string, readonly number[]>>): Settings[] {
  return Object.entries(values).reduce<Settings[]>(
    (grid, [name, choices]) => grid.flatMap((settings) => choices.map((value) => ({ ...settings, [name]: value }))),
    [{}],
  );
}

/** @throws Error when the file holds a search of something else, or the editor does not know a setting */
export async function searchSettings(
  job: SearchJob,
  path: string,
  { command, onCombination }: { command: string; onCombination?: (done: Combination) => void },
): Promise<SearchResult> {
  const editor = await findEditor(job.editor);
  if (job.grid.length === 0) throw new Error('the grid is empty; give at least one value of one setting');
  const { kind, records } = openRecords(job.data, job.images, { limit: job.edits, seed: job.seed });
  const vlm = loadModel(job.model, job.threads === undefined ? {} : { threads: job.threads });
  const weights = weightsFor(vlm, editor, job.weights);
  const identity: SearchResult['identity'] = {
    model: { name: vlm.name, fingerprint: vlm.fingerprint },
    editor: { id: editor.id, weights: job.weights === undefined ? null : fileId(job.weights) },
    data: { ...fileId(job.data), kind, edits: records.length },
    seed: job.seed,
    versions: versions(),
  };
  const earlier = existsSync(path) ? (readJsonAs(path, earlierSearch) as unknown as SearchResult) : undefined;
  if (earlier !== undefined && JSON.stringify(earlier.identity) !== JSON.stringify(identity))
    throw new Error(`${path} holds a search of something else; name another file with --out, or remove it`);
  makeFolder(dirname(path));
  const combinations: Combination[] = [];
  const result = (): SearchResult => ({
    command,
    identity,
    combinations,
    best: combinations.reduce((a, b) => (b.metrics.average > a.metrics.average ? b : a)).settings,
  });
  try {
    const batch = await load(records);
    const before = await forcedAnswers(vlm, batch);
    for (const settings of job.grid) {
      const same = (other: Combination): boolean => JSON.stringify(other.settings) === JSON.stringify(settings);
      const done = earlier?.combinations.find(same) ?? (await tried({ vlm, editor, weights }, batch, before, settings));
      combinations.push(done);
      writeFileAtomic(path, `${JSON.stringify(result(), null, 2)}\n`);
      onCombination?.(done);
    }
  } finally {
    await vlm.release();
  }
  return result();
}

type Forced = readonly Readonly<Record<QueryKind, TargetAnswer>>[];

/** Answers to the five queries of each record, unedited or under its own edit. */
async function forcedAnswers(vlm: Vlm, batch: readonly Loaded[], edited?: EditedBy): Promise<Forced> {
  const ask = async (records: readonly Loaded[], model = unedited(vlm)): Promise<Record<QueryKind, TargetAnswer>[]> => {
    const queries = records.flatMap(({ asked }) => queryKinds.map((kind) => asked.find((a) => a.kind === kind)!.query));
    const answers = await model.answerTargets(queries);
    return records.map(
      (_, i) =>
        Object.fromEntries(queryKinds.map((kind, k) => [kind, answers[i * queryKinds.length + k]!])) as Record<
          QueryKind,
          TargetAnswer
        >,
    );
  };
  if (edited === undefined) return ask(batch);
  return ask(
    batch,
    edited.editor.with(
      vlm,
      edited.edits.flatMap((edit) => queryKinds.map(() => edit)),
    ),
  );
}

type AnyEditor = Awaited<ReturnType<typeof findEditor>>;

interface EditedBy {
  readonly editor: AnyEditor;
  readonly edits: readonly Edit[];
}

async function tried(
  { vlm, editor, weights }: { vlm: Vlm; editor: AnyEditor; weights: EditorWeights | undefined },
  batch: readonly Loaded[],
  before: Forced,
  settings: Settings,
): Promise<Combination> {
  const started = performance.now();
  const edits = await editor.edit(vlm, batch.map(requestOf), weights, settings);
  const secondsPerEdit = Number(((performance.now() - started) / 1000 / edits.length).toFixed(4));
  const after = await forcedAnswers(vlm, batch, { editor, edits });
  const mean = (kind: QueryKind): number =>
    after.reduce((sum, answers, i) => sum + tokenAccuracy(kind, before[i]![kind], answers[kind]), 0) / after.length;
  const five = Object.fromEntries(queryKinds.map((kind) => [kind, mean(kind)])) as Record<QueryKind, number>;
  const average = queryKinds.reduce((sum, kind) => sum + five[kind], 0) / queryKinds.length;
  return { settings, metrics: { ...five, average }, secondsPerEdit };
}
