/** Histories of sets of edits: what was can be gone back to, deleted edits cannot, and what is written is read back. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  added,
  deleted,
  type Entry,
  emptyHistory,
  type History,
  historyOf,
  reverted,
  revisionOf,
  stateAt,
  switched,
} from '../../src/ledger/history.ts';

fc.configureGlobal({ seed: 1 });

describe('history of a set', () => {
  type Step = ['add'] | ['switch', number, boolean] | ['undo'] | ['restore', number] | ['delete', number];
  const simple: fc.Arbitrary<Step> = fc.oneof(
    fc.constant<Step>(['add']),
    fc.tuple(fc.constant('switch' as const), fc.nat(5), fc.boolean()),
  );
  const step: fc.Arbitrary<Step> = fc.oneof(
    simple,
    fc.constant<Step>(['undo']),
    fc.tuple(fc.constant('restore' as const), fc.nat(30)),
  );
  const deleting: fc.Arbitrary<Step> = fc.oneof(step, fc.tuple(fc.constant('delete' as const), fc.nat(5)));
  const next = (history: History, [what, ...given]: Step, at: number): History => {
    if (what === 'add') return added(history, `e${at}`, at);
    if (what === 'undo') return reverted(history, undefined, at) ?? history;
    if (what === 'restore') return reverted(history, given[0] as number, at) ?? history;
    const gone = history.revisions.flatMap(({ action, edit }) => (action === 'delete' ? [edit] : []));
    const ids = history.revisions.flatMap(({ action, edit }) => (action === 'add' && !gone.includes(edit) ? [edit!] : []));
    const id = ids[(given[0] as number) % Math.max(1, ids.length)];
    if (id === undefined) return history;
    return what === 'delete' ? deleted(history, id, at) : switched(history, id, given[1] as boolean, at);
  };
  /** The history after each step. */
  const all = (steps: readonly Step[]): History[] => {
    const out: History[] = [];
    steps.forEach((one, at) => {
      out.push(next(out.at(-1) ?? emptyHistory, one, at));
    });
    return out;
  };
  const run = (steps: readonly Step[]): History => all(steps).at(-1) ?? emptyHistory;

  test('numbers rise by one, and the state of every revision is the one that there was', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const history = run(steps);
        expect(history.revisions.map(({ revision }) => revision)).toEqual(history.revisions.map((_, i) => i + 1));
        const states = new Map<number, readonly Entry[]>([[0, []]]);
        for (const one of all(steps)) states.set(revisionOf(one), one.entries);
        for (const [number, entries] of states) expect(stateAt(history, number)).toEqual(entries);
      }),
    );
  });

  test('any revision can be restored, and its restoring undone', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), fc.nat(30), (steps, number) => {
        const history = run(steps);
        const back = reverted(history, number, 99);
        if (revisionOf(history) === 0 || number > revisionOf(history)) {
          expect(back).toBeUndefined();
          return;
        }
        expect(back!.entries).toEqual(stateAt(history, number));
        const again = reverted(back!, undefined, 100);
        if (JSON.stringify(back!.entries) !== JSON.stringify(history.entries)) expect(again!.entries).toEqual(history.entries);
      }),
    );
  });

  test('undoing again and again goes back through all changes to the empty set, and then there is nothing left', () => {
    fc.assert(
      fc.property(fc.array(simple, { maxLength: 20 }), (steps) => {
        const history = run(steps);
        let now = history;
        for (let number = revisionOf(history) - 1; number >= 0; number--) {
          now = reverted(now, undefined, 99)!;
          expect(now.entries).toEqual(stateAt(history, number));
        }
        expect(reverted(now, undefined, 100)).toBeUndefined();
      }),
    );
  });

  test('a deleted edit is in no state that can be gone back to', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 20 }), (steps) => {
        const history = deleted(run([['add'], ...steps]), 'e0', 50);
        for (let number = 0; number <= revisionOf(history); number++)
          expect(reverted(history, number, 99)!.entries.map(({ id }) => id)).not.toContain('e0');
        for (let now: History | undefined = history; now !== undefined; now = reverted(now, undefined, 99))
          expect(now.entries.map(({ id }) => id)).not.toContain('e0');
      }),
    );
  });

  test('what is written of it is read back, and no revision holds the set', () => {
    fc.assert(
      fc.property(fc.array(deleting, { maxLength: 40 }), (steps) => {
        const history = run(steps);
        const written: History['revisions'] = JSON.parse(JSON.stringify(history.revisions));
        expect(historyOf(written)).toEqual(history);
        expect(written.filter(({ entries }) => entries !== undefined)).toEqual([]);
      }),
    );
  });

  test('a history that an earlier visedit cut off begins with the entries it wrote, and earlier revisions are not known', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 30 }), fc.nat(30), (steps, cut) => {
        const whole = run(steps);
        const from = whole.revisions[cut];
        // What is restored from before the cut was written down, too.
        const rest = whole.revisions.slice(cut).map((one) => ({ ...one, entries: stateAt(whole, one.revision) }));
        if (from === undefined) return;
        const history = historyOf(rest);
        expect(history.entries).toEqual(whole.entries);
        if (cut > 0) expect(stateAt(history, cut)).toBeUndefined();
        for (const { revision } of rest) expect(stateAt(history, revision)).toEqual(stateAt(whole, revision));
      }),
    );
    expect(() => historyOf([{ revision: 5, at: 0, action: 'add', edit: 'e', to: null, undo: 4 }])).toThrow('has no entries');
  });

  test('the first of 3,000 revisions can be restored', () => {
    let history = added(emptyHistory, 'e', 0);
    for (let i = 0; i < 3000; i++) history = switched(history, 'e', i % 2 === 1, i);
    expect(reverted(history, 1, 0)!.entries).toEqual([{ id: 'e', enabled: true }]);
  });
});
