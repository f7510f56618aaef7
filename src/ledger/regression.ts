/**
 * A set of edits as a regression test. Every edit that is on must give its target; of the questions around it, those that were right when they
 * were last measured must be right again. What was wrong then is known, and told of.
 */

import type { EditCheck } from '../evaluation/scope-card.ts';
import { lastCard } from './cards.ts';
import type { StoredEdit } from './changes.ts';

export interface TestCase {
  readonly kind: EditCheck['card'][number]['kind'] | 'forced';
  readonly prompt: string;
  readonly expected: string;
  readonly said: string;
  /** `known`: wrong, as it was when it was last measured; `new`: it was not asked before, and is wrong */
  readonly result: 'passed' | 'failed' | 'known' | 'new';
}

export interface TestedEdit {
  readonly edit: StoredEdit;
  /** none for an edit that came without a picture, which cannot be asked */
  readonly cases: readonly TestCase[];
}

export interface Regression {
  readonly edits: readonly TestedEdit[];
  readonly passed: number;
  readonly failed: number;
  readonly known: number;
  readonly skipped: number;
}

/** @param strict what was wrong before fails, too */
export function regressionOf(
  stored: readonly StoredEdit[],
  now: ReadonlyMap<string, EditCheck>,
  { strict = false }: { strict?: boolean } = {},
): Regression {
  const edits = stored.map((edit): TestedEdit => {
    const check = now.get(edit.id);
    if (check === undefined) return { edit, cases: [] };
    const before = lastCard(edit);
    const cases = check.card.map(({ kind, prompt, picture, expected, after, ok }, i): TestCase => {
      const row = before?.card[i];
      const then = row?.kind === kind && row.prompt === prompt && row.picture === picture ? row.ok : undefined;
      const wrong = strict || kind === 'reliability' || then === true ? 'failed' : then === false ? 'known' : 'new';
      return { kind, prompt, expected, said: after, result: ok ? 'passed' : wrong };
    });
    const forced: TestCase = {
      ...{ kind: 'forced', prompt: edit.prompt, expected: edit.target, said: check.after.text },
      result: check.forced ? 'passed' : strict || before?.forced !== false ? 'failed' : 'known',
    };
    return { edit, cases: [cases[0]!, forced, ...cases.slice(1)] };
  });
  const count = (...results: TestCase['result'][]): number =>
    edits.reduce((sum, { cases }) => sum + cases.filter(({ result }) => results.includes(result)).length, 0);
  return {
    edits,
    passed: count('passed'),
    failed: count('failed'),
    known: count('known', 'new'),
    skipped: edits.filter(({ cases }) => cases.length === 0).length,
  };
}

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
/** Characters that XML has no place for are left out. */
const xml = (text: string): string =>
  text.replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '').replace(/[&<>"]/g, (c) => entities[c]!);

/** The result as JUnit's XML: a suite for each edit, a case for each question. */
export function toJunit(name: string, { edits, passed, failed, known, skipped }: Regression, seconds: number): string {
  const suites = edits.map(({ edit, cases }) => {
    const title = `${edit.prompt} → ${edit.target}`;
    const failures = cases.filter(({ result }) => result === 'failed').length;
    const left = cases.length === 0 ? 1 : cases.filter(({ result }) => result === 'known' || result === 'new').length;
    const lines = cases.map(({ kind, prompt, expected, said, result }) => {
      const told = `expected ${JSON.stringify(expected)}, got ${JSON.stringify(said)}`;
      const open = `    <testcase classname="${xml(edit.id)}" name="${xml(`${kind}: ${prompt}`)}"`;
      if (result === 'passed') return `${open}/>`;
      const inside = result === 'failed' ? 'failure' : 'skipped';
      const reason = result === 'known' ? `wrong before, too: ${told}` : told;
      return `${open}><${inside} message="${xml(reason)}"/></testcase>`;
    });
    const none = `    <testcase classname="${xml(edit.id)}" name="reliability"><skipped message="the edit came without a picture"/></testcase>`;
    return [
      `  <testsuite name="${xml(title)}" id="${xml(edit.id)}" tests="${Math.max(1, cases.length)}" failures="${failures}" skipped="${left}">`,
      ...(cases.length === 0 ? [none] : lines),
      '  </testsuite>',
    ].join('\n');
  });
  const total = passed + failed + known + skipped;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites name="${xml(name)}" tests="${total}" failures="${failed}" skipped="${known + skipped}" time="${seconds.toFixed(3)}">`,
    ...suites,
    '</testsuites>',
    '',
  ].join('\n');
}
