/**
 * Evaluates an editor over a file of records into a folder: records.jsonl (a line per record), summary.json, manifest.json. A run that was
 * stopped or killed goes on at the batch that was not finished and ends with the same bytes; `jobs` processes share the batches.
 */

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '../files/atomic.ts';
import { Stopped } from '../nn/loop.ts';
import { defaultThreads } from '../runtime/node.ts';
import { evaluateBatch } from './asking.ts';
import { addCosts, type Costs, noCosts } from './costs.ts';
import { closeJob, type Job, type JobIdentity, type OpenJob, openJob } from './job.ts';
import { type Manifest, ManifestKeeper } from './manifest.ts';
import { type Evaluation, type RecordResult, summarize } from './metrics.ts';
import { Appender, gather, hasResults, partFile, readResults, recordsFile } from './store.ts';
import { type Finished, Worker } from './worker.ts';

export { evaluateRecords } from './asking.ts';

export const summaryFile = 'summary.json';

/** Work that is given away. */
export interface HandedWork {
  readonly job: Job;
  readonly identity: JobIdentity;
  readonly batches: readonly number[];
  /** puts a batch's results on disk */
  readonly finished: (batch: number, results: readonly RecordResult[], took: Finished) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Has batches evaluated elsewhere, in any order. @throws Error that says why some were not; Stopped when the signal asks */
export type Hands = (work: HandedWork) => Promise<void>;

export interface RunOptions {
  out: string;
  /** go on with what is in `out` */
  resume?: boolean | undefined;
  /** processes that share the work, one thread each; 1 works in this process with all threads */
  jobs?: number | undefined;
  /** evaluates batches in the place of this process and of `jobs` */
  hands?: Hands | undefined;
  signal?: AbortSignal | undefined;
  /** for the manifest */
  command?: string | undefined;
  /** of one product, with one job; all cores when absent */
  threads?: number | undefined;
  onProgress?: (done: number, total: number) => void;
  /** told what a resume on other threads means */
  onWarn?: (text: string) => void;
}

export interface EvaluationRun {
  readonly evaluation: Evaluation;
  readonly manifest: Manifest<JobIdentity>;
}

/**
 * Evaluates an editor on a file of records. Results go to disk as they are made, and a run that was stopped goes on to the same bytes.
 * @throws Stopped when the signal asks; what was finished is kept
 */
export async function runEvaluation(job: Job, options: RunOptions): Promise<EvaluationRun> {
  const { out, resume = false, jobs = 1, hands, threads, signal, command = '', onProgress, onWarn } = options;
  const check = (): void => {
    if (!resume && hasResults(out))
      throw new Error(`${out} holds results already; go on with --resume, or name another folder with --out`);
  };
  check();
  const open = await openJob(job, { threads });
  const alone = jobs === 1 && hands === undefined;
  const machine: { readonly threads: number; device: string } = {
    threads: alone ? (threads ?? defaultThreads()) : 1,
    device: open.subject.vlm.engine.device.name,
  };
  const keeper = new ManifestKeeper(out, command, open.identity, resume, jobs, machine, check);
  if (keeper.mixed !== undefined) onWarn?.(keeper.mixed);
  const { batches } = open;
  const indices = batches.map((batch) => batch.map(({ index }) => index));
  const finished = gather(out, indices);
  // Figures of an unfinished run must not be taken for those of a finished one.
  rmSync(join(out, summaryFile), { force: true });
  const total = indices.flat().length;
  const start = [...finished].reduce((sum, i) => sum + indices[i]!.length, 0);
  let done = start;
  const missing = batches.flatMap((_, i) => (finished.has(i) ? [] : [i]));
  keeper.write(0, false);
  onProgress?.(done, total);
  let costs = noCosts;
  const onBatch = (i: number, took: Costs): void => {
    done += indices[i]!.length;
    costs = addCosts(costs, took);
    onProgress?.(done, total);
  };
  try {
    if (missing.length > 0 && hands !== undefined) {
      const devices = new Set<string>();
      const file = new Appender(join(out, recordsFile));
      const finished: HandedWork['finished'] = (i, results, { costs, device }) => {
        file.append(results);
        machine.device = [...devices.add(device)].sort().join(' and ');
        onBatch(i, costs);
      };
      await hands({ job, identity: open.identity, batches: missing, finished, signal }).finally(() => file.close());
    } else if (missing.length > 0)
      await (jobs > 1 ? inProcesses(job, out, missing, jobs, onBatch, signal) : here(open, out, missing, onBatch, signal));
  } catch (error) {
    keeper.write(done - start, false, costs);
    throw error;
  } finally {
    await closeJob(open);
  }
  gather(out, indices);
  const evaluation = summarize(readResults(out));
  writeFileAtomic(join(out, summaryFile), `${JSON.stringify(evaluation, null, 2)}\n`);
  return { evaluation, manifest: keeper.write(done - start, true, costs) };
}

async function here(
  open: OpenJob,
  out: string,
  missing: readonly number[],
  onBatch: (i: number, costs: Costs) => void,
  signal?: AbortSignal,
): Promise<void> {
  const file = new Appender(join(out, recordsFile));
  const { maxNewTokens } = open.identity.protocol;
  try {
    for (const i of missing) {
      const options = { maxNewTokens, ...(signal === undefined ? {} : { signal }) };
      const { results, costs } = await evaluateBatch(open.subject, open.batches[i]!, options, open.before);
      file.append(results);
      onBatch(i, costs);
    }
  } finally {
    file.close();
  }
}

async function inProcesses(
  job: Job,
  out: string,
  missing: readonly number[],
  jobs: number,
  onBatch: (i: number, costs: Costs) => void,
  signal?: AbortSignal,
): Promise<void> {
  const queue = [...missing];
  const workers = Array.from(
    { length: Math.min(jobs, queue.length) },
    (_, n) => new Worker({ job, file: join(out, partFile(n)), threads: 1 }),
  );
  const stop = (): void => {
    for (const worker of workers) worker.stop();
  };
  signal?.addEventListener('abort', stop);
  const work = async (worker: Worker): Promise<void> => {
    for (let i = queue.shift(); i !== undefined; i = queue.shift()) {
      onBatch(i, (await worker.run(i)).costs);
    }
  };
  try {
    if (signal?.aborted) stop();
    await Promise.all(workers.map(work));
  } catch (error) {
    throw signal?.aborted ? new Stopped('stopped before all batches were finished', { cause: error }) : error;
  } finally {
    signal?.removeEventListener('abort', stop);
    stop();
    await Promise.all(workers.map((worker) => worker.ended));
  }
}
