/** Jobs: long work that a client starts, watches and cancels. They end with the server. The oldest finished ones are forgotten when there are too many. */

import { randomBytes } from 'node:crypto';
import type { Progress } from './engine/tasks.ts';
import { ApiError, type ErrorBody, isStop, stopped } from './errors.ts';

export type JobState = 'queued' | 'running' | 'done' | 'failed' | 'cancelled';

export interface Job {
  readonly object: 'job';
  readonly id: string;
  readonly kind: string;
  readonly state: JobState;
  readonly created: number;
  readonly progress: Progress;
  readonly result?: unknown;
  readonly error?: ErrorBody['error'];
}

const ended = new Set<JobState>(['done', 'failed', 'cancelled']);
export const isEnded = ({ state }: Pick<Job, 'state'>): boolean => ended.has(state);

interface Kept {
  job: Job;
  readonly controller: AbortController;
  readonly watchers: Set<(job: Job) => void>;
}

export type JobWork = (signal: AbortSignal, onProgress: (progress: Progress) => void, onStart: () => void) => Promise<unknown>;

export class Jobs {
  readonly #kept = new Map<string, Kept>();

  constructor(
    readonly limit: number,
    readonly describe: (error: unknown) => ErrorBody['error'],
  ) {}

  get all(): readonly Job[] {
    return [...this.#kept.values()].map(({ job }) => job);
  }

  get unfinished(): number {
    return this.all.filter((job) => !isEnded(job)).length;
  }

  /** @throws ApiError 429 when too many are not finished */
  start(kind: string, work: JobWork): Job {
    for (const [id, { job }] of this.#kept) {
      if (this.#kept.size < this.limit) break;
      if (isEnded(job)) this.#kept.delete(id);
    }
    if (this.#kept.size >= this.limit)
      throw new ApiError(429, 'too_many_jobs', `${this.limit} jobs are not finished; wait for some, or cancel some`, {
        retryAfter: 5,
      });
    const controller = new AbortController();
    const id = `job_${randomBytes(8).toString('hex')}`;
    const progress = { done: 0, total: 0, note: '' };
    const job: Job = { object: 'job', id, kind, state: 'queued', created: Math.floor(Date.now() / 1000), progress };
    const kept: Kept = { job, controller, watchers: new Set() };
    this.#kept.set(id, kept);
    const change = (news: Partial<Job>): void => {
      if (isEnded(kept.job)) return;
      kept.job = { ...kept.job, ...news };
      for (const watch of [...kept.watchers]) watch(kept.job);
    };
    work(
      controller.signal,
      (news) => change({ progress: news }),
      () => change({ state: 'running' }),
    ).then(
      (result) => change({ state: 'done', result }),
      (error: unknown) =>
        controller.signal.aborted || isStop(error)
          ? change({ state: 'cancelled' })
          : change({ state: 'failed', error: this.describe(error) }),
    );
    return job;
  }

  /** @throws ApiError 404 */
  get(id: string): Job {
    return this.#find(id).job;
  }

  /** Cancels a job that is not finished, forgets one that is. */
  remove(id: string): Job {
    const kept = this.#find(id);
    if (isEnded(kept.job)) this.#kept.delete(id);
    else {
      kept.controller.abort(stopped('the job was cancelled'));
      kept.job = { ...kept.job, state: 'cancelled' };
      for (const watch of [...kept.watchers]) watch(kept.job);
    }
    return kept.job;
  }

  /** Tells of every change until it is called off. */
  watch(id: string, onChange: (job: Job) => void): () => void {
    const { watchers } = this.#find(id);
    watchers.add(onChange);
    return () => void watchers.delete(onChange);
  }

  cancelAll(reason: string): void {
    for (const { job, controller } of this.#kept.values()) if (!isEnded(job)) controller.abort(stopped(reason));
  }

  #find(id: string): Kept {
    const kept = this.#kept.get(id);
    if (kept === undefined) throw new ApiError(404, 'job_not_found', `there is no job ${JSON.stringify(id)}`, { param: 'id' });
    return kept;
  }
}
