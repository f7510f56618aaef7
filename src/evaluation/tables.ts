/** Evaluations as rows of a table, in the paper's columns and as percentages: plain rows for a terminal, Markdown for a page. */

import { queryKinds } from '../input/records.ts';
import { type AskedKind, type Evaluation, type Figures, hardKinds } from './metrics.ts';
import type { Interval } from './statistics.ts';

export const columnNames = {
  reliability: 'Rel',
  textGenerality: 'T-Gen',
  modalGenerality: 'M-Gen',
  textLocality: 'T-Loc',
  modalLocality: 'M-Loc',
  average: 'Average',
  sameImage: 'same image',
  sameQuestion: 'same question',
  noise: 'noise',
  grey: 'grey picture',
} as const;

const five = [...queryKinds, 'average'] as const;

export interface Rows {
  readonly head: readonly string[];
  readonly rows: readonly (readonly (string | number)[])[];
  /** the first column names, all others hold figures */
  readonly align: readonly ('left' | 'right')[];
}

const percent = (x: number | null): string => (x === null ? '' : (100 * x).toFixed(2));
const aligned = (head: readonly string[]): Rows['align'] => head.map((_, i) => (i === 0 ? 'left' : 'right'));

/** One evaluation under each protocol: token accuracy, free generation, the change of the target's probability; then token accuracy by group. */
export function evaluationRows(evaluation: Evaluation): Rows {
  const asked = hardKinds.filter((kind) => evaluation.hard[kind] != null);
  const head = ['%', ...five.map((name) => columnNames[name]), ...asked.map((name) => columnNames[name]), 'records'];
  const row = (name: string, { hard, count, ...figures }: Figures): (string | number)[] => [
    name,
    ...five.map((metric) => percent(figures[metric])),
    ...asked.map((kind) => percent(hard[kind])),
    count,
  ];
  const { generation, probability, count } = evaluation;
  const change = (kind: AskedKind): string => percent(probability[kind]?.change ?? null);
  const groups = [...Object.entries(evaluation.edits), ...Object.entries(evaluation.kinds)];
  return {
    head,
    align: aligned(head),
    rows: [
      row('teacher-forced tokens', evaluation),
      row('free generation', {
        ...generation,
        generation,
        count,
        hard: generation,
      }),
      ['target probability, change', ...queryKinds.map(change), '', ...asked.map(change), count],
      ...groups.map(([name, figures]) => row(`  ${name}`, figures)),
    ],
  };
}

/** Teacher-forced metrics after so many edits that stay, the average by free generation, and that of each edit at its own moment. */
export function sequentialRows(
  points: readonly {
    readonly edits: number;
    readonly evaluation: Figures;
    readonly interval?: Interval | null | undefined;
    readonly own?: Figures | undefined;
  }[],
): Rows {
  const own = points.some((point) => point.own !== undefined);
  const between = points.some(({ interval }) => interval != null);
  const head = [
    'edits',
    ...five.map((name) => columnNames[name]),
    ...(between ? ['95 %'] : []),
    'Average, free generation',
    ...(own ? ['Average, own moment'] : []),
    'records',
  ];
  return {
    head,
    align: head.map(() => 'right'),
    rows: points.map(({ edits, evaluation, interval, own: then }) => [
      edits,
      ...five.map((metric) => percent(evaluation[metric])),
      ...(between ? [interval == null ? '' : `${percent(interval.low)} to ${percent(Math.min(1, interval.high))}`] : []),
      percent(evaluation.generation.average),
      ...(own ? [percent(then?.average ?? null)] : []),
      evaluation.count,
    ]),
  };
}

export function toMarkdown({ head, rows, align }: Rows): string {
  const line = (cells: readonly (string | number)[]): string =>
    `| ${cells.map((cell) => String(cell).trim().replaceAll('|', '\\|')).join(' | ')} |`;
  const rule = `|${align.map((side) => (side === 'right' ? '---:' : '---')).join('|')}|`;
  return `${[line(head), rule, ...rows.map(line)].join('\n')}\n`;
}

/** A `tabular` with booktabs' rules; `**x**` becomes bold, and ± and × their signs. */
export function toLatex({ head, rows, align }: Rows): string {
  const cell = (given: string | number): string =>
    String(given)
      .trim()
      .replace(/[\\&%$#_{}~^]/g, (sign) =>
        sign === '\\' ? '\\textbackslash{}' : sign === '~' || sign === '^' ? `\\${sign}{}` : `\\${sign}`,
      )
      .replace(/\*\*(.+?)\*\*/g, '\\textbf{$1}')
      .replaceAll('±', '$\\pm$')
      .replaceAll('−', '$-$')
      .replaceAll('ℓ', '$\\ell$')
      .replaceAll('↓', '$\\downarrow$')
      .replaceAll('↑', '$\\uparrow$');
  const line = (cells: readonly (string | number)[]): string => `${cells.map(cell).join(' & ')} \\\\`;
  return `${[
    `\\begin{tabular}{${align.map((side) => (side === 'right' ? 'r' : 'l')).join('')}}`,
    '\\toprule',
    line(head),
    '\\midrule',
    ...rows.map(line),
    '\\bottomrule',
    '\\end{tabular}',
  ].join('\n')}\n`;
}

/** RFC 4180, lines ended by a line feed. */
export function toCsv({ head, rows }: Pick<Rows, 'head' | 'rows'>): string {
  const cell = (given: string | number): string => {
    const text = String(given);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return `${[head, ...rows].map((row) => row.map(cell).join(',')).join('\n')}\n`;
}
