/** `reproduce table5` from fresh processes on toy sizes: cells of both data sets, resume, the table of what is finished. */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cellRecords, readCells } from '../../lab/reproduce/cell-store.ts';
import type { LifelongRow } from '../../lab/reproduce/table5.ts';
import { visedit } from '../cli/start.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
const at = (...parts: string[]): string => join(root, ...parts);
const words = (...more: string[]): string[] => [
  ...['reproduce', 'table5', '--model', at('tiny'), '--world', at('world'), '--editor', 'ft-l', '--edits', '2'],
  ...['--moments', '2', '--limit', '5', '--threads', '1', '--out', at('table5'), '--json', ...more],
];

beforeAll(async () => {
  writeRandomLlava(at('tiny'), { positions: 256 });
  await writeTinyWorld(at('world'), { captionTrain: 12, captionTest: 6 });
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

test('every length is measured over all records that it divides, and is kept in one line of a cell', async () => {
  const { code, stdout, stderr } = await visedit(words());
  expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' });
  const { rows } = JSON.parse(stdout) as { rows: LifelongRow[] };
  expect(
    rows.map(({ dataset, editor, edits, records, seeds, own }) => [dataset, editor, edits, records, seeds, own !== null]),
  ).toEqual([
    ['caption', 'ft-l', 1, 5, [null], false],
    ['caption', 'ft-l', 2, 4, [null], true],
    ['vqa', 'ft-l', 1, 5, [null], false],
    ['vqa', 'ft-l', 2, 4, [null], true],
  ]);
  for (const { forced, interval } of rows) {
    expect(interval!.low).toBeLessThanOrEqual(forced.average);
    expect(interval!.high).toBeGreaterThanOrEqual(forced.average);
  }
  const [cell] = readCells(at('table5'));
  expect(cell!.manifest.identity.lifelong).toEqual({ edits: 2, moments: 2 });
  for (const point of cell!.points!) {
    const records = cellRecords({ place: cell!.place, records: point.records });
    expect(records).toHaveLength(point.evaluation.count);
  }
  const markdown = readFileSync(at('table5', 'table5.md'), 'utf8');
  expect((await visedit(words())).stderr).toContain('All 2 cells are finished');
  expect((await visedit(['reproduce', 'table5', '--finished', '--out', at('table5'), '--json'])).code).toBe(0);
  expect(readFileSync(at('table5', 'table5.md'), 'utf8')).toBe(markdown);
  const costs = ['reproduce', 'sequential-costs', '--from', at('table5'), '--model', 'tiny', '--out', at('costs'), '--json'];
  const drawn = JSON.parse((await visedit(costs)).stdout) as {
    measures: { rows: { edits: number; editSeconds: number; editBytes: number }[] };
  };
  expect(drawn.measures.rows.map(({ edits }) => edits)).toEqual([1, 2]);
  for (const row of drawn.measures.rows) expect(Math.min(row.editSeconds, row.editBytes)).toBeGreaterThan(0);
  const sampled = await visedit(words('--dataset', 'vqa', '--sample', '3', '--out', at('sampled')));
  expect((JSON.parse(sampled.stdout) as { rows: LifelongRow[] }).rows.map(({ records }) => records)).toEqual([3, 3]);
  const other = await visedit(words('--moments', '0'));
  expect(other.stderr).toContain('lifelong.moments: there 2, here 0');
}, 120_000);
