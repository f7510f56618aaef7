/** A process of its own that evaluates batches of a job, one at a time. It ends when its parent does. */

import { type ChildProcess, fork } from 'node:child_process';
import { ownProgram } from '../files/own-program.ts';
import type { Costs } from './costs.ts';
import type { Job, JobIdentity } from './job.ts';

export interface Order {
  readonly job: Job;
  /** results file that the process appends to */
  readonly file: string;
  readonly threads: number;
  /** what the job must turn out to be where the process opens it; not compared when absent */
  readonly identity?: JobIdentity | undefined;
}

/** A finished batch: what it took, and the device that it ran on. */
export interface Finished {
  readonly costs: Costs;
  readonly device: string;
}

/** How the message begins where a job is another one in the process that should work on it. */
export const otherJob = 'the files or the program here are not those of the run';

/** parent to child: an order first, then batch numbers; child to parent: finished batch numbers, or what went wrong */
export type FromChild = Finished | { readonly error: string };

export class Worker {
  readonly #child: ChildProcess;
  #settle: { resolve: (finished: Finished) => void; reject: (error: Error) => void } | undefined;
  #failure: Error | undefined;
  readonly ended: Promise<void>;

  constructor(order: Order) {
    const program = ownProgram('./worker-process', import.meta.url);
    this.#child = fork(program.file, program.argv, {
      // Options of this process, an inspector's port for one, are its own.
      execArgv: [],
      env: { ...process.env, VISEDIT_THREADS: String(order.threads) },
      // Stdout belongs to the parent's result.
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    this.#child.on('message', (message: FromChild) => {
      if ('error' in message) this.#fail(new Error(message.error));
      else this.#settle?.resolve(message);
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
    this.#send(order);
  }

  /** Evaluates a batch; it is in the file when the promise resolves. */
  run(batch: number): Promise<Finished> {
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
