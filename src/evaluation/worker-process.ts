/** The program of a worker process; worker.ts starts it and talks to it. */

import { evaluateBatch } from './asking.ts';
import type { Costs } from './costs.ts';
import { type OpenJob, openJob } from './job.ts';
import { Appender } from './store.ts';
import type { FromChild, Order } from './worker.ts';

interface Working {
  readonly open: OpenJob;
  readonly file: Appender;
}

let working: Promise<Working> | undefined;

async function begin({ job, file }: Order): Promise<Working> {
  // The parent has checked the records.
  return { open: await openJob(job, { threads: 1, check: false }), file: new Appender(file) };
}

async function evaluate(batch: number): Promise<Costs> {
  if (working === undefined) throw new Error('a batch came before the order');
  const { open, file } = await working;
  const { maxNewTokens } = open.identity.protocol;
  const { results, costs } = await evaluateBatch(open.subject, open.batches[batch]!, { maxNewTokens }, open.before);
  file.append(results);
  return costs;
}

const tell = (message: FromChild): void => void process.send?.(message);

process.on('message', (message: Order | number) => {
  if (typeof message !== 'number') {
    working = begin(message);
    working.catch((error: Error) => tell({ error: error.message }));
    return;
  }
  evaluate(message).then(
    (costs) => tell({ finished: message, costs }),
    (error: Error) => tell({ error: error.message }),
  );
});
// A parent that was stopped or killed closes the channel; unfinished batches belong to the next run.
process.on('disconnect', () => process.exit(0));
// Ctrl-C reaches all processes of a terminal; the parent decides.
process.on('SIGINT', () => {});
