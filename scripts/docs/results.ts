/** Tables of the committed results: `results/MODEL/exam.json` and the finished cells of `results/table1`. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readCells } from '../../lab/reproduce/cell-store.ts';
import { type Column, columnsOf } from '../../lab/reproduce/columns.ts';
import { datasetKinds, datasets } from '../../lab/reproduce/data.ts';
import { averageRows, paperRows } from '../../lab/reproduce/table-files.ts';
import { pairKinds } from '../../lab/world/pairs.ts';
import { findShippedWeights } from '../../src/editors/shipped.ts';
import type { Rows } from '../../src/evaluation/tables.ts';
import { toMarkdown } from '../../src/evaluation/tables.ts';
import { builtInModels } from '../../src/models/load.ts';

interface Exam {
  readonly overall: number;
  readonly kinds: Readonly<Record<string, number>>;
}

const examColumns: Readonly<Record<string, string>> = {
  ...{ place: 'place', where: 'where', relation: 'relation', category: 'category', exists: 'is there', count: 'count' },
  ...{ background: 'background', kind: 'kind of thing', caption: 'caption' },
};

const aligned = (head: readonly string[], names: number): Rows['align'] => head.map((_, i) => (i < names ? 'left' : 'right'));

function examTable(root: string): Rows {
  const rows = builtInModels.flatMap((model) => {
    const exam = JSON.parse(readFileSync(join(root, 'results', model, 'exam.json'), 'utf8')) as Exam & {
      readonly facts: number;
      readonly shuffled: Exam;
    };
    const percent = (x: number): string => (100 * x).toFixed(1);
    const kinds = (of: Exam): string[] => Object.keys(examColumns).map((kind) => percent(of.kinds[kind]!));
    return [
      [model, `**${percent(exam.overall)}**`, ...kinds(exam), percent(exam.facts)],
      ['&nbsp; other picture', percent(exam.shuffled.overall), ...kinds(exam.shuffled), ''],
    ];
  });
  const head = ['% right', 'all', ...Object.values(examColumns), 'facts, no picture'];
  return { head, align: aligned(head, 1), rows };
}

/** Questions about two pictures, in the order drawn and in the other. */
function pairsTable(root: string): Rows {
  const path = join(root, 'results', 'mini-qwen3-vl', 'exam.json');
  const { pairs } = JSON.parse(readFileSync(path, 'utf8')) as { readonly pairs: Readonly<Record<'inOrder' | 'swapped', Exam>> };
  const percent = (x: number): string => (100 * x).toFixed(1);
  const head = ['% right, mini-qwen3-vl', 'all', 'which has a thing', 'which has a background'];
  const rows = Object.entries({ 'as drawn': pairs.inOrder, 'in the other order': pairs.swapped }).map(([name, marks]) => [
    name,
    `**${percent(marks.overall)}**`,
    ...pairKinds.map((kind) => percent(marks.kinds[kind]!)),
  ]);
  return { head, align: aligned(head, 1), rows };
}

/** Of the paper's three backbones, and of mini-qwen3-vl, which was measured on fewer edits. */
const tableFolders = ['table1', 'table1-qwen3-vl'] as const;

/** VEAD with the weights that come with the minis. */
function veadTable(root: string): Rows {
  const head = ['Backbone', 'Data', 'Rel', 'T-Gen', 'M-Gen', 'T-Loc', 'M-Loc', 'Average', 'Average, free generation'];
  head.push('same picture, other question', 'same question, other picture', 'Edits');
  const percent = (x: number | null): string => (x === null ? '' : (100 * x).toFixed(2));
  const cells = tableFolders.flatMap((folder) => readCells(join(root, 'results', folder)));
  const rows = builtInModels.flatMap((model) =>
    datasetKinds.flatMap((dataset) => {
      if (findShippedWeights(model, 'vead', dataset) === undefined) return [];
      const place = `${model}/${dataset}/vead/seed-1`;
      const cell = cells.find((one) => one.place === place);
      if (cell === undefined)
        throw new Error(`results/table1/${place} is not there: visedit reproduce table1 --editor vead --out results/table1`);
      const { evaluation: e } = cell;
      const five = [e.reliability, e.textGenerality, e.modalGenerality, e.textLocality, e.modalLocality].map(percent);
      const hard = [e.hard.sameImage, e.hard.sameQuestion].map(percent);
      const cellsOfRow = [
        model,
        datasets[dataset],
        ...five,
        `**${percent(e.average)}**`,
        percent(e.generation.average),
        ...hard,
        e.count,
      ];
      return [cellsOfRow];
    }),
  );
  return { head, align: aligned(head, 2), rows };
}

/** The columns of one of the folders. */
const columnsIn = (root: string, folder: (typeof tableFolders)[number]): Column[] =>
  columnsOf(readCells(join(root, 'results', folder)), (text) => {
    throw new Error(text);
  });

const tables: Readonly<Record<string, (root: string) => Rows>> = {
  averages: (root) => averageRows(columnsIn(root, 'table1')),
  exam: examTable,
  pairs: pairsTable,
  qwen: (root) => paperRows(columnsIn(root, 'table1-qwen3-vl')),
  vead: veadTable,
};

export function resultsTable(name: string, root: string): string {
  const table = tables[name];
  if (table === undefined) throw new Error(`there is no table ${name} of results; tables: ${Object.keys(tables).join(', ')}`);
  return toMarkdown(table(root)).trimEnd();
}
