/**
 * Ctrl-C and SIGTERM: the clean-ups that commands registered run once, newest first, then the process ends with the
 * shell's code for the signal (130, 143). A second signal ends it at once.
 */
const exitCodes = { SIGINT: 130, SIGTERM: 143 } as const;

export interface Interrupts {
  readonly signal: AbortSignal;
  onInterrupt(cleanUp: () => void | Promise<void>): () => void;
}

export function watchInterrupts(): Interrupts {
  const controller = new AbortController();
  const cleanUps = new Set<() => void | Promise<void>>();

  const handle = async (name: keyof typeof exitCodes) => {
    if (controller.signal.aborted) process.exit(exitCodes[name]);
    controller.abort(new Error(`stopped by ${name}`));
    process.stderr.write(`\nStopping${cleanUps.size > 0 ? '; saving what is done (again to stop at once)' : ''} ...\n`);
    for (const cleanUp of [...cleanUps].reverse()) {
      try {
        await cleanUp();
      } catch (error) {
        process.stderr.write(`visedit: clean-up failed: ${error instanceof Error ? error.message : String(error)}\n`);
      }
    }
    process.exit(exitCodes[name]);
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
