/** A set as a regression test, and contradictions between edits. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { EditCheck } from '../../src/evaluation/scope-card.ts';
import { changedEdits, scopeOf } from '../../src/ledger/cards.ts';
import { type Claim, conflictsOf } from '../../src/ledger/conflicts.ts';
import type { StoredEdit } from '../../src/ledger/ledger.ts';
import { regressionOf, toJunit } from '../../src/ledger/regression.ts';

const state = { text: 'a cat', probability: 0.5 };
const row = (kind: EditCheck['card'][number]['kind'], ok: boolean): EditCheck['card'][number] => ({
  ...{ kind, prompt: 'What <is> "it" & why\u0001?', picture: 'own' as const, expected: 'a cat', before: 'a dog' },
  ...{ after: ok ? 'a cat' : 'a dog', ok },
});
const check = (reliability: boolean, ...others: boolean[]): EditCheck => ({
  ...{ took: reliability, exact: reliability, forced: reliability, before: state, after: state },
  card: [row('reliability', reliability), ...others.map((ok) => row('sameImage', ok))],
});
const edit = (measured: EditCheck, id = 'edit_1'): StoredEdit => ({
  ...{ id, model: 'm', fingerprint: 'f', set: 's', editor: 'ft-l', weights: null, prompt: 'p', target: 'a cat', note: null },
  ...{ created: 0, bytes: 0, picture: true, check: null, warnings: [], measured: { revision: 1, check: measured } },
});
const results = (before: EditCheck, now: EditCheck, strict = false): string[] =>
  regressionOf([edit(before)], new Map([['edit_1', now]]), { strict }).edits[0]!.cases.map(({ result }) => result);

test('what was right must be right again; what was wrong is known, but an edit must take', () => {
  expect(results(check(true, true, false), check(true, true, false))).toEqual(['passed', 'passed', 'passed', 'known']);
  expect(results(check(true, true, false), check(true, false, true))).toEqual(['passed', 'passed', 'failed', 'passed']);
  expect(results(check(false, true), check(false, true))).toEqual(['failed', 'known', 'passed']);
  expect(results(check(true, false), check(true, false), true)).toEqual(['passed', 'passed', 'failed']);
  expect(results(check(true), check(true, false))).toEqual(['passed', 'passed', 'new']);
});

test('the XML names each question, with nothing in it that XML does not allow', () => {
  const stored = [edit(check(true, true)), edit(check(true), 'edit_2')];
  const result = regressionOf(stored, new Map([['edit_1', check(true, false)]]));
  expect(result).toMatchObject({ passed: 2, failed: 1, skipped: 1 });
  const xml = toJunit('a & b', result, 1.5);
  expect(xml).toContain('<testsuites name="a &amp; b" tests="4" failures="1" skipped="1" time="1.500">');
  expect(xml).toContain('name="sameImage: What &lt;is&gt; &quot;it&quot; &amp; why?"><failure message=');
  expect(xml).toContain('the edit came without a picture');
  expect(xml).not.toContain('\u0001');
});

test('what a change of the set did to earlier edits: questions lost and gained', () => {
  const stored = [edit(check(true, true, false)), edit(check(true, true), 'edit_2')];
  const now = new Map([
    ['edit_1', check(false, true, true)],
    ['edit_2', check(true, true)],
  ]);
  const [{ id, lost, gained }, ...more] = changedEdits(stored, now) as [{ id: string; lost: string[]; gained: string[] }];
  expect([id, lost.length, gained.length, more.length]).toEqual(['edit_1', 1, 1, 0]);
  expect(scopeOf(now.get('edit_1')!)).toMatchObject({ free: false, leaks: { sameImage: [0, 2] } });
});

test('pairs with a question and a picture in common are found, each once, in any order', () => {
  const claim = fc.record({
    picture: fc.constantFrom('a', 'b', undefined),
    questions: fc.array(fc.constantFrom('What is it?', ' what  IS it ', 'What is it? The answer is:', 'Where?'), {
      minLength: 1,
      maxLength: 3,
    }),
    target: fc.constantFrom('cat', ' Cat', 'dog'),
  });
  const plain = (q: string): string => (q.startsWith('Where') ? 'where' : 'what');
  fc.assert(
    fc.property(fc.array(claim, { maxLength: 8 }), (all) => {
      const claims: Claim[] = all.map((one, i) => ({ id: `e${i}`, ...one }));
      const wanted = claims.flatMap((a, i) =>
        claims.slice(i + 1).flatMap((b) => {
          if (a.picture === undefined || a.picture !== b.picture) return [];
          if (!a.questions.some((q) => b.questions.some((r) => plain(q) === plain(r)))) return [];
          const same = a.target.trim().toLowerCase() === b.target.trim().toLowerCase();
          return [`${same ? 'repeats' : 'contradicts'} ${a.id} ${b.id}`];
        }),
      );
      expect(
        conflictsOf(claims)
          .map(({ kind, edits }) => `${kind} ${edits.join(' ')}`)
          .sort(),
      ).toEqual(wanted.sort());
      const last = claims.at(-1);
      if (last === undefined) return;
      const own = conflictsOf(claims, last).map(({ edits }) => edits.join(' '));
      expect(own.sort()).toEqual(
        wanted
          .map((one) => one.split(' ').slice(1).join(' '))
          .filter((one) => one.split(' ').includes(last.id))
          .sort(),
      );
    }),
  );
});
