/**
 * Sequential editing: the first N records' edits stay in the model one after the other, and after 1, 10, 100, 1 000 and N of them every edit made
 * so far is asked for again, with its generality and locality queries. Where the editor has a `sequence`, each edit is made on the model under those
 * before, otherwise on the unedited model. They are joined by the editor's `chain`: weight changes add up, adapters act one
 * after the other, and editors that only route choose among all stored edits.
 * A folder holds `after-<n>/` (records.jsonl, summary.json) for each point, summary.json over all of them, and manifest.json.
 */

import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Edit, Editor, EditSequence } from '../editors/editor.ts';
import { makeFolder, writeFileAtomic } from '../files/atomic.ts';
import { anyObject, readJsonAs } from '../files/schema.ts';
import type { EditRecord } from '../input/records.ts';
import type { AnsweringModel } from '../models/answer.ts';
import type { Vlm } from '../models/vlm.ts';
import { defaultThreads } from '../runtime/node.ts';
import { addCosts, bytesOfEdits, type Costs, noCosts, privateMemory, timed } from './costs.ts';
import { closeJob, type Job, type JobIdentity, type OpenJob, openJob } from './job.ts';
import { type Manifest, ManifestKeeper, manifestFile } from './manifest.ts';
import { type Evaluation, scoreRecord, summarize } from './metrics.ts';
import { askAll, load, requestOf, stopIfAsked } from './queries.ts';
import { type RunOptions, summaryFile } from './runner.ts';
import { Appender, gather, readResults, recordsFile } from './store.ts';

export interface SequentialPoint {
  /** edits in the model, and records asked */
  readonly edits: number;
  readonly evaluation: Evaluation;
}

export interface SequentialRun {
  readonly points: readonly SequentialPoint[];
  readonly manifest: Manifest<SequentialIdentity>;
}

export interface SequentialIdentity extends JobIdentity {
  readonly sequential: {
    readonly edits: number;
    /** the model that an edit is made on */
    readonly madeOn: 'the model under the edits before' | 'the unedited model';
  };
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

/** @param count N, the edits made in all @throws Stopped when the signal asks; points that are finished are kept */
export async function runSequential(job: Job, count: number, options: Omit<RunOptions, 'jobs'>): Promise<SequentialRun> {
  const { out, resume = false, threads, signal, command = '', onProgress, onWarn } = options;
  if (!resume && existsSync(join(out, manifestFile)))
    throw new Error(`${out} holds results already; go on with --resume, or name another folder with --out`);
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
  const madeOn = open.subject.editor.sequence === undefined ? 'the unedited model' : 'the model under the edits before';
  const identity: SequentialIdentity = { ...open.identity, sequential: { edits: count, madeOn } };
  const machine = { threads: threads ?? defaultThreads(), device: open.subject.vlm.engine.device.name };
  const keeper = new ManifestKeeper(out, command, identity, resume, undefined, machine);
  if (keeper.mixed !== undefined) onWarn?.(keeper.mixed);
  rmSync(join(out, summaryFile), { force: true });
  const points = sequentialPoints(count);
  const total = points.reduce((sum, n) => sum + n, 0);
  let done = 0;
  let asked = 0;
  let costs = noCosts;
  const edits = new SequentialEdits(open, records.slice(0, count), job.batch);
  keeper.write(0, false);
  try {
    for (const n of points) {
      const folder = join(out, `after-${n}`);
      const batches = batchesOf(records.slice(0, n), job.batch);
      const finished = gather(
        folder,
        batches.map((batch) => batch.map(({ index }) => index)),
      );
      if (finished.size === batches.length && existsSync(join(folder, summaryFile))) {
        done += n;
        continue;
      }
      const made = finished.size === batches.length ? undefined : await edits.first(n, signal);
      const model = made === undefined ? undefined : underAll(open.subject.editor, open.subject.vlm, made.edits);
      costs = made === undefined ? costs : addCosts(costs, made.costs);
      const file = new Appender(join(folder, recordsFile));
      for (const [i, batch] of batches.entries()) {
        if (!finished.has(i)) {
          const answered = await edits.ask(model!, batch, signal);
          file.append(answered.results);
          costs = addCosts(costs, answered.costs);
          asked += batch.length;
        }
        done += batch.length;
        onProgress?.(done, total);
      }
      file.close();
      writeFileAtomic(join(folder, summaryFile), `${JSON.stringify(summarize(readResults(folder)), null, 2)}\n`);
    }
  } catch (error) {
    keeper.write(asked, false, costs);
    throw error;
  } finally {
    await closeJob(open);
  }
  const all = points.map((n) => ({
    edits: n,
    evaluation: readJsonAs(join(out, `after-${n}`, summaryFile), anyObject) as unknown as Evaluation,
  }));
  writeFileAtomic(join(out, summaryFile), `${JSON.stringify({ points: all }, null, 2)}\n`);
  return { points: all, manifest: keeper.write(asked, true, costs) };
}

function batchesOf(records: readonly EditRecord[], size: number): EditRecord[][] {
  const batches: EditRecord[][] = [];
  for (let at = 0; at < records.length; at += size) batches.push(records.slice(at, at + size));
  return batches;
}

/** The edits of a sequence, each made once, and the questions about them. */
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
        const batch = (await load(this.records.slice(at, Math.min(n, at + this.batch)))).map(requestOf);
        if (this.#next === undefined) this.#made.push(...(await editor.edit(vlm, batch, weights, settings)));
        else for (const request of batch) this.#made.push(await this.#next(request));
      }
    });
    const fresh = this.#made.slice(before, n);
    const costs = { ...noCosts, edits: fresh.length, editSeconds: seconds, editBytes: bytesOfEdits(fresh, weights) };
    return { edits: this.#made.slice(0, n), costs };
  }

  async ask(model: AnsweringModel, records: readonly EditRecord[], signal?: AbortSignal) {
    const { maxNewTokens } = this.open.identity.protocol;
    const options = { maxNewTokens, ...(signal === undefined ? {} : { signal }) };
    const batch = await load(records);
    const unchanged = await timed(() => this.open.before.get(batch, options));
    const changed = await timed(() => askAll(model, batch, options));
    return {
      results: batch.map(({ record }, i) => scoreRecord(record, unchanged.value[i]!, changed.value[i]!)),
      costs: { ...noCosts, askSeconds: changed.seconds, uneditedSeconds: unchanged.seconds, privateBytes: privateMemory() },
    };
  }
}
