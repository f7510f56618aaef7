/**
 * Ctrl-C, SIGTERM and a terminal that closes: the clean-ups that commands registered run once, newest first, then the process ends with the
 * shell's code for the signal (130, 143, 129). A second signal ends it at once.
 */
import { readFileSync } from 'node:fs';
import { visible } from '../../../src/files/visible.ts';

const exitCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

export interface Interrupts {
  readonly signal: AbortSignal;
  onInterrupt(cleanUp: CleanUp): () => void;
}

/** A number that it returns becomes the exit code: for work that is meant to end by a signal. */
export type CleanUp = () => unknown;

export function watchInterrupts(): Interrupts {
  const controller = new AbortController();
  const cleanUps = new Set<CleanUp>();

  const handle = async (name: keyof typeof exitCodes) => {
    if (controller.signal.aborted) process.exit(exitCodes[name]);
    controller.abort(new Error(`stopped by ${name}`));
    process.stderr.write(`\nStopping${cleanUps.size > 0 ? '; saving what is done (again to stop at once)' : ''} ...\n`);
    let code: number = exitCodes[name];
    for (const cleanUp of [...cleanUps].reverse()) {
      try {
        const given = await cleanUp();
        if (typeof given === 'number') code = given;
      } catch (error) {
        process.stderr.write(visible(`visedit: clean-up failed: ${error instanceof Error ? error.message : String(error)}\n`));
      }
    }
    process.exit(code);
  };
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => void handle(name));
  // Under nohup it is ignored, and stays so.
  if (!ignoresHangUp()) process.on('SIGHUP', () => void handle('SIGHUP'));

  return {
    signal: controller.signal,
    onInterrupt(cleanUp) {
      cleanUps.add(cleanUp);
      return () => void cleanUps.delete(cleanUp);
    },
  };
}

/** What the process was started with; where the system does not tell, only a terminal can hang up. */
function ignoresHangUp(): boolean {
  try {
    const mask = /^SigIgn:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
    return (BigInt(`0x${mask}`) & 1n) === 1n;
  } catch {
    return !process.stderr.isTTY;
  }
}
