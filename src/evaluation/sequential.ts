/**
 * Sequential editing: edits stay in the model, one after the other, and after 1, 10, 100, 1 000 and N of them every edit made so far is asked for again,
 * with its generality and locality queries, against the unedited model. Where the editor has a `sequence`, each edit is made on the model under those
 * before, otherwise on the unedited model. They are joined by the editor's `chain`: weight changes add up, adapters act one
 * after the other, and editors that only route choose among all stored edits.
 *
 * There is one run, of the first N records; or, with `restarts`, runs of each length over all records, each of which begins with the unedited model:
 * LiveEdit's lifelong protocol (Chen et al. 2025), in which each length is measured over as many records as it divides.
 * `moments` also asks for an edit right after it was made, under those before (`own`): what later edits did to it is the difference.
 * With `sample` every length asks for so many of its edits, chosen at random; all edits are in the model all the same.
 *
 * A folder holds `after-<n>/` and `own-<n>/` (records.jsonl, summary.json) for each length, summary.json over all of them, and manifest.json.
 */

import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Edit, Editor, EditSequence } from '../editors/editor.ts';
import { makeFolder, writeFileAtomic } from '../files/atomic.ts';
import { anyObject, readJsonAs } from '../files/schema.ts';
import type { EditRecord } from '../input/records.ts';
import type { AnsweringModel } from '../models/answer.ts';
import type { Vlm } from '../models/vlm.ts';
import { Random } from '../random.ts';
import { defaultThreads } from '../runtime/node.ts';
import { type BatchEvaluation, evaluateBatch } from './asking.ts';
import { addCosts, bytesOfEdits, type Costs, noCosts, privateMemory, timed } from './costs.ts';
import { closeJob, type Job, type JobIdentity, type OpenJob, openJob } from './job.ts';
import { type Manifest, ManifestKeeper, manifestFile } from './manifest.ts';
import { averageOf, type Evaluation, scoreRecord, summarize } from './metrics.ts';
import { type AskOptions, askAll, load, openRequests, stopIfAsked } from './queries.ts';
import { type RunOptions, summaryFile } from './runner.ts';
import { type Interval, twoWayInterval } from './statistics.ts';
import { Appender, gather, readResults, recordsFile } from './store.ts';

export interface SequentialPoint {
  /** edits in the model */
  readonly edits: number;
  /** over all records of all runs */
  readonly evaluation: Evaluation;
  /** of the mean of the five metrics over these records, 95 %; null for one record */
  readonly interval: Interval | null;
  /** of each edit right after it was made */
  readonly own?: Evaluation;
}

/** What runs of one length took: machines differ, so it stands beside the results. */
export interface SequentialCosts {
  /** edits in the model */
  readonly length: number;
  readonly costs: Costs;
}

/** In the folder of a length. */
export const costsFile = 'costs.json';

export interface SequentialRun {
  readonly points: readonly SequentialPoint[];
  /** by the number of edits in the model */
  readonly costs: readonly SequentialCosts[];
  readonly manifest: Manifest<SequentialIdentity>;
}

export interface SequentialIdentity extends JobIdentity {
  readonly sequential: {
    readonly edits: number;
    /** the model that an edit is made on */
    readonly madeOn: 'the model under the edits before' | 'the unedited model';
    /** all records at every length, in runs that begin with the unedited model; absent: one run of the first records */
    readonly restarts?: true;
    /** the longest runs in which each edit is asked for at its own moment, too */
    readonly moments?: number;
    /** records asked at each length, chosen at random; absent: all */
    readonly sample?: number;
  };
}

export interface SequentialOptions extends Omit<RunOptions, 'jobs'> {
  readonly restarts?: boolean | undefined;
  /** longest runs in which each edit is asked for at its own moment; 0 when absent */
  readonly moments?: number | undefined;
  /** the most records asked at each length; all when absent */
  readonly sample?: number | undefined;
}

/** 1, 10, 100, ... below `count`, and `count`. */
export function sequentialPoints(count: number): number[] {
  const points: number[] = [];
  for (let n = 1; n < count; n *= 10) points.push(n);
  return [...points, count];
}

/** The model under all edits. @throws Error when edits of this editor do not combine */
export function underAll(editor: Editor, vlm: Vlm, edits: readonly Edit[]): AnsweringModel {
  return edits.length === 1 ? editor.with(vlm, edits) : chainOf(editor)(vlm, edits);
}

function chainOf(editor: Editor): NonNullable<Editor['chain']> {
  if (editor.chain === undefined)
    throw new Error(
      `edits of ${editor.id} do not combine, so they cannot stay in the model one after the other; leave out --sequential`,
    );
  return editor.chain;
}

/** @param count N, the most edits in the model @throws Stopped when the signal asks; what is finished is kept */
export async function runSequential(job: Job, count: number, options: SequentialOptions): Promise<SequentialRun> {
  const { out, resume = false, threads, command = '', onWarn, restarts = false, moments = 0, sample } = options;
  const check = (): void => {
    if (!resume && existsSync(join(out, manifestFile)))
      throw new Error(`${out} holds results already; go on with --resume, or name another folder with --out`);
  };
  check();
  const open = await openJob(job, { threads });
  const records = open.batches.flat();
  if (records.length < count) {
    await closeJob(open);
    throw new Error(
      `--sequential ${count} asks for more edits than the ${records.length} records there are; give a smaller number`,
    );
  }
  if (count > 1) chainOf(open.subject.editor);
  makeFolder(out);
  const identity: SequentialIdentity = {
    ...open.identity,
    sequential: {
      edits: count,
      madeOn: open.subject.editor.sequence === undefined ? 'the unedited model' : 'the model under the edits before',
      ...(restarts ? { restarts } : {}),
      ...(moments > 1 ? { moments } : {}),
      ...(sample === undefined ? {} : { sample }),
    },
  };
  const machine = { threads: threads ?? defaultThreads(), device: open.subject.vlm.engine.device.name };
  const keeper = new ManifestKeeper(out, command, identity, resume, undefined, machine, check);
  if (keeper.mixed !== undefined) onWarn?.(keeper.mixed);
  rmSync(join(out, summaryFile), { force: true });
  const lengths = sequentialPoints(count);
  const works = lengths.flatMap((length) => {
    const runs = restarts ? chunks(records, length).filter((run) => run.length === length) : [records.slice(0, length)];
    const asked = chosenOf(runs, sample);
    const work = (own: boolean): Work => ({ length, runs, asked, own });
    return length > 1 && length <= moments ? [work(false), work(true)] : [work(false)];
  });
  const progress = new SequentialProgress(works, options);
  // One run of the first records is the beginning of the longer ones.
  const prefix = restarts ? undefined : new SequentialEdits(open, records.slice(0, count), job.batch);
  keeper.write(0, false);
  try {
    for (const work of works) await doWork(open, work, join(out, folderOf(work)), job.batch, prefix, progress);
  } catch (error) {
    keeper.write(progress.asked, false, progress.costs);
    throw error;
  } finally {
    await closeJob(open);
  }
  const evaluationOf = (work: Pick<Work, 'length' | 'own'>): Evaluation =>
    readJsonAs(join(out, folderOf(work), summaryFile), anyObject) as unknown as Evaluation;
  const points = lengths.map((length): SequentialPoint => {
    const results = readResults(join(out, sequentialFolder(length)));
    const own = works.some((work) => work.own && work.length === length);
    return {
      edits: length,
      evaluation: evaluationOf({ length, own: false }),
      interval: results.length < 2 ? null : twoWayInterval([results.map(averageOf)]),
      ...(own ? { own: evaluationOf({ length, own }) } : {}),
    };
  });
  writeFileAtomic(join(out, summaryFile), `${JSON.stringify({ points }, null, 2)}\n`);
  const costs = lengths.map((length) => ({ length, costs: costsOf(join(out, sequentialFolder(length))) }));
  return { points, costs, manifest: keeper.write(progress.asked, true, progress.costs) };
}

/** Runs of one length, asked at their end or at each edit's own moment. */
interface Work {
  readonly length: number;
  readonly runs: readonly (readonly EditRecord[])[];
  /** the records of the runs that are asked for */
  readonly asked: ReadonlySet<EditRecord>;
  readonly own: boolean;
}

/**
 * A sample of the records of some runs, the same for every editor: whole runs are drawn until they hold enough, since a run takes all its edits however
 * few of them are asked for, and of their records as many as are wanted.
 */
function chosenOf(runs: readonly (readonly EditRecord[])[], sample: number | undefined): ReadonlySet<EditRecord> {
  const all = runs.flat();
  if (sample === undefined || sample >= all.length) return new Set(all);
  const random = new Random(`sequential/${runs.length}/${runs[0]!.length}`);
  const drawn = random.shuffle(runs).slice(0, Math.ceil(sample / runs[0]!.length));
  return new Set(random.shuffle(drawn.flat()).slice(0, sample));
}

/** Of a finished length. */
const costsOf = (folder: string): Costs => readJsonAs(join(folder, costsFile), anyObject) as unknown as Costs;

const folderOf = ({ length, own }: Pick<Work, 'length' | 'own'>): string => sequentialFolder(length, own);

/** Where the records of a length are, in the folder of a run. */
export const sequentialFolder = (length: number, own = false): string => `${own ? 'own' : 'after'}-${length}`;

class SequentialProgress {
  readonly #total: number;
  #done = 0;
  /** records asked in this session */
  asked = 0;
  costs = noCosts;
  #fresh = noCosts;

  constructor(
    works: readonly Work[],
    readonly options: Pick<RunOptions, 'signal' | 'onProgress'>,
  ) {
    this.#total = works.reduce((sum, { asked }) => sum + asked.size, 0);
  }

  pass(records: number): void {
    this.#done += records;
    this.options.onProgress?.(this.#done, this.#total);
  }

  ask(records: number, costs: Costs): void {
    this.asked += records;
    this.add(costs);
  }

  add(costs: Costs): void {
    this.costs = addCosts(this.costs, costs);
    this.#fresh = addCosts(this.#fresh, costs);
  }

  /** Costs since this was asked before. */
  takeCosts(): Costs {
    const taken = this.#fresh;
    this.#fresh = noCosts;
    return taken;
  }
}

async function doWork(
  open: OpenJob,
  { length, runs, asked, own }: Work,
  folder: string,
  size: number,
  prefix: SequentialEdits | undefined,
  progress: SequentialProgress,
): Promise<void> {
  const { signal } = progress.options;
  // At their own moments edits are asked for one by one; runs of one edit are as many edits side by side.
  const batched = (records: readonly EditRecord[]): EditRecord[][] =>
    chunks(
      records.filter((record) => asked.has(record)),
      own ? 1 : size,
    );
  const parts = length === 1 ? [runs.flat()] : runs;
  const batches = parts.map(batched);
  const indices = batches.flat().map((batch) => batch.map(({ index }) => index));
  const finished = gather(folder, indices);
  if (finished.size === indices.length && existsSync(join(folder, summaryFile))) return progress.pass(asked.size);
  const file = new Appender(join(folder, recordsFile));
  const { maxNewTokens } = open.identity.protocol;
  const asking = { maxNewTokens, ...(signal === undefined ? {} : { signal }) };
  let at = 0;
  for (const [r, run] of parts.entries()) {
    const missing = batches[r]!.map((_, i) => !finished.has(at + i));
    at += missing.length;
    if (!missing.includes(true)) {
      progress.pass(batches[r]!.flat().length);
      continue;
    }
    if (length === 1 && prefix === undefined) {
      for (const [i, batch] of batches[r]!.entries()) {
        if (missing[i]) {
          const { results, costs } = await evaluateBatch(open.subject, batch, asking, open.before);
          file.append(results);
          progress.ask(batch.length, costs);
        }
        progress.pass(batch.length);
      }
      continue;
    }
    const edits = prefix ?? new SequentialEdits(open, run, size);
    const made = await edits.first(run.length, signal);
    progress.add(made.costs);
    const { editor, vlm } = open.subject;
    const whole = own ? undefined : underAll(editor, vlm, made.edits);
    for (const [i, batch] of batches[r]!.entries()) {
      if (missing[i]) {
        const model = whole ?? underAll(editor, vlm, made.edits.slice(0, run.indexOf(batch[0]!) + 1));
        const answered = await askUnder(open, model, batch, asking);
        file.append(answered.results);
        progress.ask(batch.length, answered.costs);
      }
      progress.pass(batch.length);
    }
  }
  file.close();
  const before = existsSync(join(folder, costsFile)) ? costsOf(folder) : noCosts;
  writeFileAtomic(join(folder, costsFile), `${JSON.stringify(addCosts(before, progress.takeCosts()), null, 2)}\n`);
  // Lines stand in the order of the records, whatever a stop has left.
  gather(folder, indices);
  writeFileAtomic(join(folder, summaryFile), `${JSON.stringify(summarize(readResults(folder)), null, 2)}\n`);
}

function chunks<T>(all: readonly T[], size: number): T[][] {
  const out: T[][] = [];
  for (let at = 0; at < all.length; at += size) out.push(all.slice(at, at + size));
  return out;
}

async function askUnder(
  { before }: OpenJob,
  model: AnsweringModel,
  records: readonly EditRecord[],
  options: AskOptions,
): Promise<BatchEvaluation> {
  const batch = await load(records);
  const unchanged = await timed(() => before.get(batch, options));
  const changed = await timed(() => askAll(model, batch, options));
  return {
    results: batch.map(({ record }, i) => scoreRecord(record, unchanged.value[i]!, changed.value[i]!)),
    costs: { ...noCosts, askSeconds: changed.seconds, uneditedSeconds: unchanged.seconds, privateBytes: privateMemory() },
  };
}

/** The edits of a sequence, each made once. */
class SequentialEdits {
  readonly #made: Edit[] = [];
  #next: EditSequence | undefined;

  constructor(
    readonly open: OpenJob,
    readonly records: readonly EditRecord[],
    readonly batch: number,
  ) {}

  async first(n: number, signal?: AbortSignal): Promise<{ edits: readonly Edit[]; costs: Costs }> {
    const { vlm, editor, weights, settings } = this.open.subject;
    this.#next ??= editor.sequence?.(vlm, weights, settings);
    const before = this.#made.length;
    const { seconds } = await timed(async () => {
      while (this.#made.length < n) {
        stopIfAsked(signal);
        const at = this.#made.length;
        const batch = await openRequests(this.records.slice(at, Math.min(n, at + this.batch)));
        if (this.#next === undefined) this.#made.push(...(await editor.edit(vlm, batch, weights, settings)));
        else for (const request of batch) this.#made.push(await this.#next(request));
      }
    });
    const fresh = this.#made.slice(before, n);
    const costs = { ...noCosts, edits: fresh.length, editSeconds: seconds, editBytes: bytesOfEdits(fresh, weights) };
    return { edits: this.#made.slice(0, n), costs };
  }
}
