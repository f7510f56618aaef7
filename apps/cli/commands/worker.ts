/** `visedit worker`: evaluates batches that other machines hand out. */
import { defineCommand } from '../frame/command.ts';
import { repeatable, text } from '../frame/values.ts';

export const command = defineCommand({
  details:
    'Takes batches of records from a queue in Redis and evaluates them, one at a time with one thread, until it is stopped. `visedit evaluate --queue URL` and `visedit reproduce --queue URL` fill the queue. Start one worker for each card (--device cuda) or each core, on as many machines as there are. Each machine needs the same version of visedit, and model, data, pictures and weights under the same paths; a worker with others ends and says what differs. A batch whose worker was killed is given to another one after 30 seconds. After Ctrl-C or SIGTERM the batch at hand is finished first. Whoever can write to the Redis can have these machines read files, and write answers of models into folders: keep it in a network of your own, with a password. Editors from outside are loaded only where --editor names their modules.',
  options: {
    queue: text('Redis to take batches from, such as redis://127.0.0.1:6379', { required: true, placeholder: 'URL' }),
    editor: repeatable(text('module of an editor from outside that batches may use, as ./mine.js', { placeholder: 'MODULE' })),
  },
  examples: ['worker --queue redis://127.0.0.1:6379', 'worker --queue redis://:secret@queue.local:6379 --device cuda'],
  async run({ queue, editor: editors }, context) {
    const { workFor } = await import('../../queue/work.ts');
    const work = workFor(queue, { signal: context.signal, log: context.log, editors });
    context.onInterrupt(async () => {
      await work;
      return 0;
    });
    const batches = await work;
    return { data: { batches }, text: `${batches} batches evaluated.` };
  },
});
