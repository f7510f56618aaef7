/** The program of a worker process; worker.ts starts it and talks to it. */

import { evaluateBatch } from './asking.ts';
import { type OpenJob, openJob } from './job.ts';
import { differences } from './manifest.ts';
import { Appender } from './store.ts';
import { type Finished, type FromChild, type Order, otherJob } from './worker.ts';

interface Working {
  readonly open: OpenJob;
  readonly file: Appender;
}

let working: Promise<Working> | undefined;

async function begin({ job, file, threads, identity }: Order): Promise<Working> {
  // The parent has checked the records.
  const open = await openJob(job, { threads, check: false });
  const different = identity === undefined ? [] : differences(identity, open.identity);
  if (different.length > 0) throw new Error(`${otherJob}:\n  ${different.join('\n  ')}`);
  return { open, file: new Appender(file) };
}

async function evaluate(batch: number): Promise<Finished> {
  if (working === undefined) throw new Error('a batch came before the order');
  const { open, file } = await working;
  const { maxNewTokens } = open.identity.protocol;
  const records = open.batches[batch];
  if (records === undefined) throw new Error(`there is no batch ${batch}; the job has ${open.batches.length}`);
  const { results, costs } = await evaluateBatch(open.subject, records, { maxNewTokens }, open.before);
  file.append(results);
  return { costs, device: open.subject.vlm.engine.device.name };
}

const tell = (message: FromChild): void => void process.send?.(message);

process.on('message', (message: Order | number) => {
  if (typeof message !== 'number') {
    working = begin(message);
    working.catch((error: Error) => tell({ error: error.message }));
    return;
  }
  evaluate(message).then(
    (finished) => tell(finished),
    (error: Error) => tell({ error: error.message }),
  );
});
// A parent that was stopped or killed closes the channel; unfinished batches belong to the next run.
process.on('disconnect', () => process.exit(0));
// Ctrl-C reaches all processes of a terminal; the parent decides.
process.on('SIGINT', () => {});
