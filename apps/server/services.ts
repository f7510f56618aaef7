/** What the routes work with. */

import { setMaxListeners } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { Ledger } from '../../src/ledger/ledger.ts';
import { Budget } from './budget.ts';
import { Datasets } from './datasets.ts';
import { Engine } from './engine/engine.ts';
import type { EditFile, Facts, ModelUnder, TaskName, Tasks } from './engine/tasks.ts';
import { ApiError, type ErrorBody, stopped, toApiError } from './errors.ts';
import { parseHost } from './http/host.ts';
import { Jobs } from './jobs.ts';
import { Measuring } from './measuring.ts';
import { Metrics } from './metrics.ts';
import { defaultLimits, type Limits, type ServerOptions } from './options.ts';
import { Pictures } from './pictures/pictures.ts';
import { Uploads } from './pictures/uploads.ts';
import { Queue } from './queue.ts';
import { Runs } from './runs.ts';

/** Bytes of large bodies that the server holds at the same time; other large bodies wait. */
const bodyBytes = 48e6;

/** Edits that an order names. */
function editsOf(order: Tasks[TaskName]['order']): readonly EditFile[] {
  const {
    under,
    before,
    after,
    beside = [],
  } = (order ?? {}) as {
    under?: ModelUnder;
    before?: ModelUnder;
    after?: ModelUnder;
    beside?: readonly EditFile[];
  };
  return [under, before, after].flatMap((model) => (typeof model === 'object' ? model.edits : [])).concat(beside);
}

export interface Turn {
  /** gives the work up */
  readonly signal: AbortSignal;
  /** when the turn has come */
  readonly onStart?: () => void;
}

export class Services {
  readonly limits: Limits;
  readonly engine: Engine;
  readonly queue: Queue;
  /** bytes of large bodies that are held */
  readonly bodies: Budget;
  readonly store: Ledger;
  readonly uploads: Uploads;
  readonly pictures: Pictures;
  readonly datasets: Datasets;
  readonly runs: Runs;
  readonly jobs: Jobs;
  readonly measuring: Measuring;
  readonly metrics: Metrics;
  facts: Facts = { models: [], editors: [] };
  /** no new requests are taken */
  draining = false;
  /** ends what only watches, when draining begins */
  readonly watching = new AbortController();
  /** ends all work, when draining took too long */
  readonly hurry = new AbortController();
  eventStreams = 0;

  /** @throws Error when the data folder is in use or damaged */
  constructor(
    readonly options: ServerOptions,
    readonly logger: Logger,
  ) {
    const { dataDir, models, weights = [], editors = [], threads, dtype, maxMemory, minPixels, maxPixels } = options;
    this.limits = { ...defaultLimits, ...options.limits };
    // As many as there are streams and requests.
    setMaxListeners(0, this.watching.signal, this.hurry.signal);
    mkdirSync(dataDir, { recursive: true });
    this.store = new Ledger(dataDir, this.limits);
    this.uploads = new Uploads(join(dataDir, 'uploads'));
    this.engine = new Engine({ models, weights, editors, threads, dtype, maxMemory, minPixels, maxPixels }, (error) =>
      this.logger.error({ err: error }, 'the engine failed; it starts again with the next request'),
    );
    this.queue = new Queue(options.concurrency ?? 4, options.queue ?? 32);
    this.bodies = new Budget(Math.max(bodyBytes, this.limits.bodyBytes));
    this.datasets = new Datasets(options.datasets ?? [], join(dataDir, 'worlds'), options.worldSeed ?? 1);
    this.runs = new Runs(options.runs ?? [], this.datasets);
    this.pictures = new Pictures({
      limits: this.limits,
      allowedHosts: (options.allowImageHosts ?? []).map(parseHost),
      find: (path) => this.ownPicture(path),
    });
    this.jobs = new Jobs(this.limits.jobs, (error) => this.asError(error).body().error);
    this.measuring = new Measuring(this);
    this.metrics = new Metrics({
      running: () => this.queue.running,
      waiting: () => this.queue.waiting,
      jobs: () => this.jobs.unfinished,
      engineFailures: () => this.engine.failures,
      edits: () => {
        const enabled = this.store.edits.filter((edit) => this.store.isEnabled(edit)).length;
        return { enabled, disabled: this.store.size - enabled };
      },
    });
  }

  get models(): string[] {
    return this.facts.models.map(({ id }) => id);
  }

  /**
   * Does the work of one request in its turn. The signal that the work is given ends it when the client leaves or the time is up.
   * @param length long work leaves a turn to short work
   */
  async inTurn<T>(length: 'short' | 'long', { signal, onStart }: Turn, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { signal: own, done } = this.#bounded(signal);
    try {
      return await this.queue.run(length, own, () => {
        onStart?.();
        return work(own);
      });
    } finally {
      done();
    }
  }

  /** A task of the engine, in a turn. @param signal of the turn */
  async inEngine<K extends TaskName>(
    task: K,
    order: Tasks[K]['order'],
    signal: AbortSignal,
    onNews?: (news: Tasks[K]['news']) => void,
  ): Promise<Tasks[K]['result']> {
    const began = performance.now();
    // Their files are read when the engine comes to them.
    const release = this.store.hold(editsOf(order).map(({ id }) => id));
    try {
      return await this.engine.run(task, order, { signal, ...(onNews === undefined ? {} : { onNews }) });
    } finally {
      release();
      this.metrics.work(task, (performance.now() - began) / 1000);
    }
  }

  #bounded(client: AbortSignal): { signal: AbortSignal; done: () => void } {
    const { timeout = 300 } = this.options;
    const controller = new AbortController();
    const leave = (): void => controller.abort(stopped('nobody waits for the answer any more'));
    const hurry = (): void =>
      controller.abort(new ApiError(503, 'draining', 'the server had to stop before the work was finished'));
    const timer = setTimeout(
      () => controller.abort(new ApiError(504, 'timeout', `the work took longer than the ${timeout} s that are allowed`)),
      timeout * 1000,
    );
    if (client.aborted) leave();
    if (this.hurry.signal.aborted) hurry();
    client.addEventListener('abort', leave, { once: true });
    this.hurry.signal.addEventListener('abort', hurry, { once: true });
    return {
      signal: controller.signal,
      done: () => {
        clearTimeout(timer);
        client.removeEventListener('abort', leave);
        this.hurry.signal.removeEventListener('abort', hurry);
      },
    };
  }

  /** A picture of this server by the path that its routes give it. */
  async ownPicture(path: string): Promise<Uint8Array | string | undefined> {
    const [, kind, id, number] =
      /^\/v1\/(edits|pictures|datasets)\/([\w.-]{1,200})(?:\/(?:picture|pictures\/(\d{1,9})))?$/.exec(path) ?? [];
    if (id === undefined) return undefined;
    if (kind === 'pictures') return this.uploads.get(id);
    if (kind === 'edits') return this.store.has(id) ? this.store.picture(id) : undefined;
    return number === undefined ? undefined : this.datasets.picture(id, Number(number));
  }

  /** The error that the client gets. Of a defect the client learns nothing; the log has its stack. */
  asError(error: unknown): ApiError {
    const told = toApiError(error);
    if (told !== undefined) return told;
    this.logger.error({ err: error }, 'a request failed');
    return new ApiError(500, 'internal', 'the server failed at this request; its log says why');
  }

  errorBody(error: unknown): ErrorBody {
    return this.asError(error).body();
  }

  async close(): Promise<void> {
    this.pictures.close();
    await this.engine.close();
    this.store.close();
  }
}
