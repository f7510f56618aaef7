/** The program of the engine's thread; engine.ts starts it and talks to it. */

import { parentPort, workerData } from 'node:worker_threads';
import { findEditor } from '../../../src/editors/outside.ts';
import { isStop, plainError, stopped } from '../errors.ts';
import { attribute } from './attribute.ts';
import { cards } from './cards.ts';
import { chat } from './chat.ts';
import { compare } from './compare.ts';
import { adopt, edit } from './edit.ts';
import { explain } from './explain.ts';
import type { FromEngine, ToEngine } from './messages.ts';
import { Models } from './models.ts';
import { plan } from './plan.ts';
import { Steps } from './steps.ts';
import type { EngineOptions, TaskName, Tasks } from './tasks.ts';

export interface Work<N> {
  readonly signal: AbortSignal;
  tell(news: N): void;
}

type Does = {
  [K in TaskName]: (
    models: Models,
    order: Tasks[K]['order'],
    work: Work<Tasks[K]['news']>,
  ) => Promise<Tasks[K]['result']> | Tasks[K]['result'];
};

/** One line for each task. */
const does: Does = {
  facts: (models) => models.facts(),
  chat,
  edit,
  adopt,
  cards,
  attribution: attribute,
  explanation: explain,
  plan,
  comparison: compare,
};

if (parentPort === null) throw new Error('the engine runs as a thread of the server');
const port = parentPort;
const options = workerData as EngineOptions;
for (const editor of options.editors ?? []) await findEditor(editor);
const steps = new Steps();
const models = new Models(options, (engine) => steps.engine(engine));
const running = new Map<number, AbortController>();
const tell = (message: FromEngine): void => port.postMessage(message);

/** Two tasks may wait for one result. When the task that computes it is stopped, the other one begins again. */
async function unlessStopped<T>(signal: AbortSignal, work: () => Promise<T> | T): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await work();
    } catch (error) {
      if (signal.aborted || !isStop(error) || tries === 3) throw error;
      models.forget();
    }
  }
}

async function run(id: number, task: TaskName, order: unknown): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  const { signal } = controller;
  const work: Work<unknown> = { signal, tell: (news) => tell({ id, news }) };
  try {
    const perform = does[task] as (models: Models, order: unknown, work: Work<unknown>) => unknown;
    tell({ id, result: await steps.within(signal, () => unlessStopped(signal, () => perform(models, order, work))) });
  } catch (error) {
    tell({ id, error: plainError(error), stopped: signal.aborted || isStop(error) });
  } finally {
    running.delete(id);
  }
}

port.on('message', (message: ToEngine) => {
  if ('stop' in message) running.get(message.id)?.abort(stopped(message.stop));
  else void run(message.id, message.task, message.order);
});
