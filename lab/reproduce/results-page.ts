/**
 * The page that sets results beside the paper's. Sections are written between `<!-- NAME -->` and `<!-- end -->`; what stands outside of them, such as
 * why something does not hold, is people's and stays.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { SequentialIdentity, SequentialPoint } from '../../src/evaluation/sequential.ts';
import { sequentialRows, toMarkdown } from '../../src/evaluation/tables.ts';
import { anyObject, readJsonAs } from '../../src/files/schema.ts';
import type { LogLine } from '../../src/nn/loop.ts';
import { type Cell, readCells } from './cell-store.ts';
import { type Column, columnsOf, entryName, significance, VEAD, veadIsBest } from './columns.ts';
import { datasets } from './data.ts';
import type { Claim } from './figures/figure.ts';
import { ablationFigures, ablationFindings, columnFigures, editorFindings, layerFigures, layerFindings } from './findings.ts';
import { orderSection } from './orderings.ts';
import { paperTable2, paperTable3 } from './paper-tables.ts';
import { averageRows, caption, detailRows, paperRows, pText } from './table-files.ts';
import { isOfTable1 } from './table1.ts';
import { type Table2, table2Rows } from './table2.ts';
import { ablations, type Table3, table3Rows } from './table3.ts';
import { type LifelongRow, lifelongRows, table5Rows } from './table5.ts';

export interface Results {
  readonly cells: readonly Cell[];
  readonly columns: readonly Column[];
  readonly table2?: Table2 | undefined;
  readonly table3?: Table3 | undefined;
  /** tables under another protocol or on another world, by their folder's name */
  readonly others: readonly { readonly name: OtherTable; readonly columns: readonly Column[] }[];
  readonly lifelong: readonly LifelongRow[];
  readonly sequential: readonly { readonly identity: SequentialIdentity; readonly points: readonly SequentialPoint[] }[];
}

/** Folders with cells as of Table 1, and the titles of their sections. */
const otherTables = {
  published: 'Table 1 with published settings',
  hard: 'The hard world',
} as const;
type OtherTable = keyof typeof otherTables;
const sectionOf = (name: OtherTable): string => name.toUpperCase();

/**
 * Reads what is finished below a folder: table1/ (its cells), published/ and hard/ (likewise), table2/table2.json, table3/table3.json, table5/ (its cells), sequential/NAME/.
 */
export function readTables(from: string, warn: (text: string) => void): Results {
  const cells = readCells(join(from, 'table1'));
  const json = <T>(...parts: string[]): T | undefined => {
    const path = join(from, ...parts);
    return existsSync(path) ? (readJsonAs(path, anyObject) as unknown as T) : undefined;
  };
  const runs = existsSync(join(from, 'sequential')) ? readdirSync(join(from, 'sequential')).sort() : [];
  return {
    cells,
    columns: columnsOf(cells, warn),
    table2: json<Table2>('table2', 'table2.json'),
    table3: json<Table3>('table3', 'table3.json'),
    others: (Object.keys(otherTables) as OtherTable[]).map((name) => ({
      name,
      columns: columnsOf(
        readCells(join(from, name)).filter(({ place }) => isOfTable1(place)),
        warn,
      ),
    })),
    lifelong: lifelongRows(readCells(join(from, 'table5'))),
    sequential: runs.flatMap((name) => {
      const summary = json<{ points: SequentialPoint[] }>('sequential', name, 'summary.json');
      const manifest = json<{ identity: SequentialIdentity }>('sequential', name, 'manifest.json');
      return summary === undefined || manifest === undefined ? [] : [{ identity: manifest.identity, points: summary.points }];
    }),
  };
}

const verdict = (holds: boolean | null): string => (holds === null ? 'not measured' : holds ? '**yes**' : '**no**');
const table = (head: readonly string[], rows: readonly (readonly (string | number)[])[], left = 1): string =>
  toMarkdown({ head, rows, align: head.map((_, i) => (i < left ? 'left' : 'right')) });
const two = (x: number): string => x.toFixed(2);

/** Every finding of the paper that the results can say something about. */
export function findings({ columns, table2, table3 }: Results): Claim[] {
  return [
    ...(columns.length === 0
      ? []
      : [...editorFindings(columns.map((column) => columnFigures(column))), significanceClaim(columns)]),
    ...(table2 === undefined ? [] : layerFindings(layerFigures(table2))),
    ...(table3 === undefined ? [] : ablationFindings(ablationFigures(table3))),
  ];
}

function significanceClaim(columns: readonly Column[]): Claim {
  const judged = columns.map((column) => ({ column, best: veadIsBest(column) })).filter(({ best }) => best !== null);
  const not = judged.flatMap(({ column, best }) =>
    best
      ? []
      : [
          `${column.model} ${datasets[column.dataset]} (${column.entries
            .filter(({ editor, against }) => editor !== VEAD && (against!.difference >= 0 || against!.p >= significance))
            .map(
              ({ against, ...entry }) => `${entryName(entry)}: ${two(100 * against!.difference)} points, p ${pText(against!.p)}`,
            )
            .join(', ')})`,
        ],
  );
  return {
    claim: `the improvements over every other editor are significant (p < ${significance})`,
    holds: judged.length === 0 ? null : not.length === 0,
    measured: `${judged.length - not.length} of ${judged.length} columns by a paired t-test over edits${not.length === 0 ? '' : `; not on ${not.join('; ')}`}`,
  };
}

/** The page's sections by name, those that there are results for. */
export function sections(results: Results): Map<string, string> {
  const { columns, table2, table3, sequential } = results;
  const made = new Map<string, string>();
  const found = findings(results);
  if (found.length > 0)
    made.set(
      'FINDINGS',
      table(
        ['The paper finds', 'Here', 'Figures'],
        found.map(({ claim, holds, measured }) => [claim, verdict(holds), measured]),
        3,
      ),
    );
  if (columns.length > 0) {
    made.set('AVERAGES', toMarkdown(averageRows(columns)));
    made.set('TABLE1', `${toMarkdown(paperRows(columns))}\n${caption}\n`);
    made.set('ORDER', orderSection(columns));
    made.set('DETAILS', `${toMarkdown(detailRows(columns))}\n${costsText(results)}\n`);
    const curves = curveSection(results);
    if (curves !== undefined) made.set('CURVES', curves);
  }
  if (table2 !== undefined) {
    const paper = table(
      ['Layer', 'average'],
      paperTable2.map(({ layer, figures }) => [layer, two(figures[5])]),
    );
    made.set('TABLE2', `${toMarkdown(table2Rows(table2))}\nOf the paper (BLIP2-OPT, 32 layers):\n\n${paper}`);
  }
  if (table3 !== undefined) {
    const own = table3Rows(table3);
    const paper = table3.rows.map(({ ablation }) => two(paperTable3[ablation][5]));
    const rows = own.rows.map((row, i) => [...row, paper[i]!]);
    made.set(
      'TABLE3',
      `${table([...own.head, 'average in the paper'], rows)}\n*: below ${ablations.full.name}'s figure by a paired t-test over edits, p < ${significance}.\n`,
    );
  }
  for (const { name, columns: others } of results.others)
    if (others.length > 0) made.set(sectionOf(name), `${toMarkdown(paperRows(others))}\n${caption}\n\n${orderSection(others)}`);
  if (results.lifelong.length > 0)
    made.set(
      'LIFELONG',
      `${toMarkdown(table5Rows(results.lifelong))}\nPercentages, with so many edits in the model, over all records of all runs. Published average: LiveEdit's Table 1, of the backbone that the mini is a small sister of.\n`,
    );
  if (sequential.length > 0) made.set('SEQUENTIAL', sequentialSection(sequential));
  return made;
}

/** For each backbone and data set the averages at a glance, the editor that keeps the most first, then every metric. */
function sequentialSection(runs: Results['sequential']): string {
  const groups = new Map<string, Results['sequential'][number][]>();
  for (const run of runs) {
    const title = `${run.identity.model.name}, ${datasets[run.identity.data.kind]}`;
    groups.set(title, [...(groups.get(title) ?? []), run]);
  }
  return [...groups]
    .map(([title, members]) => {
      const kept = ({ points }: (typeof members)[number]): number => points.at(-1)?.evaluation.average ?? 0;
      const sorted = [...members].sort((a, b) => kept(b) - kept(a));
      const counts = [...new Set(sorted.flatMap(({ points }) => points.map(({ edits }) => edits)))].sort((a, b) => a - b);
      const averages = sorted.map(({ identity, points }) => [
        identity.editor.id,
        identity.sequential.madeOn,
        ...counts.map((count) => {
          const point = points.find(({ edits }) => edits === count);
          return point === undefined ? '' : two(100 * point.evaluation.average);
        }),
      ]);
      const details = sorted.map(({ identity, points }) => ({ editor: identity.editor.id, ...sequentialRows(points) }));
      return [
        `**${title}**: average after so many edits, over all of them.\n`,
        table(['Editor', 'Each edit is made on', ...counts.map(String)], averages, 2),
        table(
          ['Editor', ...details[0]!.head],
          details.flatMap(({ editor, rows }) => rows.map((row) => [editor, ...row])),
        ),
      ].join('\n');
    })
    .join('\n');
}

function costsText({ cells }: Results): string {
  const sum = (of: (cell: Cell) => number): number => cells.reduce((total, cell) => total + of(cell), 0);
  const training = sum(({ manifest }) => manifest.seconds.training ?? 0);
  const evaluation = sum(({ manifest }) => manifest.seconds.evaluation);
  const time = (seconds: number): string =>
    seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
  return `All ${cells.length} cells took ${time(training + evaluation)}: ${time(training)} of training, ${time(evaluation)} of evaluation. "s per edit" is the time to make it, "s asking" that of all its queries; private memory is that of the process.`;
}

/** How much the mean loss of the last fifth of a training's steps is below that of the fifth before. */
export interface LateFall {
  /** as a fraction of the fifth before */
  readonly ofLoss: number;
  /** as a fraction of the fall from the first line to the last fifth; null where the loss did not fall */
  readonly ofFall: number | null;
}

export function lateFall(curve: readonly Pick<LogLine, 'step' | 'loss'>[]): LateFall | null {
  const last = curve.at(-1)?.step;
  if (last === undefined) return null;
  const meanOf = (from: number, to: number): number | null => {
    const lines = curve.filter(({ step }) => step > from * last && step <= to * last);
    return lines.length === 0 ? null : lines.reduce((sum, { loss }) => sum + loss, 0) / lines.length;
  };
  const [before, after] = [meanOf(0.6, 0.8), meanOf(0.8, 1)];
  if (before === null || after === null || before === 0) return null;
  const whole = curve[0]!.loss - after;
  return { ofLoss: (before - after) / before, ofFall: whole > 0 ? (before - after) / whole : null };
}

const percent = (x: number): string => `${(100 * x).toFixed(1)} %`;

function curveSection({ cells }: Results): string | undefined {
  const rows = cells.flatMap(({ manifest, curve }) => {
    if (curve === undefined) return [];
    const fall = lateFall(curve);
    const { model, data, editor } = manifest.identity;
    return fall === null
      ? []
      : [
          [
            model.name,
            datasets[data.kind],
            editor.id,
            editor.seed ?? '',
            curve.at(-1)!.step,
            two(curve.at(-1)!.loss),
            percent(fall.ofLoss),
            fall.ofFall === null ? '' : percent(fall.ofFall),
          ],
        ];
  });
  if (rows.length === 0) return undefined;
  const head = ['Backbone', 'Data', 'Editor', 'Seed', 'Steps', 'Loss at the end', 'Fall in the last fifth', 'Of the whole fall'];
  return `${table(head, rows, 3)}\nThe fall is that of the mean loss from the fourth fifth of the steps to the last: as a part of itself, and of the fall from the first line of the curve. A loss near zero halves its last thousandths and is flat all the same.\n`;
}

const titles: Readonly<Record<string, string>> = {
  FINDINGS: 'Findings',
  AVERAGES: 'Averages',
  TABLE1: 'Tables 1 and 4: editors',
  ORDER: 'Orderings',
  DETAILS: 'Differences to VEAD, and costs',
  CURVES: 'Trainings',
  TABLE2: 'Table 2: insert layers',
  TABLE3: 'Table 3: ablation',
  LIFELONG: 'Table 5: edits that stay',
  SEQUENTIAL: 'Sequential editing',
  ...Object.fromEntries(Object.entries(otherTables).map(([name, title]) => [sectionOf(name as OtherTable), title])),
};

const START = `# Results beside the paper's

Written by \`visedit reproduce compare\` from the finished cells in \`results/\`; what stands between the marked sections is kept.
`;

/** The page with its sections renewed; those it lacks are added at its end. */
export function renewed(page: string | undefined, made: ReadonlyMap<string, string>): string {
  let text = page ?? START;
  for (const [name, content] of made) {
    const block = `<!-- ${name} -->\n${content.trim()}\n<!-- end -->`;
    const start = text.indexOf(`<!-- ${name} -->`);
    const end = start < 0 ? -1 : text.indexOf('<!-- end -->', start);
    if (start >= 0 && end < 0) throw new Error(`the section ${name} of the page has no <!-- end -->; put it back`);
    text =
      start < 0
        ? `${text.trimEnd()}\n\n## ${titles[name] ?? name}\n\n${block}\n`
        : `${text.slice(0, start)}${block}${text.slice(end + '<!-- end -->'.length)}`;
  }
  return text;
}
