/** Which code an input reaches, and how often: read after each input. */
import Module, { register } from 'node:module';
import { instrumented, isWatched, numberFrom } from './instrument.ts';

/** More than there are counters. */
const MOST_COUNTERS = 2 ** 18;

/** Times that code ran: 1, 2, 3, 4-7, 8-15, 16-31, 32-127, more. */
const classes = Uint8Array.from(
  { length: 129 },
  (_, n) => (1 << [0, 1, 2, 3, 7, 15, 31, 127].filter((most) => n > most).length) >> 1,
);

export class Coverage {
  readonly #shared = { count: new Uint32Array(MOST_COUNTERS), reached: [] as number[], words: [] as string[] };
  readonly #seen = new Uint8Array(MOST_COUNTERS);

  /** Counts what is loaded after this. */
  constructor() {
    Object.assign(globalThis, { [Symbol.for('visedit.fuzz')]: this.#shared });
    register('./instrument.ts', import.meta.url);
    // What is loaded by `require` passes no hook. It is instrumented in this thread, whose counters are numbered apart.
    numberFrom(MOST_COUNTERS / 2);
    const loader = Module.prototype as unknown as { _compile(source: string, path: string, ...rest: unknown[]): unknown };
    const compile = loader._compile;
    loader._compile = function (source, path, ...rest) {
      return compile.call(this, isWatched(path) ? instrumented(source, 'commonjs') : source, path, ...rest);
    };
  }

  /** Forgets what ran before the next input. */
  begin(): void {
    const { count, reached } = this.#shared;
    for (const counter of reached) count[counter] = 0;
    reached.length = 0;
  }

  /** Whether the code that ran since `begin` reached something new, or something known another number of times. */
  end(): boolean {
    const { count, reached } = this.#shared;
    let isNew = false;
    for (const counter of reached) {
      const times = classes[Math.min(count[counter]!, 128)]!;
      if ((this.#seen[counter]! & times) !== 0) continue;
      this.#seen[counter]! |= times;
      isNew = true;
    }
    return isNew;
  }

  /** Blocks of code that any input reached. */
  get blocks(): number {
    return this.#seen.reduce((sum, times) => sum + (times === 0 ? 0 : 1), 0);
  }

  /** Words that the loaded code knows. */
  get words(): readonly string[] {
    return [...new Set(this.#shared.words)];
  }
}
