/**
 * Orders the steps of the tasks that the engine works on. A step opens a program or runs it, and blocks the thread meanwhile. A task can be
 * stopped between two of its steps. The next step belongs to the task that used the least time, so an answer of milliseconds passes an edit of
 * minutes; a step that waited for a second goes before all others.
 */

import { AsyncLocalStorage } from 'node:async_hooks';
import type { Engine } from '../../../src/runtime/program.ts';

/** A step that waited so long goes next, milliseconds. */
const patience = 1000;

interface Task {
  readonly signal: AbortSignal;
  /** milliseconds of its steps */
  used: number;
}

interface Step {
  readonly task: Task;
  readonly since: number;
  start(): void;
}

export class Steps {
  readonly #tasks = new AsyncLocalStorage<Task>();
  readonly #waiting: Step[] = [];
  #busy = false;

  /** Runs a task. Every program that runs inside `work`, at any depth, is a step of this task. */
  within<T>(signal: AbortSignal, work: () => Promise<T> | T): Promise<T> | T {
    return this.#tasks.run({ signal, used: 0 }, work);
  }

  /** An engine whose programs wait for their turn. */
  engine({ device, compile }: Engine): Engine {
    return {
      device,
      compile: async (outputs, options) => {
        // A stopped task does not stop the opening of a program, since another task may wait for the same one.
        const program = await this.#step(() => compile(outputs, options), false);
        const run = program.run.bind(program);
        program.run = (feeds, only) => this.#step(() => run(feeds, only), true);
        return program;
      },
    };
  }

  /** @throws the reason of the task's signal when it is stopped */
  async #step<T>(work: () => Promise<T>, stoppable: boolean): Promise<T> {
    const task = this.#tasks.getStore();
    if (task === undefined) return work();
    if (stoppable) task.signal.throwIfAborted();
    await new Promise<void>((start) => {
      this.#waiting.push({ task, since: performance.now(), start });
      if (!this.#busy) this.#next();
    });
    const began = performance.now();
    try {
      // The stop may have come while it waited.
      if (stoppable) task.signal.throwIfAborted();
      return await work();
    } finally {
      task.used += performance.now() - began;
      this.#next();
    }
  }

  /** Chooses when the task whose step ended has had time to ask for its next one. */
  #next(): void {
    this.#busy = true;
    setImmediate(() => {
      const step = this.#choose();
      if (step === undefined) this.#busy = false;
      else step.start();
    });
  }

  #choose(): Step | undefined {
    const oldest = this.#waiting[0];
    if (oldest === undefined) return undefined;
    const late = performance.now() - oldest.since > patience;
    const step = late ? oldest : this.#waiting.reduce((a, b) => (b.task.used < a.task.used ? b : a));
    this.#waiting.splice(this.#waiting.indexOf(step), 1);
    return step;
  }
}
