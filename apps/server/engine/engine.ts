/**
 * The engine is a thread that owns the models, since a run of ONNX Runtime blocks its thread. When the thread dies, the tasks that it worked on
 * fail, and the next request starts another thread.
 */

import { Worker } from 'node:worker_threads';
import { ownProgram } from '../../../src/files/own-program.ts';
import '../../../src/runtime/environment.ts';
import { fromPlainError, stopped } from '../errors.ts';
import type { FromEngine, ToEngine } from './messages.ts';
import type { EngineOptions, TaskName, Tasks } from './tasks.ts';

export interface RunOptions<K extends TaskName> {
  signal?: AbortSignal;
  onNews?: (news: Tasks[K]['news']) => void;
}

interface Running {
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
  onNews: ((news: unknown) => void) | undefined;
}

export class Engine {
  readonly #running = new Map<number, Running>();
  #thread: Worker | undefined;
  #next = 1;
  /** A thread that cannot begin, since a model does not open, is the news of whoever asked first. */
  #answered = false;
  #closed = false;
  /** threads that died */
  failures = 0;

  constructor(
    readonly options: EngineOptions,
    readonly onFailure: (error: Error) => void = () => {},
  ) {}

  /** @throws the signal's reason when it is stopped: the thread stops at its next token or layer */
  run<K extends TaskName>(
    task: K,
    order: Tasks[K]['order'],
    { signal, onNews }: RunOptions<K> = {},
  ): Promise<Tasks[K]['result']> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new Error('the engine is closed'));
      if (signal?.aborted) return reject(signal.reason as Error);
      const id = this.#next++;
      const stop = (): void => this.#send({ id, stop: String((signal?.reason as Error | undefined)?.message) });
      const done = (): void => {
        signal?.removeEventListener('abort', stop);
        this.#running.delete(id);
      };
      this.#running.set(id, {
        resolve: (result) => {
          done();
          resolve(result as Tasks[K]['result']);
        },
        reject: (error) => {
          done();
          reject(signal?.aborted ? (signal.reason as Error) : error);
        },
        onNews: onNews as Running['onNews'],
      });
      signal?.addEventListener('abort', stop, { once: true });
      this.#send({ id, task, order });
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#thread?.terminate();
  }

  #send(message: ToEngine): void {
    this.#thread ??= this.#start();
    this.#thread.postMessage(message);
  }

  #start(): Worker {
    const { file, argv } = ownProgram('./worker', import.meta.url);
    const thread = new Worker(file, { argv, workerData: this.options });
    thread.on('message', (message: FromEngine) => {
      this.#answered = true;
      const running = this.#running.get(message.id);
      if (running === undefined) return;
      if ('news' in message) running.onNews?.(message.news);
      else if ('result' in message) running.resolve(message.result);
      else running.reject(message.stopped ? stopped(message.error.message) : fromPlainError(message.error));
    });
    thread.on('error', (error) => this.#fail(thread, error));
    thread.on('exit', (code) => this.#fail(thread, new Error(`the engine's thread ended with code ${code}`)));
    return thread;
  }

  #fail(thread: Worker, error: Error): void {
    if (this.#thread !== thread) return;
    this.#thread = undefined;
    if (!this.#closed) {
      this.failures++;
      if (this.#answered) this.onFailure(error);
    }
    for (const { reject } of [...this.#running.values()]) reject(error);
  }
}
