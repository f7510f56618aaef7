/**
 * Ctrl-C and SIGTERM: the clean-ups that commands registered run once, newest first, then the process ends with the
 * shell's code for the signal (130, 143). A second signal ends it at once.
 */
import { visible } from '../../../src/files/visible.ts';

const exitCodes = { SIGINT: 130, SIGTERM: 143 } as const;

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

  return {
    signal: controller.signal,
    onInterrupt(cleanUp) {
      cleanUps.add(cleanUp);
      return () => void cleanUps.delete(cleanUp);
    },
  };
}
