/** The rules of the findings on the paper's own figures, where all of them hold, and on figures where they do not; the page that they are written to. */
import { expect, test } from 'vitest';
import type { Column } from '../../lab/reproduce/columns.ts';
import {
  ablationFindings,
  editorFindings,
  layerFindings,
  paperAblation,
  paperColumns,
  paperLayers,
} from '../../lab/reproduce/findings.ts';
import { budgetOrderings, ordering } from '../../lab/reproduce/orderings.ts';
import { paperModelOf, paperTable1, paperTable2, paperTable3 } from '../../lab/reproduce/paper-tables.ts';
import { lateFall, type Results, renewed, sections } from '../../lab/reproduce/results-page.ts';

test("the paper's averages are those of its five metrics", () => {
  const rows = [
    ...Object.values(paperTable1).flatMap((data) => Object.values(data).flatMap((editors) => Object.values(editors))),
    ...paperTable2.map(({ figures }) => figures),
    ...Object.values(paperTable3),
  ];
  expect(rows).toHaveLength(6 * 9 + 7 + 6);
  for (const [a, b, c, d, e, average] of rows) expect(Math.abs((a + b + c + d + e) / 5 - average)).toBeLessThan(0.011);
});

test("every finding holds on the paper's figures", () => {
  const found = [...editorFindings(paperColumns()), ...layerFindings(paperLayers()), ...ablationFindings(paperAblation())];
  expect(found).toHaveLength(10);
  for (const { claim, holds, measured } of found) expect(holds, `${claim}: ${measured}`).toBe(true);
});

test('findings can fail, and say on what', () => {
  const columns = paperColumns();
  const [first] = columns;
  const editors = new Map(first!.editors);
  editors.set('lte', { ...editors.get('lte')!, average: 99 });
  editors.set('ike', { ...editors.get('ike')!, modalLocality: 95 });
  editors.set('ft-l', { ...editors.get('ft-l')!, modalGenerality: 88 });
  const [best, fineTuning, lost] = editorFindings([{ ...first!, editors }]);
  expect(best).toMatchObject({ holds: false, measured: '0 of 1 columns; not on blip2-opt E-VQA: lte 99.0 against 97.5' });
  expect(fineTuning).toMatchObject({ holds: false });
  expect(fineTuning!.measured).toMatch(/^1 of 2 rows; not: ft-l on blip2-opt E-VQA: T-Gen 16\.4, M-Gen 88\.0/);
  expect(lost!.measured).toBe('1 of 2 rows; not: ike on blip2-opt E-VQA: M-Loc 95.0');
  const twice = editorFindings(
    [80, 95].map((modalLocality, i) => {
      const row = { ...editors.get('ike')!, modalLocality };
      return { ...first!, name: `column ${i}`, editors: new Map([...editors, ['ike', row]]) };
    }),
  );
  expect(twice[2]!.measured).toBe('2 of 4 rows; not: ike on 2 columns: M-Loc 80.0 to 95.0');
  const few = editorFindings([{ ...first!, editors: new Map([...editors].filter(([id]) => id === 'vead' || id === 'ft-v')) }]);
  expect(few.map(({ holds }) => holds)).toEqual([true, null, null, null, null]);
  const layers = paperLayers();
  expect(layerFindings(layers.slice(0, 5)).map(({ holds }) => holds)).toEqual([false]);
  expect(layerFindings(layers.slice(0, 2))[0]).toMatchObject({ holds: null });
  const rows = new Map(paperAblation());
  rows.set('no-ca', rows.get('full')!);
  rows.delete('no-im');
  expect(ablationFindings(rows).map(({ holds }) => holds)).toEqual([false, null, true, true]);
});

test('orderings: pairs that stand as in the paper, and those that do not', () => {
  const [paper] = paperColumns();
  const editors = new Map([...paper!.editors].filter(([id]) => ['ft-v', 'mend', 'vead'].includes(id)));
  const same = ordering({ ...paper!, editors }, paper!);
  expect(same).toMatchObject({ held: 3, pairs: 3, turned: [], tau: 1 });
  expect(same.rows.map(({ editor, rank }) => [editor, rank])).toEqual([
    ['vead', 1],
    ['mend', 2],
    ['ft-v', 3],
  ]);
  editors.set('ft-v', { ...editors.get('ft-v')!, average: 90 });
  const other = ordering({ ...paper!, editors }, paper!);
  expect(other).toMatchObject({ held: 2, turned: ['ft-v above mend'] });
  expect(other.tau).toBeCloseTo(1 / 3, 12);
});

test('orderings by the budget of fine-tuning: each that was measured, and the one that is nearest to the paper', () => {
  const paper = paperColumns().find(({ name }) => name === 'llava E-VQA')!;
  const entry = (editor: string, average: number, variant?: string) => {
    const spread = { mean: average / 100, deviation: 0 };
    const metrics = ['reliability', 'textGenerality', 'modalGenerality', 'textLocality', 'modalLocality', 'average'];
    return {
      editor,
      ...(variant === undefined ? {} : { variant }),
      forced: Object.fromEntries(metrics.map((name) => [name, spread])),
    };
  };
  const column = {
    model: 'mini-llava',
    dataset: 'vqa',
    entries: [
      ...[entry('ft-l', 98), entry('ft-l', 40, 'steps-1'), entry('ft-l', 57, 'steps-3')],
      ...[entry('ft-v', 70), entry('ft-v', 56, 'steps-1'), entry('ft-v', 60, 'steps-3')],
      ...[entry('tp', 64), entry('vead', 95)],
    ],
  } as unknown as Column;
  const found = budgetOrderings(column, paper);
  expect(found.map(({ variants, nearest }) => [variants['ft-l'], variants['ft-v'], nearest])).toEqual([
    [undefined, undefined, false],
    ['steps-1', 'steps-1', false],
    ['steps-3', 'steps-3', false],
    ['steps-3', 'steps-1', true],
  ]);
  // The paper: vead, tp, ft-l, ft-v. With all steps ft-l stands above both others, and ft-v above tp.
  const [whole, one, three, nearest] = found.map(({ tau }) => tau!);
  expect(whole).toBeCloseTo(0, 12);
  expect([one, three]).toEqual([expect.closeTo(2 / 3, 12), expect.closeTo(2 / 3, 12)]);
  expect(nearest).toBeCloseTo(1, 12);
  expect(budgetOrderings({ ...column, entries: column.entries.filter(({ variant }) => variant === undefined) }, paper)).toEqual(
    [],
  );
});

test('a mini is compared with its large sister', () => {
  expect(['mini-llava', 'mini-blip2-opt', 'MiniGPT-4', 'llava-1.5-7b-hf', 'gpt'].map(paperModelOf)).toEqual([
    'llava',
    'blip2-opt',
    'minigpt4',
    'llava',
    undefined,
  ]);
});

test('a page keeps what people wrote around its sections', () => {
  const first = renewed(undefined, new Map([['TABLE1', '| a |']]));
  expect(first).toContain('## Tables 1 and 4: editors\n\n<!-- TABLE1 -->\n| a |\n<!-- end -->\n');
  const explained = `${first}\nBecause of this.\n`;
  const second = renewed(
    explained,
    new Map([
      ['TABLE1', '| b |'],
      ['FINDINGS', 'none'],
    ]),
  );
  expect(second).toContain('<!-- TABLE1 -->\n| b |\n<!-- end -->\n\nBecause of this.\n\n## Findings\n\n<!-- FINDINGS -->\nnone');
  expect(second).not.toContain('| a |');
  expect(() => renewed('<!-- TABLE1 -->', new Map([['TABLE1', 'x']]))).toThrow('has no <!-- end -->');
});

test('a curve that has flattened falls little in its last fifth', () => {
  const curve = (loss: (step: number) => number) =>
    Array.from({ length: 40 }, (_, i) => ({ step: 10 * (i + 1), loss: loss(10 * (i + 1)) }));
  expect(lateFall(curve(() => 0.3))).toEqual({ ofLoss: 0, ofFall: null });
  expect(lateFall(curve((step) => (step <= 320 ? 2 : 1)))).toEqual({ ofLoss: 0.5, ofFall: 1 });
  expect(lateFall(curve((step) => (step <= 10 ? 5 : step <= 320 ? 2 : 1)))).toEqual({ ofLoss: 0.5, ofFall: 0.25 });
  expect(lateFall([])).toBeNull();
});

test('edits that stay: the editor that keeps the most stands first, and a count that was not asked is left empty', () => {
  const run = (editor: string, averages: Record<number, number>) =>
    ({
      identity: {
        editor: { id: editor },
        model: { name: 'mini-llava' },
        data: { kind: 'vqa' },
        sequential: { edits: 100, madeOn: `what ${editor} needs` },
      },
      points: Object.entries(averages).map(([edits, average]) => ({
        edits: Number(edits),
        evaluation: {
          reliability: average,
          textGenerality: average,
          modalGenerality: average,
          textLocality: average,
          modalLocality: average,
          average,
          generation: { average },
        },
      })),
    }) as unknown as Results['sequential'][number];
  const results: Results = {
    cells: [],
    columns: [],
    others: [],
    lifelong: [],
    sequential: [run('vead', { 1: 0.9, 10: 0.4 }), run('tp', { 1: 0.8, 100: 0.5 })],
  };
  const text = sections(results).get('SEQUENTIAL')!;
  expect(text).toContain('**mini-llava, E-VQA**');
  expect(text).toContain('| Editor | Each edit is made on | 1 | 10 | 100 |');
  expect(text).toContain('| tp | what tp needs | 80.00 |  | 50.00 |\n| vead | what vead needs | 90.00 | 40.00 |  |');
  expect(text.match(/^\| vead \|/gm)).toHaveLength(1 + 2);
});
