/** A process of its own that evaluates batches of a job, one at a time, with one thread. It ends when its parent does. */

import { type ChildProcess, fork } from 'node:child_process';
import { ownProgram } from '../files/own-program.ts';
import type { Costs } from './costs.ts';
import type { Job } from './job.ts';

export interface Order {
  readonly job: Job;
  /** results file that the process appends to */
  readonly file: string;
}

/** parent to child: an order first, then batch numbers; child to parent: finished batch numbers, or what went wrong */
export type FromChild = { readonly finished: number; readonly costs: Costs } | { readonly error: string };

export class Worker {
  readonly #child: ChildProcess;
  #settle: { resolve: (costs: Costs) => void; reject: (error: Error) => void } | undefined;
  #failure: Error | undefined;
  readonly ended: Promise<void>;

  constructor(job: Job, file: string) {
    const program = ownProgram('./worker-process', import.meta.url);
    this.#child = fork(program.file, program.argv, {
      // Options of this process, an inspector's port for one, are its own.
      execArgv: [],
      env: { ...process.env, VISEDIT_THREADS: '1' },
      // Stdout belongs to the parent's result.
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    this.#child.on('message', (message: FromChild) => {
      if ('error' in message) this.#fail(new Error(message.error));
      else this.#settle?.resolve(message.costs);
    });
    this.#child.on('error', (error) => this.#fail(error));
    this.ended = new Promise((resolve) => {
      this.#child.on('exit', (code, signal) => {
        this.#fail(
          new Error(
            `a worker process ended early (${signal ?? `code ${code}`}); what it finished is kept. Run again with --resume, with fewer --jobs if memory is short`,
          ),
        );
        resolve();
      });
    });
    this.#send({ job, file } satisfies Order);
  }

  /** Evaluates a batch; it is in the file when the promise resolves. */
  run(batch: number): Promise<Costs> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure);
      this.#settle = { resolve, reject };
      this.#send(batch);
    });
  }

  stop(): void {
    if (this.#child.connected) this.#child.disconnect();
  }

  #send(message: Order | number): void {
    this.#child.send(message, (error) => {
      if (error) this.#fail(error);
    });
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#settle?.reject(this.#failure);
  }
}
