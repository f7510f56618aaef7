/**
 * Programs on a card whose memory does not hold them all: when one more does not fit, those that were not run for the longest time leave, and are
 * opened again when they are next run.
 */

import type { Tensor } from '../graph/dtype.ts';
import type { Emitted } from '../onnx/emit.ts';
import type { Backend, CompileOptions, Session } from './program.ts';

/** What goes wrong on a card, in words that say what to do. */
export class DeviceError extends Error {
  override name = 'DeviceError';

  constructor(
    message: string,
    /** the card's memory did not suffice */
    readonly memory: boolean,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

type Open = Backend['open'];

/** Sessions of one card, the one that was used last at the end. */
export function sharingMemory(open: Open): Open {
  const sessions = new Set<CardSession>();

  /** Makes room. @returns false when nothing is left that may go */
  const evict = async (keep: CardSession): Promise<boolean> => {
    for (const one of sessions) if (one !== keep && (await one.leave())) return true;
    return false;
  };

  class CardSession implements Session {
    #session: Promise<Session> | undefined;
    #running = 0;
    readonly #again: () => Promise<Session>;

    constructor(emitted: Emitted, options: CompileOptions) {
      this.#again = () => open(emitted, options);
    }

    /** Runs something that needs memory, again after each session that leaves for it. */
    async #fitting<T>(work: () => Promise<T>): Promise<T> {
      for (;;) {
        try {
          return await work();
        } catch (error) {
          if (!(error instanceof DeviceError && error.memory && (await evict(this)))) throw error;
        }
      }
    }

    async opened(): Promise<Session> {
      this.#session ??= this.#fitting(this.#again);
      try {
        const session = await this.#session;
        sessions.delete(this);
        sessions.add(this);
        return session;
      } catch (error) {
        this.#session = undefined;
        throw error;
      }
    }

    async run(feeds: Record<string, Tensor>, only?: readonly string[]): Promise<Record<string, Tensor>> {
      this.#running++;
      try {
        const session = await this.opened();
        return await this.#fitting(() => session.run(feeds, only));
      } finally {
        this.#running--;
      }
    }

    /** @returns whether it gave memory back */
    async leave(): Promise<boolean> {
      if (this.#running > 0 || this.#session === undefined) return false;
      await this.release();
      return true;
    }

    async release(): Promise<void> {
      const session = this.#session;
      this.#session = undefined;
      sessions.delete(this);
      await (await session)?.release();
    }
  }

  return async (emitted, options) => {
    const session = new CardSession(emitted, options);
    await session.opened();
    return session;
  };
}
