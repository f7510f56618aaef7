/** Rows laid out for a terminal. */
import { createRequire } from 'node:module';
import type CliTable3 from 'cli-table3';
import { visible } from '../../src/files/visible.ts';

export interface Table {
  head: readonly string[];
  rows: readonly (readonly (string | number | null | undefined)[])[];
  /** By column; numbers go right and words left when absent. */
  align?: readonly ('left' | 'right' | 'center')[];
}

/** Characters of a cell: prompts and answers may be of any length, and --json has them whole. */
const longest = 60;
const shortened = (text: string): string => (text.length > longest ? `${text.slice(0, longest - 1)}…` : text);

export function table({ head, rows, align }: Table): string {
  // Loaded when the first table is laid out: it would slow down every start of the program.
  const Layout = createRequire(import.meta.url)('cli-table3') as typeof CliTable3;
  const numeric = head.map(
    (_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === 'number' || row[column] == null),
  );
  const layout = new Layout({
    head: [...head],
    colAligns: head.map((_, column) => align?.[column] ?? (numeric[column] ? 'right' : 'left')),
    style: { head: [], border: [], compact: true },
    chars: {
      top: '',
      'top-mid': '',
      'top-left': '',
      'top-right': '',
      bottom: '',
      'bottom-mid': '',
      'bottom-left': '',
      'bottom-right': '',
      left: '',
      'left-mid': '',
      right: '',
      'right-mid': '',
      mid: '-',
      'mid-mid': '-',
      middle: ' ',
    },
  });
  const cell = (content: string | number | null | undefined): string =>
    shortened(visible(String(content ?? '')).replaceAll('\n', '\\n'));
  for (const row of rows) layout.push(head.map((_, column) => cell(row[column])));
  const lines = layout
    .toString()
    .split('\n')
    .map((line) => line.trimEnd());
  const width = Math.max(...lines.map((line) => line.length));
  return [lines[0] ?? '', '-'.repeat(width), ...lines.slice(1).filter((line) => !/^-+$/.test(line) || rows.length === 0)].join(
    '\n',
  );
}
