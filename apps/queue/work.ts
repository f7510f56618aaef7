/** A worker: takes batches from a queue, one at a time, and evaluates them in a process of its own. */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker as Taker, UnrecoverableError } from 'bullmq';
import { recordResult } from '../../src/evaluation/metrics.ts';
import { otherJob, Worker } from '../../src/evaluation/worker.ts';
import { parseJsonLines } from '../../src/files/schema.ts';
import { type Batch, checkBatch } from './batch.ts';
import { connect, type Evaluated, queueName, shownUrl } from './redis.ts';

/** A batch whose worker was not heard of for so long is given to another one. */
const lockMilliseconds = Number(process.env.VISEDIT_QUEUE_LOCK ?? 30_000);

/** The process that has a job open, for batches of one job that follow each other. */
class Bench {
  #worker: Worker | undefined;
  #key = '';
  #read = 0;
  readonly #folder = mkdtempSync(join(tmpdir(), 'visedit-worker-'));

  async run({ job, identity, batch }: Batch): Promise<Evaluated> {
    const key = JSON.stringify([job, identity]);
    const file = join(this.#folder, 'records.jsonl');
    if (this.#worker === undefined || key !== this.#key) {
      await this.end();
      rmSync(file, { force: true });
      this.#read = 0;
      this.#key = key;
      this.#worker = new Worker({ job, file, threads: 1, identity });
    }
    try {
      const finished = await this.#worker.run(batch);
      const all = parseJsonLines(readFileSync(file, 'utf8'), file, recordResult);
      const results = all.slice(this.#read);
      this.#read = all.length;
      return { ...finished, results };
    } catch (error) {
      await this.end();
      throw error;
    }
  }

  async end(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    worker?.stop();
    await worker?.ended;
  }

  async close(): Promise<void> {
    await this.end();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/**
 * Works until the signal asks. The batch at hand is finished first.
 * @param editors modules of editors from outside that batches may use
 * @param log told of every batch
 * @throws Error when there is no Redis, or a batch's files or program are others than here
 */
export async function workFor(
  url: string,
  { signal, log, editors = [] }: { signal: AbortSignal; log: (text: string) => void; editors?: readonly string[] },
): Promise<number> {
  const connection = await connect(url);
  const bench = new Bench();
  let done = 0;
  let unfit: Error | undefined;
  const end = new AbortController();
  const fitting = (data: unknown): Batch => {
    try {
      return checkBatch(data, editors);
    } catch (error) {
      const { message } = error as Error;
      log(`passed over: ${message}`);
      // Nobody would fare better with it.
      throw new UnrecoverableError(message);
    }
  };
  const taker = new Taker<unknown, Evaluated>(
    queueName,
    async ({ data: given }) => {
      const data = fitting(given);
      try {
        const evaluated = await bench.run(data);
        done++;
        log(
          `batch ${data.batch} of ${data.identity.editor.id} on ${data.identity.model.name}: ${evaluated.results.length} records`,
        );
        return evaluated;
      } catch (error) {
        if ((error as Error).message.startsWith(otherJob)) {
          unfit = error as Error;
          end.abort();
        }
        throw error;
      }
    },
    {
      connection,
      concurrency: 1,
      lockDuration: lockMilliseconds,
      stalledInterval: lockMilliseconds / 2,
      // A batch that ends its worker is tried again elsewhere, and not for ever.
      maxStalledCount: 10,
    },
  );
  taker.on('error', (error) => log(`waiting for Redis: ${error.message}`));
  await taker.waitUntilReady();
  log(`Working for ${shownUrl(url)}. Ctrl-C ends it after the batch at hand.`);
  await new Promise<void>((resolve) => {
    for (const one of [signal, end.signal]) {
      if (one.aborted) resolve();
      one.addEventListener('abort', () => resolve(), { once: true });
    }
  });
  await taker.close();
  await bench.close();
  connection.disconnect();
  if (unfit !== undefined)
    throw new Error(`${unfit.message}\nInstall the version of the others here, and give this machine the same files.`);
  return done;
}
