/** Turns at the engine: a few at once, some waiting in the order they came, the rest refused. */

import { ApiError, stopped } from './errors.ts';

export class Queue {
  readonly #waiting: { start: () => void; signal: AbortSignal }[] = [];
  #running = 0;
  /** seconds that a turn took lately */
  #mean = 1;

  constructor(
    readonly concurrency: number,
    readonly limit: number,
  ) {}

  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /**
   * Does work when its turn comes.
   * @throws ApiError 429 with the seconds to wait when too many wait already; the signal's reason when it is given up while it waits
   */
  async run<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    if (this.#running >= this.concurrency) {
      if (this.#waiting.length >= this.limit) {
        const retryAfter = Math.max(1, Math.ceil((this.#mean * (this.#waiting.length + 1)) / this.concurrency));
        throw new ApiError(
          429,
          'queue_full',
          `${this.#waiting.length} requests wait already, as many as this server lets wait; try again in ${retryAfter} s`,
          { retryAfter },
        );
      }
      await this.#turn(signal);
    } else this.#running++;
    const began = performance.now();
    try {
      return await work();
    } finally {
      this.#mean = 0.9 * this.#mean + 0.1 * ((performance.now() - began) / 1000);
      // The turn is handed on, so that nobody overtakes those who wait.
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next.start();
    }
  }

  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        const at = this.#waiting.indexOf(waiter);
        if (at >= 0) this.#waiting.splice(at, 1);
        reject(signal.reason instanceof Error ? signal.reason : stopped('given up'));
      };
      const waiter = {
        signal,
        start: () => {
          signal.removeEventListener('abort', leave);
          resolve();
        },
      };
      signal.addEventListener('abort', leave, { once: true });
      this.#waiting.push(waiter);
    });
  }
}
