/** `evaluate` killed at ten random moments and resumed, against a run that was let be: the same bytes of records, figures and tables. */
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Evaluation } from '../../src/evaluation/metrics.ts';
import { evaluationRows, toCsv, toLatex, toMarkdown } from '../../src/evaluation/tables.ts';
import { Random } from '../../src/random.ts';
import { visedit } from '../cli/start.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { type TinyWorld, temporaryFolder, writeTinyWorld } from '../tiny-world.ts';
import { viseditUntil } from './kill.ts';

const root = temporaryFolder();
const at = (...parts: string[]): string => join(root, ...parts);
let world: TinyWorld;

beforeAll(async () => {
  writeRandomLlava(at('model'), { positions: 256 });
  world = await writeTinyWorld(at('world'), { vqaTest: 44 });
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const words = (out: string, jobs: number, ...more: string[]): string[] => [
  ...['evaluate', '--model', at('model'), '--editor', 'ft-l', '--data', world.test, '--images', world.images],
  ...[
    '--unedited',
    at(`${out}-unedited`),
    '--batch',
    '2',
    '--jobs',
    String(jobs),
    '--max-new-tokens',
    '8',
    '--out',
    at(out),
    ...more,
  ],
];

/** Everything that a run leaves but its times. */
function made(out: string): string[] {
  const [records, summary] = ['records.jsonl', 'summary.json'].map((name) => readFileSync(at(out, name), 'utf8')) as [
    string,
    string,
  ];
  const rows = evaluationRows(JSON.parse(summary) as Evaluation);
  return [records, summary, toMarkdown(rows), toLatex(rows), toCsv(rows)];
}

const sizeOf = (out: string): number =>
  ['records.jsonl', 'records.part-0.jsonl', 'records.part-1.jsonl'].reduce(
    (sum, name) => sum + (existsSync(at(out, name)) ? (statSync(at(out, name), { throwIfNoEntry: false })?.size ?? 0) : 0),
    0,
  );

test.each([
  [1, 10],
  [2, 4],
])('with %i jobs, killed at %i random moments', async (jobs, kills) => {
  const whole = await visedit(words('whole', 1, '--resume'));
  expect(whole.code).toBe(0);
  const total = sizeOf('whole');
  const random = new Random(`kills of ${jobs}`);
  const out = `killed-${jobs}`;
  let hits = 0;
  for (let kill = 0; kill < kills; kill++) {
    // One moment in each share of the results, and up to a tenth of a second later.
    const size = total * ((kill + random.uniform()) / kills);
    const delay = 100 * random.uniform();
    let reached = 0;
    const when = (): boolean => {
      if (reached === 0 && sizeOf(out) >= size) reached = performance.now();
      return reached > 0 && performance.now() >= reached + delay;
    };
    const { hit } = await viseditUntil(words(out, jobs, '--resume'), when, 'SIGKILL');
    if (hit) hits++;
  }
  expect(hits).toBeGreaterThanOrEqual(0.75 * kills);
  expect((await visedit(words(out, jobs, '--resume'))).code).toBe(0);
  expect(made(out)).toEqual(made('whole'));
});
