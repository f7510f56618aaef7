/** Histories of sets of edits: what was can be gone back to, deleted edits cannot, and what is written is read back. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { added, deleted, entriesOf, type History, kept, packed, reverted, switched, unpacked } from '../../src/ledger/history.ts';

fc.configureGlobal({ seed: 1 });

describe('history of a set', () => {
  type Step = ['add'] | ['switch', number, boolean] | ['undo'] | ['restore', number];
  const step: fc.Arbitrary<Step> = fc.oneof(
    fc.constant<Step>(['add']),
    fc.tuple(fc.constant('switch' as const), fc.nat(5), fc.boolean()),
    fc.constant<Step>(['undo']),
    fc.tuple(fc.constant('restore' as const), fc.nat(30)),
  );
  const run = (steps: readonly Step[]): History =>
    steps.reduce<History>((history, [what, ...given], at) => {
      if (what === 'add') return added(history, `e${at}`, at);
      if (what === 'undo') return reverted(history, undefined, at) ?? history;
      if (what === 'restore') return reverted(history, given[0] as number, at) ?? history;
      const ids = [...new Set(history.flatMap(({ entries }) => entries.map(({ id }) => id)))];
      const id = ids[(given[0] as number) % Math.max(1, ids.length)];
      return id === undefined ? history : switched(history, id, given[1] as boolean, at);
    }, []);

  test('numbers rise by one and what was is kept; any revision can be restored, and its restoring undone', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), fc.nat(30), (steps, number) => {
        const history = run(steps);
        expect(history.map(({ revision }) => revision)).toEqual(history.map((_, i) => i + 1));
        const back = reverted(history, number, 99);
        if (history.length === 0 || number > history.length) {
          expect(back).toBeUndefined();
          return;
        }
        expect(entriesOf(back!)).toEqual(number === 0 ? [] : history[number - 1]!.entries);
        const again = reverted(back!, undefined, 100);
        if (JSON.stringify(entriesOf(back!)) !== JSON.stringify(entriesOf(history)))
          expect(entriesOf(again!)).toEqual(entriesOf(history));
      }),
    );
  });

  test('undoing again and again goes back through all changes to the empty set, and then there is nothing left', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.constant<Step>(['add']), fc.tuple(fc.constant('switch' as const), fc.nat(5), fc.boolean())), {
          maxLength: 20,
        }),
        (steps) => {
          const history = run(steps);
          const states = [...history].reverse().map(({ entries }) => entries);
          let now = history;
          for (const before of [...states.slice(1), ...(history.length > 0 ? [[]] : [])]) {
            now = reverted(now, undefined, 99)!;
            expect(entriesOf(now)).toEqual(before);
          }
          expect(reverted(now, undefined, 100)).toBeUndefined();
        },
      ),
    );
  });

  test('a deleted edit is in no state that can be gone back to', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 20 }), (steps) => {
        const history = deleted(run([['add'], ...steps]), 'e0', 50);
        for (let number = 0; number <= history.length; number++)
          expect(entriesOf(reverted(history, number, 99)!).map(({ id }) => id)).not.toContain('e0');
        for (let now: History | undefined = history; now !== undefined; now = reverted(now, undefined, 99))
          expect(entriesOf(now).map(({ id }) => id)).not.toContain('e0');
      }),
    );
  });

  test('what is written of it is read back, and is short', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), fc.option(fc.nat(40)), fc.nat(5), (steps, from, gone) => {
        const whole = run(steps);
        const history = from === null ? whole : deleted(whole.slice(from), `e${gone}`, 99);
        const written = JSON.stringify(packed(history));
        expect(unpacked(JSON.parse(written))).toEqual(history);
        expect(
          packed(history)
            .slice(1)
            .filter(({ action, entries }) => action !== 'revert' && entries !== undefined).length,
        ).toBeLessThanOrEqual(whole.length > history.length ? history.length : from === null ? 0 : 2);
      }),
    );
  });

  test('is bounded', () => {
    let history: History = added([], 'e', 0);
    for (let i = 0; i < 2 * kept; i++) history = switched(history, 'e', i % 2 === 1, i);
    expect(history).toHaveLength(kept);
    expect(history.at(-1)!.revision).toBe(2 * kept + 1);
    expect(reverted(history, 1, 0)).toBeUndefined();
  });
});
