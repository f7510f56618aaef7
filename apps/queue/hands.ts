/** Hands a run's batches to workers through Redis, and takes back what they make of them. */

import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { Queue, type Job as Queued, QueueEvents } from 'bullmq';
import type { Job } from '../../src/evaluation/job.ts';
import type { HandedWork, Hands } from '../../src/evaluation/runner.ts';
import { Stopped } from '../../src/nn/loop.ts';
import type { Batch } from './batch.ts';
import { connect, type Evaluated, patienceSeconds, queueName, shownUrl } from './redis.ts';

/** How often a batch is tried: workers may be killed, or be of another version. */
const attempts = 10;
/** Milliseconds between looks at whether anyone works. */
const lookEvery = 10_000;

/** Paths as every worker must find them. */
const withWholePaths = (job: Job): Job => {
  const whole = (path: string): string => (existsSync(path) ? resolve(path) : path);
  return {
    ...job,
    model: whole(job.model),
    editor: whole(job.editor),
    data: resolve(job.data),
    images: resolve(job.images),
    ...(job.weights === undefined ? {} : { weights: resolve(job.weights) }),
    ...(job.unedited === undefined ? {} : { unedited: resolve(job.unedited) }),
  };
};

/** @param warn told when no worker listens, and when Redis is away */
export function queueHands(url: string, warn: (text: string) => void): Hands {
  return async (work) => {
    const connection = await connect(url);
    const queue = new Queue<Batch, Evaluated>(queueName, { connection });
    const listening = connection.duplicate();
    const events = new QueueEvents(queueName, { connection: listening });
    // An error without a listener would end the process; what they mean is told below.
    queue.on('error', () => {});
    events.on('error', () => {});
    const away = lostConnection(connection, url, warn);
    let queued: Queued<Batch, Evaluated>[] = [];
    const looks = setInterval(() => void lookForWorkers(queue, url, warn), lookEvery);
    try {
      queued = await Promise.race([submit(queue, work), away.lost]);
      void lookForWorkers(queue, url, warn);
      await Promise.race([collect(queued, events, work), away.lost, stopped(work.signal)]);
    } finally {
      clearInterval(looks);
      away.end();
      // Batches that nobody waits for any more are taken back; running ones end by themselves. Without Redis all of this would wait for it.
      if (connection.status === 'ready') {
        await Promise.allSettled(queued.map((one) => one.remove()));
        await Promise.allSettled([events.close(), queue.close()]);
      }
      for (const one of [connection, listening]) one.disconnect();
    }
  };
}

async function submit(
  queue: Queue<Batch, Evaluated>,
  { job, identity, batches }: HandedWork,
): Promise<Queued<Batch, Evaluated>[]> {
  const run = randomUUID();
  const whole = withWholePaths(job);
  try {
    return (await queue.addBulk(
      batches.map((batch) => ({
        name: 'batch',
        data: { job: whole, identity, batch },
        opts: { jobId: `${run}-${batch}`, attempts, backoff: { type: 'fixed', delay: 1000 }, removeOnComplete: { age: 3600 } },
      })),
    )) as Queued<Batch, Evaluated>[];
  } catch (error) {
    const { message } = error as Error;
    const full = /OOM|maxmemory/.test(message);
    throw new Error(
      full
        ? 'Redis is full and takes no batches; give it more memory (maxmemory in its settings), or empty it'
        : `Redis takes no batches: ${message}`,
      { cause: error },
    );
  }
}

/** Each batch's results go to disk as they come. */
async function collect(
  queued: readonly Queued<Batch, Evaluated>[],
  events: QueueEvents,
  { batches, finished }: HandedWork,
): Promise<void> {
  await Promise.all(
    queued.map(async (one, i) => {
      const { results, ...took } = await one.waitUntilFinished(events).catch((error: Error) => {
        throw new Error(`${error.message}\nWhat was finished is kept. Run again with --resume.`, { cause: error });
      });
      finished(batches[i]!, results, took);
    }),
  );
}

const stopped = (signal: AbortSignal | undefined): Promise<never> =>
  new Promise((_, reject) => {
    const stop = (): void => reject(new Stopped('stopped before all batches were finished'));
    if (signal?.aborted) stop();
    signal?.addEventListener('abort', stop, { once: true });
  });

async function lookForWorkers(queue: Queue<Batch, Evaluated>, url: string, warn: (text: string) => void): Promise<void> {
  const workers = await queue.getWorkersCount().catch(() => undefined);
  if (workers === 0)
    warn(
      `no worker takes batches at ${shownUrl(url)}; start one where the same files are: visedit worker --queue ${shownUrl(url)}`,
    );
}

/** Rejects when Redis stays away for too long. */
function lostConnection(
  connection: Awaited<ReturnType<typeof connect>>,
  url: string,
  warn: (text: string) => void,
): { lost: Promise<never>; end: () => void } {
  let timer: NodeJS.Timeout | undefined;
  let fail: (error: Error) => void = () => {};
  const lost = new Promise<never>((_, reject) => {
    fail = reject;
  });
  lost.catch(() => {});
  const gone = (): void => {
    if (timer !== undefined) return;
    warn(`Redis at ${shownUrl(url)} does not answer; waiting ${patienceSeconds} seconds for it`);
    timer = setTimeout(
      () => fail(new Error(`Redis at ${shownUrl(url)} did not come back. What was finished is kept. Run again with --resume.`)),
      1000 * patienceSeconds,
    );
  };
  const back = (): void => {
    clearTimeout(timer);
    timer = undefined;
  };
  connection.on('close', gone);
  connection.on('ready', back);
  return {
    lost,
    end: () => {
      connection.off('close', gone);
      back();
    },
  };
}
