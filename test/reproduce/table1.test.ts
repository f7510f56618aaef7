/** `reproduce table1` from fresh processes on toy sizes: seeds, resume, cells without their weights, tables, and what is refused. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cellRecords, readCells, writeCell } from '../../lab/reproduce/cell-store.ts';
import { runCells } from '../../lab/reproduce/cells.ts';
import type { Column } from '../../lab/reproduce/columns.ts';
import { tableData } from '../../lab/reproduce/data.ts';
import { averageRows } from '../../lab/reproduce/table-files.ts';
import { fingerprintOf } from '../../src/editors/editor.ts';
import { readEditorWeights, trainedWeights } from '../../src/editors/files.ts';
import { visedit } from '../cli/start.ts';
import { viseditUntil } from '../evaluation/kill.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
const at = (...parts: string[]): string => join(root, ...parts);
const words = (out: string, ...more: string[]): string[] => [
  ...['reproduce', 'table1', '--model', at('tiny'), '--world', at('world'), '--editor', 'ft-l', '--editor', 'vead'],
  ...['--dataset', 'vqa', '--seeds', '1,2', '--steps', '3', '--limit', '6', '--threads', '1', '--out', at(out), ...more],
];
const formats = ['table1.md', 'table1.tex', 'table1.csv'];
const tables = (out: string): string[] => formats.map((name) => readFileSync(at(out, name), 'utf8'));

beforeAll(async () => {
  writeRandomLlava(at('tiny'), { positions: 256 });
  await writeTinyWorld(at('world'), { captionTrain: 12, captionTest: 6 });
  const { code, stderr } = await visedit(words('whole'));
  expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' });
  expect(stderr).toContain('3 cells, 0 finished, 3 to do: about');
}, 300_000);
afterAll(() => rmSync(root, { recursive: true, force: true }));

test('what is trained has a cell for each seed, what draws nothing has one; a cell can be kept without weights', () => {
  const cells = readCells(at('whole'));
  expect(cells.map(({ place }) => place)).toEqual(['tiny/vqa/ft-l/once', 'tiny/vqa/vead/seed-1', 'tiny/vqa/vead/seed-2']);
  expect(readdirSync(at('whole')).filter((name) => !name.startsWith('table1') && name !== 'work')).toEqual([
    'tiny-vqa.cells.jsonl',
  ]);
  const cell = cells.find(({ place }) => place === 'tiny/vqa/vead/seed-2')!;
  const { manifest, evaluation, training, curve } = cell;
  expect(training).toMatchObject({ identity: { editor: 'vead', seed: '2' }, finished: true });
  expect(curve!.map(({ step }) => step)).toEqual([1, 2, 3]);
  expect(cellRecords(cell).map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(evaluation.count).toBe(6);
  expect(manifest).toMatchObject({
    finished: true,
    identity: { editor: { id: 'vead', seed: 2, training: { steps: 3, limit: null } }, data: { records: 11, evaluated: 6 } },
    costs: { edits: 6 },
  });
  expect(manifest.costs.editSeconds).toBeGreaterThan(0);
});

test('the table has means over seeds, tests against VEAD, and all formats', () => {
  const { columns } = JSON.parse(readFileSync(at('whole', 'table1.json'), 'utf8')) as { columns: Column[] };
  expect(columns.map(({ model, dataset, count }) => [model, dataset, count])).toEqual([['tiny', 'vqa', 6]]);
  const [ftL, vead] = columns[0]!.entries;
  expect([ftL!.editor, ftL!.seeds, vead!.editor, vead!.seeds]).toEqual(['ft-l', [null], 'vead', [1, 2]]);
  expect(ftL!.against!.difference).toBeCloseTo(ftL!.forced.average.mean - vead!.forced.average.mean, 6);
  expect(ftL!.against!.interval.low).toBeLessThanOrEqual(ftL!.against!.difference);
  expect(vead!.against).toBeNull();
  const [markdown, latex, csv] = tables('whole');
  expect(markdown).toMatch(/\| tiny \| E-VQA \| vead \|.* ± .*\| 6 \|/);
  expect(latex).toContain('\\begin{tabular}');
  expect(csv!.trim().split('\n')).toHaveLength(3);
});

test('averages at a glance: the best first and bold; an editor without all columns has no mean and stands last', () => {
  const { columns } = JSON.parse(readFileSync(at('whole', 'table1.json'), 'utf8')) as { columns: Column[] };
  const [column] = columns as [Column];
  const averaging = (average: number, only?: string): Column => ({
    ...column,
    entries: column.entries
      .filter(({ editor }) => only === undefined || editor === only)
      .map((entry) => ({
        ...entry,
        forced: { ...entry.forced, average: { mean: average, deviation: 0 } },
        interval: { low: average - 0.01, high: average + 0.01 },
      })),
    floor: { ...column.floor, average: 0.125 },
  });
  const vead = averaging(0.25, 'vead');
  const { head, rows } = averageRows([vead, averaging(0.5)]);
  expect(head).toEqual(['Editor', 'tiny E-VQA', 'tiny E-VQA', 'Mean']);
  expect(rows).toEqual([
    ['vead', '**25.00 ± 1.00**', '**50.00 ± 1.00**', '37.50'],
    ['no edit', '12.50', '12.50', '12.50'],
    ['ft-l', '', '**50.00 ± 1.00**', ''],
  ]);
});

test('killed between cells and inside one, then resumed: the same tables; finished cells alone are enough', async () => {
  const { hit } = await viseditUntil(words('killed'), () => existsSync(at('killed', 'tiny-vqa.cells.jsonl')), 'SIGKILL');
  expect(hit).toBe(true);
  const training = (): boolean =>
    existsSync(at('killed/work/training')) && readdirSync(at('killed/work/training')).some((name) => name.includes('seed-2'));
  await viseditUntil(words('killed'), training, 'SIGKILL');
  expect((await visedit(words('killed'))).code).toBe(0);
  expect(tables('killed')).toEqual(tables('whole'));
  rmSync(at('killed/work'), { recursive: true });
  for (const name of formats) rmSync(at('killed', name));
  const again = await visedit(words('killed'));
  expect(again.stderr).toContain('All 3 cells are finished');
  expect(tables('killed')).toEqual(tables('whole'));
  expect(existsSync(at('killed/work/training'))).toBe(false);
}, 300_000);

test("of a column's lines the last of a place counts, and one that was cut off takes no other with it", () => {
  const [column, table] = [at('cut', 'tiny-vqa.cells.jsonl'), at('cut')];
  mkdirSync(table);
  copyFileSync(at('whole', 'tiny-vqa.cells.jsonl'), column);
  const cells = readCells(table);
  truncateSync(column, statSync(column).size - 100);
  const left = readCells(table);
  expect(left).toHaveLength(2);
  const lost = cells.find(({ place }) => !left.some((cell) => cell.place === place))!;
  writeCell(table, lost);
  expect(readCells(table)).toEqual(cells);
  writeCell(table, { ...lost, evaluation: { ...lost.evaluation, count: 5 } });
  expect(
    readCells(table)
      .map(({ evaluation }) => evaluation.count)
      .sort(),
  ).toEqual([5, 6, 6]);
});

test('cells that were made otherwise are refused by name, and made anew when asked', async () => {
  const other = await visedit(words('killed', '--limit', '5'));
  expect(other.code).toBe(1);
  expect(other.stderr).toMatch(
    /ft-l\/once \(ft-l on tiny, E-VQA\) holds results that were made with other settings\. Give --redo/,
  );
  expect(other.stderr).toContain('data.evaluated: there 6, here 5');
  // An editor's default that is another one today.
  const column = at('killed', 'tiny-vqa.cells.jsonl');
  const made = readFileSync(column, 'utf8');
  const lines = made.split('\n');
  const last = lines.findIndex((line) => line.includes('"place":"tiny/vqa/vead/seed-2"'));
  writeFileSync(column, lines.with(last, lines[last]!.replace(/"sigma":[\d.]+/g, '"sigma":9')).join('\n'));
  const stale = await visedit(words('killed'));
  expect(stale.code).toBe(1);
  expect(stale.stderr).toMatch(/vead\/seed-2 .* made with other settings/);
  expect(stale.stderr).toContain('settings.sigma: there 9, here 0.7');
  writeFileSync(column, made);
  const one = [
    ...words('killed').slice(0, 6),
    '--editor',
    'ft-l',
    '--dataset',
    'vqa',
    '--limit',
    '5',
    '--redo',
    '--out',
    at('killed'),
  ];
  const redone = await visedit(one);
  expect(redone.code).toBe(0);
  // It no longer belongs to its column, which says so.
  expect(redone.stderr).toContain('tiny/vqa/ft-l/once is left out');
  const finished = await visedit(['reproduce', 'table1', '--finished', '--out', at('killed'), '--json']);
  expect((JSON.parse(finished.stdout) as { columns: Column[] }).columns[0]!.entries.map(({ editor }) => editor)).toEqual([
    'vead',
  ]);
  expect((await visedit(['reproduce', 'table1', '--finished', '--out', at('none')])).stderr).toContain('no finished cells');
}, 300_000);

test('the published protocol is in every manifest; fine-tuning stands there after fewer steps, and doing nothing has a row', async () => {
  const out = at('published');
  const asked = ['reproduce', 'table1', '--model', at('tiny'), '--world', at('world'), '--editor', 'ft-l', '--dataset', 'vqa'];
  const { code, stderr } = await visedit([...asked, '--protocol', 'published', '--limit', '4', '--threads', '1', '--out', out]);
  expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' });
  const cells = readCells(out);
  expect(cells.map(({ place }) => place)).toEqual([
    'tiny/vqa/ft-l/once',
    ...[1, 3, 5].map((steps) => `tiny/vqa/ft-l/steps-${steps}/once`),
  ]);
  for (const { manifest } of cells) expect(manifest.identity.protocol.name).toBe('published');
  expect(cells[1]!.manifest.identity.editor).toEqual({ id: 'ft-l', seed: null, edit: { steps: 1 } });
  const rows = readFileSync(join(out, 'table1.md'), 'utf8')
    .split('\n')
    .map((line) => line.split('|')[3]?.trim());
  expect(rows.slice(2, 7)).toEqual(['no edit', 'ft-l', 'ft-l, 1 step', 'ft-l, 3 steps', 'ft-l, 5 steps']);
  // Cells of the other protocol do not count as finished, and those from before protocols had names are tuned.
  const again = await visedit([...asked, '--limit', '4', '--threads', '1', '--out', out]);
  expect(again.stderr).toContain('protocol.name: there "published", here "tuned"');
  expect(readCells(at('whole'))[0]!.manifest.identity.protocol.name).toBe('tuned');
}, 120_000);

test('records are found by name or in either layout of a folder; what is missing is said', async () => {
  const official = at('official');
  mkdirSync(join(official, 'caption'), { recursive: true });
  copyFileSync(at('world/caption_train.json'), join(official, 'caption/caption_train_edit.json'));
  copyFileSync(at('world/caption_test.json'), join(official, 'caption/caption_eval_edit.json'));
  const found = await tableData({ folder: official, images: at('world/images') }, { out: at('none') }, () => {});
  expect(found.files).toEqual({
    caption: {
      train: join(official, 'caption/caption_train_edit.json'),
      test: join(official, 'caption/caption_eval_edit.json'),
    },
  });
  const request = { model: at('tiny'), dataset: 'caption', editor: 'ft-l', seed: 1, shipped: true } as const;
  const options = { out: at('captions'), data: found, limit: 2, threads: 1, command: '', log: () => {} };
  const [cell] = await runCells([request], options);
  expect(cell).toMatchObject({ place: 'tiny/caption/ft-l/once', manifest: { identity: { protocol: { maxNewTokens: 24 } } } });
  await expect(runCells([{ ...request, dataset: 'vqa' }], options)).rejects.toThrow('no records of E-VQA');
  const test = await tableData({ vqa: [at('world/vqa_test.json')], images: at('world/images') }, { out: at('none') }, () => {});
  await expect(runCells([{ ...request, dataset: 'vqa', editor: 'mend' }], { ...options, data: test })).rejects.toThrow(
    'mend has to be trained and there are no training records of E-VQA',
  );
  await expect(tableData({ vqa: [at('world/vqa_test.json')] }, { out: at('none') }, () => {})).rejects.toThrow(
    'name it with --images',
  );
  await expect(tableData({ folder: at('tiny') }, { out: at('none') }, () => {})).rejects.toThrow(
    'looked for: vqa_test.json, vqa_eval.json',
  );
});

test('a training that comes before another is done first, on records of its own, and the other goes on from its weights', async () => {
  const data = await tableData({ folder: at('world') }, { out: at('drawn') }, () => {});
  const request = {
    ...{ model: at('tiny'), dataset: 'vqa' as const, editor: 'vead', seed: 1, shipped: false },
    training: { steps: 2, settings: { routing: 0 }, from: { steps: 3, records: 6, settings: { routing: 0 } } },
  };
  const options = { out: at('stages'), data, limit: 2, threads: 1, command: 'test', log: () => {} };
  const [cell] = await runCells([request], options);
  const { settings } = cell!.manifest.weights!;
  expect(settings).toMatchObject({ steps: 2, records: 12 });
  const folders = readdirSync(at('stages', 'work', 'training')).map((name) => at('stages', 'work', 'training', name));
  expect(folders).toHaveLength(2);
  const earlier = folders.map((folder) => readEditorWeights(trainedWeights(folder))).find((one) => one.settings.steps === 3)!;
  expect(earlier.settings).toMatchObject({ records: 6 });
  expect(settings.startWeights).toBe(fingerprintOf(earlier));
  expect(cell!.training).toMatchObject({ finished: true });
  expect(await runCells([request], options)).toEqual([cell]);
});
