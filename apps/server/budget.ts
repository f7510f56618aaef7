/** A number of bytes that requests share. Each request takes all its bytes in one step, in the order of arrival, and gives them back. */

interface Waiter {
  readonly amount: number;
  start(): void;
}

export class Budget {
  readonly #waiting: Waiter[] = [];
  #used = 0;

  constructor(readonly capacity: number) {}

  get used(): number {
    return this.#used;
  }

  /**
   * @param amount an amount above the capacity takes the whole capacity
   * @returns a function that gives the amount back; calling it again does nothing
   * @throws the signal's reason when it is given up while it waits
   */
  async take(amount: number, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    const part = Math.min(amount, this.capacity);
    if (this.#waiting.length === 0 && this.#used + part <= this.capacity) this.#used += part;
    else
      await new Promise<void>((resolve, reject) => {
        const leave = (): void => {
          this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
          reject(signal.reason as Error);
          this.#next();
        };
        const waiter = {
          amount: part,
          start: () => {
            signal.removeEventListener('abort', leave);
            resolve();
          },
        };
        signal.addEventListener('abort', leave, { once: true });
        this.#waiting.push(waiter);
      });
    let open = true;
    return () => {
      if (!open) return;
      open = false;
      this.#used -= part;
      this.#next();
    };
  }

  #next(): void {
    for (
      let first = this.#waiting[0];
      first !== undefined && this.#used + first.amount <= this.capacity;
      first = this.#waiting[0]
    ) {
      this.#waiting.shift();
      this.#used += first.amount;
      first.start();
    }
  }
}
