/** Long work that Ctrl-C stops at a safe place: the frame waits until it has saved, and the user is told how to go on. */
import type { CommandContext } from './frame/context.ts';

/**
 * Awaits work that watches `context.signal` and throws `Stopped` once it has saved.
 * @param howToGoOn a sentence for the person who stopped it
 */
export async function stoppable<T>(context: CommandContext, howToGoOn: string, start: () => Promise<T>): Promise<T> {
  const work = start();
  const done = context.onInterrupt(async () => {
    try {
      await work;
    } catch (error) {
      if (!(error instanceof Error) || error.name !== 'Stopped') throw error;
      context.warn(`${error.message.replace(/; run again.*$/, '')}. ${howToGoOn}`);
    }
  });
  try {
    return await work;
  } finally {
    done();
  }
}
