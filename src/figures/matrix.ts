/** Numbers of rows and columns as coloured cells, with words in them where there are some: logit lens, tracing, heads. */
import { type ScaleName, scaleColour } from './colours.ts';
import { colourBar } from './heat-panel.ts';
import { element, lineHeight, note, picture, textLines } from './svg.ts';
import { textWidth, wrap } from './text.ts';

/** Cells of rows and columns, as data of a figure. */
export interface MatrixFigure {
  rows: readonly string[];
  columns: readonly string[];
  /** By row; null: an empty cell. */
  values: readonly (readonly (number | null)[])[];
  /** A word in each cell; the numbers stand there when absent and cells are few. */
  texts?: readonly (readonly string[])[];
  title?: string;
  rowTitle?: string;
  columnTitle?: string;
  /** What a value is, with its unit. */
  scaleTitle?: string;
  /** Ends of the colours; from the data, and about zero where some are below it, when absent. */
  range?: readonly [number, number];
}

const size = 8;
const mostNumbers = 400;

/**
 * SVG text of a matrix.
 * @throws Error when it is empty, or rows and columns do not fit the values
 */
export async function matrix(figure: MatrixFigure): Promise<string> {
  const { rows, columns, values, title, rowTitle, columnTitle, scaleTitle = 'Value' } = figure;
  if (rows.length === 0 || columns.length === 0) throw new Error('a matrix needs at least one row and one column');
  if (values.length !== rows.length || values.some((row) => row.length !== columns.length))
    throw new Error(`a matrix of ${rows.length} rows and ${columns.length} columns has other values`);
  const [low, high] = figure.range ?? rangeOf(values);
  const colours: ScaleName = low < 0 ? 'red-blue' : 'viridis';
  const said =
    figure.texts ??
    (rows.length * columns.length > mostNumbers
      ? undefined
      : values.map((row) => row.map((value) => (value === null ? '' : shortly(value)))));
  const longest = Math.max(22, ...(said ?? []).flat().map((text) => textWidth(text, size) + 6));
  const cellWidth = said === undefined ? Math.max(4, Math.min(22, 560 / columns.length)) : Math.min(74, longest);
  const cellHeight = said === undefined ? Math.max(4, Math.min(14, 420 / rows.length)) : 14;
  const labels = rows.map((row) => wrap(row, 150, size, { maxLines: 1 })[0] ?? '');
  const labelWidth = Math.max(textWidth(rowTitle ?? '', size), ...labels.map((label) => textWidth(label, size))) + 8;
  const left = 6 + labelWidth;
  const width = Math.max(left + columns.length * cellWidth + 8, 190);
  const parts: string[] = [];
  let y = 6;
  if (title !== undefined) {
    const lines = wrap(title, width - 12, 10.5, { bold: true });
    parts.push(textLines(lines, 6, y + 9, { size: 10.5, bold: true }));
    y += lines.length * lineHeight(10.5) + 4;
  }
  if (columnTitle !== undefined || rowTitle !== undefined) {
    if (columnTitle !== undefined) parts.push(note([columnTitle], left, y + size, { size }));
    if (rowTitle !== undefined) parts.push(note([rowTitle], left - 4, y + 2 * size + 3, { size, anchor: 'end' }));
    y += lineHeight(size) + 1;
  }
  const everyColumn = Math.max(1, Math.ceil((Math.max(...columns.map((name) => textWidth(name, size))) + 4) / cellWidth));
  columns.forEach((name, i) => {
    if (i % everyColumn === 0) parts.push(textLines([name], left + (i + 0.5) * cellWidth, y + size, { size, anchor: 'middle' }));
  });
  y += lineHeight(size) + 2;
  const everyRow = Math.max(1, Math.ceil(10 / cellHeight));
  values.forEach((row, r) => {
    const top = y + r * cellHeight;
    if (r % everyRow === 0) parts.push(textLines([labels[r]!], left - 4, top + cellHeight / 2 + 3, { size, anchor: 'end' }));
    row.forEach((value, c) => {
      const x = left + c * cellWidth;
      const at = value === null || high <= low ? 0 : (value - low) / (high - low);
      const [red, green, blue] = scaleColour(colours, at);
      const place = { x, y: top, width: cellWidth - 0.6, height: cellHeight - 0.6 };
      parts.push(element('rect', { ...place, fill: value === null ? '#eef0f2' : `rgb(${red},${green},${blue})` }));
      const text = said?.[r]?.[c];
      if (text === undefined || text === '' || value === null) return;
      const fill = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? '#1f2328' : '#ffffff';
      const shown = wrap(text, cellWidth - 3, size, { maxLines: 1 });
      parts.push(textLines(shown, x + cellWidth / 2, top + cellHeight / 2 + 3, { size, anchor: 'middle', fill }));
    });
  });
  y += values.length * cellHeight + 8;
  parts.push(colourBar(6, y, width - 12, { ends: [low, high], colours, opacity: 1, scaleTitle, labelSize: size, solid: true }));
  return picture(width, y + 34, ...parts);
}

function rangeOf(values: readonly (readonly (number | null)[])[]): [number, number] {
  const all = values.flat().filter((value): value is number => value !== null);
  const far = Math.max(1e-12, ...all.map(Math.abs));
  // Rounding errors below zero are no opposite direction.
  return Math.min(0, ...all) < -0.02 * far ? [-far, far] : [0, far];
}

const shortly = (value: number): string => {
  if (Math.abs(value) < 0.005) return '0';
  return Math.abs(value) < 10 ? value.toFixed(2) : value.toPrecision(3);
};
