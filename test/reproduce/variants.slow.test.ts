/** Tables 2 and 3 on toy sizes: a row for each way of training, over seeds, that goes on from finished cells. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cell, readCells } from '../../lab/reproduce/cell-store.ts';
import { tableData } from '../../lab/reproduce/data.ts';
import { table2 } from '../../lab/reproduce/table2.ts';
import { ablationNames, table3 } from '../../lab/reproduce/table3.ts';
import type { VariantOptions } from '../../lab/reproduce/variants.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
const at = (...parts: string[]): string => join(root, ...parts);
let options: Omit<VariantOptions, 'out' | 'seeds'>;
const logged: string[] = [];

beforeAll(async () => {
  writeRandomLlava(at('tiny'), { positions: 256 });
  await writeTinyWorld(at('world'));
  options = {
    model: at('tiny'),
    data: await tableData({ folder: at('world') }, { out: at('none') }, () => {}),
    steps: 2,
    limit: 4,
    threads: 1,
    command: 'visedit reproduce',
    log: (line) => void logged.push(line),
  };
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const cellAt = (table: string, place: string): Cell => readCells(at(table)).find((cell) => cell.place === place)!;

test('table2: a row for each layer, contributions beside, the pictures', async () => {
  const { rows, contributions } = await table2({ ...options, out: at('table2'), seeds: [1, 2], layers: [0, 2] });
  expect(rows.map(({ layer, seeds, count }) => [layer, seeds, count])).toEqual([
    [0, [1, 2], 4],
    [2, [1, 2], 4],
  ]);
  const runs = [1, 2].map((seed) => cellAt('table2', `tiny/vqa/vead/layer-2/seed-${seed}`));
  expect(runs.map(({ manifest }) => manifest.weights!.settings.layer)).toEqual([2, 2]);
  expect(rows[1]!.average).toBeCloseTo((runs[0]!.evaluation.average + runs[1]!.evaluation.average) / 2, 12);
  expect(contributions.attn).toHaveLength(4);
  for (const name of ['table2.json', 'table2.md', 'table2.tex', 'table2.csv', 'table2.svg', 'module-contributions.svg'])
    expect(existsSync(at('table2', name)), name).toBe(true);
});

test('table3: each part and loss is left out in training, and only that', async () => {
  const table = await table3({ ...options, out: at('table3'), seeds: [1] });
  expect(table.rows.map(({ ablation }) => ablation)).toEqual(ablationNames);
  const settings = ablationNames.map(
    (name) => cellAt('table3', `tiny/vqa/vead/${name === 'full' ? '' : `${name}/`}seed-1`).manifest.weights!.settings,
  );
  const [full, ...others] = settings;
  const changed = others.map((other) =>
    Object.keys(full!).filter((key) => JSON.stringify(other[key]) !== JSON.stringify(full![key])),
  );
  expect(changed).toEqual([['losses'], ['losses'], ['losses'], ['influenceMapper'], ['crossAttention']]);
  // [rel, gen, loc, up, down, attribution, others]: ℓ_im↓ over other edits' pictures goes with ℓ_im↓
  expect(others.slice(0, 3).map(({ losses }) => (losses as number[]).slice(3))).toEqual([
    [0.1, 0, 0.1, 0],
    [0, 0.1, 0.1, 0.3],
    [0.1, 0.1, 0, 0.3],
  ]);
  expect(table.rows[0]!.against).toBeNull();
  for (const metric of ['average', 'modalLocality'] as const)
    expect(table.rows[5]!.against![metric]!.difference).toBeCloseTo(table.rows[5]![metric] - table.rows[0]![metric], 6);
  expect(readFileSync(at('table3', 'table3.md'), 'utf8')).toContain('| − CA |');
  rmSync(at('table3', 'work'), { recursive: true });
  logged.length = 0;
  expect((await table3({ ...options, out: at('table3'), seeds: [1] })).rows).toEqual(table.rows);
  expect(logged).toEqual([`All 6 cells are finished in ${at('table3')}.`]);
});
