/**
 * Scope cards are about the whole set, so a set that changes is measured again: in the background, as a job that can be watched and cancelled. When
 * the set changes once more its measurement is given up, and another one begins.
 */

import type { EditCheck } from '../../src/evaluation/scope-card.ts';
import { changedEdits } from '../../src/ledger/cards.ts';
import { revisionOf } from '../../src/ledger/history.ts';
import { type EditSet, type StoredEdit, setId } from '../../src/ledger/ledger.ts';
import { ApiError, stopped } from './errors.ts';
import { isEnded, type Job, type JobWork } from './jobs.ts';
import type { Services } from './services.ts';

/** Edits whose cards are asked in one turn; other work comes between. */
const TOGETHER = 4;

export class Measuring {
  /** the last job of each set */
  readonly #jobs = new Map<string, string>();

  constructor(readonly services: Services) {}

  /** The measurement of a set that is under way. */
  underWay(set: string): string | null {
    const id = this.#jobs.get(set);
    const job = id === undefined ? undefined : this.services.jobs.all.find((one) => one.id === id);
    return job === undefined || isEnded(job) ? null : job.id;
  }

  /** Asks all cards of a set. @param by the edit whose addition the set was changed by @throws ApiError 429 when there are too many jobs */
  start(set: string, by?: string): Job {
    this.giveUp(set);
    const job = this.services.jobs.start('measurement', this.#work(set, by));
    this.#jobs.set(set, job.id);
    return job;
  }

  /** A set was changed: what was measured of it no longer holds. */
  changed({ model, name }: Pick<EditSet, 'model' | 'name'>, by?: string): void {
    const { store, options, draining, logger } = this.services;
    const id = setId({ model, name });
    this.giveUp(id);
    const set = store.findSet(model, name);
    if (options.measure === 'none' || draining || set === undefined || isKnown(store.active(set))) return;
    try {
      this.start(id, by);
    } catch (error) {
      // The change is made; its cards are asked with the next one, or when somebody asks for it.
      if (!(error instanceof ApiError)) throw error;
      logger.warn({ set: id, reason: error.message }, 'the set is not measured again');
    }
  }

  giveUp(set: string): void {
    const id = this.underWay(set);
    if (id !== null) this.services.jobs.remove(id);
    this.#jobs.delete(set);
  }

  giveUpAll(): void {
    for (const set of [...this.#jobs.keys()]) this.giveUp(set);
  }

  #work(id: string, by: string | undefined): JobWork {
    return async (signal, onProgress, onStart) => {
      const { services } = this;
      const { store } = services;
      const set = store.set(id);
      const revision = revisionOf(set.history);
      const edits = store.active(set);
      const under = { model: set.model, edits: edits.map((one) => ({ id: one.id, path: store.path(one.id) })) };
      const checks = new Map<string, EditCheck>();
      for (let at = 0; at < edits.length; at += TOGETHER) {
        const order = { under, folder: store.folder, edits: edits.slice(at, at + TOGETHER) };
        const made = await services.inTurn('long', { signal, onStart }, (own) => services.inEngine('cards', order, own));
        for (const [edit, check] of made) checks.set(edit, check);
        onProgress({ done: Math.min(edits.length, at + TOGETHER), total: edits.length, note: 'edits' });
      }
      if (signal.aborted || revisionOf(store.set(id).history) !== revision)
        throw stopped('the set was changed before it was measured');
      const changed = changedEdits(
        edits.filter((one) => one.id !== by),
        checks,
      );
      store.measured(id, checks, by === undefined || !store.has(by) ? undefined : { edit: by, changed });
      const took = [...checks.values()].filter((check) => check.took).length;
      return { object: 'measurement', set: id, revision, edits: checks.size, took, changed };
    };
  }
}

/** Whether there is nothing to ask: no edit has a picture, or the only one has its card of when it was made, and was alone ever since. */
const isKnown = (edits: readonly StoredEdit[]): boolean =>
  edits.every(({ picture }) => !picture) || (edits.length === 1 && edits[0]!.measured === undefined && edits[0]!.check !== null);
