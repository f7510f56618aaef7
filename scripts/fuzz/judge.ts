/** What an input did to a reader: nothing, an error for people, or a fault. */

import type { Target } from './targets.ts';

/** Errors of the language: they were not written for people. */
const raw = [TypeError, RangeError, ReferenceError, SyntaxError, EvalError, URIError];

/** Milliseconds and bytes that an input below a megabyte may take. */
const MILLISECONDS = 1000;
const SLOW = 'it took';
const MOST_BYTES = 2 ** 30;

/** A reader that took too long is asked again: a machine with other work may have let it wait. */
export async function faultOf(target: Target, input: Uint8Array): Promise<string | undefined> {
  const fault = await oneFault(target, input);
  return fault?.startsWith(SLOW) ? oneFault(target, input) : fault;
}

async function oneFault({ run, milliseconds = MILLISECONDS }: Target, input: Uint8Array): Promise<string | undefined> {
  const began = performance.now();
  const before = process.cpuUsage();
  try {
    await run(input);
  } catch (error) {
    if (!(error instanceof Error)) return `it threw ${String(error)}, which is no error`;
    if (raw.some((kind) => error instanceof kind)) return `${error.name}: ${error.message}\n${error.stack ?? ''}`;
    if (error.message.trim() === '') return `an error without a message\n${error.stack ?? ''}`;
  }
  const { user, system } = process.cpuUsage(before);
  // A busy machine takes many times as long.
  const took = Math.max((user + system) / 1000, (performance.now() - began) / 20);
  if (took > milliseconds) return `${SLOW} ${Math.round(took)} ms of the processor, or 20 times that of the clock`;
  // Filling so much memory takes longer, and asking takes as long as reading a small file.
  if (performance.now() - began < 5) return undefined;
  const { rss } = process.memoryUsage;
  return rss() > MOST_BYTES ? `the process grew to ${Math.round(rss() / 1e6)} MB` : undefined;
}
