/** What a running command gets from the frame. Everything here writes to stderr: stdout belongs to the result. */
import { visible } from '../../../src/files/visible.ts';
import { createProgress, type Progress, type ProgressOptions } from '../progress.ts';
import { type Table, table } from '../table.ts';
import type { CleanUp, Interrupts } from './interrupt.ts';

export interface CommandContext {
  readonly json: boolean;
  readonly quiet: boolean;
  /** Aborted by the first Ctrl-C. */
  readonly signal: AbortSignal;
  /** News for the person who waits; silent under --quiet. */
  log(line: string): void;
  /** Shown even under --quiet. */
  warn(line: string): void;
  /** A bar with rate and remaining time; `total` undefined when it is not known yet. */
  progress(total: number | undefined, label: string, options?: ProgressOptions): Progress;
  /** Lays out rows as text, for the `text` of a result. */
  table(content: Table): string;
  /** Runs `cleanUp` (save a checkpoint, say) on Ctrl-C before the process ends; call the returned function when no longer needed. */
  onInterrupt(cleanUp: CleanUp): () => void;
}

export interface Globals {
  json: boolean;
  quiet: boolean;
  debug: boolean;
}

export function createContext({ json, quiet }: Globals, interrupts: Interrupts): CommandContext {
  const toStderr = (line: string) => void process.stderr.write(`${visible(line)}\n`);
  return {
    json,
    quiet,
    signal: interrupts.signal,
    log: quiet ? () => {} : toStderr,
    warn: (line) => toStderr(`warning: ${line}`),
    progress: (total, label, options) => createProgress(total, label, { ...options, quiet }),
    table,
    onInterrupt: (cleanUp) => interrupts.onInterrupt(cleanUp),
  };
}
