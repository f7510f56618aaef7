/**
 * Turns at the engine. A few requests have a turn at the same time, some wait in the order they came, and the rest are refused. One more turn is
 * for short work only, so that edits of minutes never take all turns.
 */

import { ApiError, stopped } from './errors.ts';

type Length = 'short' | 'long';

export class Queue {
  readonly #waiting: { length: Length; start: () => void; signal: AbortSignal }[] = [];
  readonly #running = { short: 0, long: 0 };
  /** seconds that a turn took lately */
  #mean = 1;

  /** @param concurrency turns at the same time; short work has one more */
  constructor(
    readonly concurrency: number,
    readonly limit: number,
  ) {}

  get running(): number {
    return this.#running.short + this.#running.long;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /**
   * Does work when its turn comes.
   * @throws ApiError 429 with the seconds to wait when too many wait already; the signal's reason when it is given up while it waits
   */
  async run<T>(length: Length, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    if (!this.#waiting.some((one) => one.length === length) && this.#fits(length)) this.#running[length]++;
    else {
      if (this.#waiting.length >= this.limit) {
        const retryAfter = Math.max(1, Math.ceil((this.#mean * (this.#waiting.length + 1)) / this.concurrency));
        throw new ApiError(
          429,
          'queue_full',
          `${this.#waiting.length} requests wait already, as many as this server lets wait; try again in ${retryAfter} s`,
          { retryAfter },
        );
      }
      await this.#turn(length, signal);
    }
    const began = performance.now();
    try {
      return await work();
    } finally {
      this.#mean = 0.9 * this.#mean + 0.1 * ((performance.now() - began) / 1000);
      this.#running[length]--;
      this.#next();
    }
  }

  #fits(length: Length): boolean {
    return length === 'long'
      ? this.#running.long < this.concurrency && this.running <= this.concurrency
      : this.running <= this.concurrency;
  }

  /** The turn is handed on, so that nobody overtakes those of the same length who wait. */
  #next(): void {
    const at = this.#waiting.findIndex(({ length }) => this.#fits(length));
    if (at < 0) return;
    const [next] = this.#waiting.splice(at, 1);
    this.#running[next!.length]++;
    next!.start();
  }

  #turn(length: Length, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        const at = this.#waiting.indexOf(waiter);
        if (at >= 0) this.#waiting.splice(at, 1);
        reject(signal.reason instanceof Error ? signal.reason : stopped('given up'));
      };
      const waiter = {
        length,
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
