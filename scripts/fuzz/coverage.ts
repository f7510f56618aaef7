/**
 * Which code an input reaches, from V8's own counters: no instrumented build, no native package. (Jazzer.js 4.0.0 needs glibc 2.38, its 2.x
 * downloads a binary when it is installed.)
 */
import { Session } from 'node:inspector';

interface Taken {
  result: {
    scriptId: string;
    url: string;
    functions: { ranges: { startOffset: number; endOffset: number; count: number }[] }[];
  }[];
}

/** The readers, and the libraries that read for them. */
const watched = /\/(src|apps)\/|node_modules\/(yaml|@huggingface)\//;

export class Coverage {
  readonly #session = new Session();
  readonly #seen = new Set<string>();

  /** Counts what is loaded after this. */
  constructor() {
    this.#session.connect();
    this.#post('Profiler.enable');
    this.#post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** Blocks reached since the last call that were never reached before. @param keep whether they count as reached from now on */
  fresh(keep: boolean): number {
    let found = 0;
    for (const { scriptId, url, functions } of (this.#post('Profiler.takePreciseCoverage') as Taken).result) {
      if (!watched.test(url)) continue;
      for (const { ranges } of functions)
        for (const { startOffset, endOffset, count } of ranges) {
          const key = `${scriptId}:${startOffset}:${endOffset}`;
          if (count === 0 || this.#seen.has(key)) continue;
          found++;
          if (keep) this.#seen.add(key);
        }
    }
    return found;
  }

  get blocks(): number {
    return this.#seen.size;
  }

  #post(method: string, parameters: object = {}): unknown {
    let answer: unknown;
    this.#session.post(method as never, parameters as never, (error: Error | null, result: unknown) => {
      if (error) throw error;
      answer = result;
    });
    return answer;
  }
}
