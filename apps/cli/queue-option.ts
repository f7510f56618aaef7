/** `--queue`: where batches are handed to workers. */
import type { Hands } from '../../src/evaluation/runner.ts';
import type { CommandContext } from './frame/context.ts';
import { text } from './frame/values.ts';

export const queueOption = text(
  'Redis whose workers evaluate the records (see `visedit worker`), such as redis://127.0.0.1:6379',
  {
    placeholder: 'URL',
  },
);

/** Who evaluates: the workers of a queue where one is given. */
export async function handsOf(queue: string | undefined, context: CommandContext): Promise<Hands | undefined> {
  if (queue === undefined) return undefined;
  const { queueHands } = await import('../queue/hands.ts');
  return queueHands(queue, (text) => context.warn(text));
}
