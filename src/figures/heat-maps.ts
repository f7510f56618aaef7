/**
 * Heat maps over an image, several side by side (figures 1, 3, 4, 7, 8 and 9 of the paper): one row for each image, one
 * panel for each layer. The image lies below in grey, so that a colour means a value and nothing else.
 */
import { faint, rule, type ScaleName, scaleColour } from './colours.ts';
import { type Pixels, pngUri, toGrey } from './raster.ts';
import { element, image as imageElement, lineHeight, note, picture, textLines } from './svg.ts';
import { wrap } from './text.ts';

export interface HeatMap {
  /** Above the panel: `Layer 3`. */
  label: string;
  /** One value for each cell of the grid, row by row from the top left. */
  values: ArrayLike<number>;
}

export interface HeatMapRow {
  image: Pixels;
  /** Rows and columns of the grid of visual tokens. */
  grid: readonly [number, number];
  maps: readonly HeatMap[];
  /** Above the image: what it is in the figure. */
  label?: string;
  /** Below the image: the question and the answer. */
  prompt?: string;
  answer?: string;
}

export interface HeatMaps {
  rows: readonly HeatMapRow[];
  title?: string;
  /** Beside the colour scale: what a value is. */
  scaleTitle?: string;
  /** Values at the two ends of the colours: the same for all maps (`all`, from 0, comparable), or each map's own (`each`, shows the place but not the size). */
  normalise?: 'all' | 'each';
  /** Fixed ends of the colours, when known; with `all` only. */
  range?: readonly [number, number];
  colours?: ScaleName;
  /** How strongly the colours cover the image, 0 to 1. */
  opacity?: number;
  /** Maps in one line before the next begins. */
  perLine?: number;
  /** Side of one panel. */
  panel?: number;
}

const gap = 6;
const labelSize = 8.5;

export async function heatMaps({
  rows,
  title,
  scaleTitle = 'Contribution',
  normalise = 'all',
  range,
  colours = 'viridis',
  opacity = 0.62,
  perLine = 4,
  panel = 76,
}: HeatMaps): Promise<string> {
  check(rows);
  const ends = normalise === 'all' ? (range ?? fromZero(extremes(rows.flatMap(({ maps }) => maps)))) : undefined;
  const columns = Math.min(perLine, Math.max(...rows.map(({ maps }) => maps.length)));
  const width = gap + (columns + 1) * (panel + gap);
  const parts: string[] = [];
  let y = gap;
  if (title !== undefined) {
    const lines = wrap(title, width - 2 * gap, 10.5, { bold: true });
    parts.push(textLines(lines, gap, y + 9, { size: 10.5, bold: true }));
    y += lines.length * lineHeight(10.5) + 4;
  }
  for (const row of rows) {
    const drawn = await drawRow(row, y, { ends, columns, panel, colours, opacity });
    parts.push(drawn.svg);
    y += drawn.height + gap;
  }
  parts.push(colourBar(y + 2, width, { ends, colours, opacity, scaleTitle }));
  return picture(width, y + 36, ...parts);
}

interface Drawing {
  ends: readonly [number, number] | undefined;
  columns: number;
  panel: number;
  colours: ScaleName;
  opacity: number;
}

async function drawRow(
  row: HeatMapRow,
  top: number,
  { ends, columns, panel, colours, opacity }: Drawing,
): Promise<{ svg: string; height: number }> {
  const { image, grid, maps, label = 'Image', prompt, answer } = row;
  const height = (panel * image.height) / image.width;
  const labelHeight = lineHeight(labelSize);
  const [uri, grey] = await Promise.all([pngUri(image), pngUri(toGrey(image))]);
  const parts = [
    textLines(wrap(label, panel, labelSize, { maxLines: 1 }), gap, top + labelSize, { size: labelSize }),
    imageElement(uri, gap, top + labelHeight, panel, height),
    frame(gap, top + labelHeight, panel, height),
  ];
  const below = [
    ...wrap(prompt ?? '', panel, 8).map((line) => ({ line, bold: false })),
    ...wrap(answer ?? '', panel, 8, { bold: true }).map((line) => ({ line, bold: true })),
  ];
  below.forEach(({ line, bold }, i) => {
    parts.push(textLines([line], gap, top + labelHeight + height + 9 + i * lineHeight(8), { size: 8, bold }));
  });

  // Under a map of its own scale stands its largest value.
  const lineStep = labelHeight + height + (ends ? 0 : 10) + gap;
  for (const [i, map] of maps.entries()) {
    const x = gap + (1 + (i % columns)) * (panel + gap);
    const y = top + Math.floor(i / columns) * lineStep;
    const own = ends ?? extremes([map]);
    parts.push(
      textLines(wrap(map.label, panel, labelSize, { maxLines: 1 }), x, y + labelSize, { size: labelSize }),
      imageElement(grey, x, y + labelHeight, panel, height),
      imageElement(await overlay(map, grid, own, colours), x, y + labelHeight, panel, height, { opacity }),
      frame(x, y + labelHeight, panel, height),
    );
    if (!ends) parts.push(note([`${format(own[0])} – ${format(own[1])}`], x, y + labelHeight + height + 8.5, { size: 7.5 }));
  }
  const mapsHeight = Math.ceil(maps.length / columns) * lineStep - gap;
  const imageHeight = labelHeight + height + below.length * lineHeight(8) + (below.length > 0 ? 3 : 0);
  return { svg: parts.join('\n'), height: Math.max(mapsHeight, imageHeight) };
}

function frame(x: number, y: number, width: number, height: number): string {
  return element('rect', { x, y, width, height, fill: 'none', stroke: rule, 'stroke-width': 0.6 });
}

/** One pixel for each cell of the grid; the SVG stretches it over the image. */
async function overlay(
  { values }: HeatMap,
  [gridRows, gridColumns]: readonly [number, number],
  ends: readonly [number, number],
  colours: ScaleName,
) {
  const data = new Uint8Array(gridRows * gridColumns * 3);
  for (let i = 0; i < gridRows * gridColumns; i++) data.set(scaleColour(colours, position(values[i] ?? 0, ends)), 3 * i);
  return pngUri({ width: gridColumns, height: gridRows, data });
}

function position(value: number, [low, high]: readonly [number, number]): number {
  return high > low ? (value - low) / (high - low) : 0;
}

interface Bar extends Omit<Drawing, 'columns' | 'panel'> {
  scaleTitle: string;
}

function colourBar(top: number, width: number, { ends, colours, opacity, scaleTitle }: Bar): string {
  const title = ends ? scaleTitle : `${scaleTitle} (each map on its own scale)`;
  const length = Math.min(150, width - 2 * gap);
  const stops = Array.from({ length: 17 }, (_, i) => {
    const [r, g, b] = scaleColour(colours, i / 16);
    return element('stop', { offset: i / 16, 'stop-color': `rgb(${r},${g},${b})` });
  });
  // Over mid grey and with the maps' opacity, so that the bar has the colours that are seen in the maps.
  const box = { x: gap, y: top + 12, width: length, height: 8 };
  const labels = ends ? [ends[0], (ends[0] + ends[1]) / 2, ends[1]].map(format) : ['lowest', '', 'highest'];
  return [
    element('linearGradient', { id: 'scale' }, ...stops),
    textLines([title], gap, top + 8, { size: labelSize }),
    element('rect', { ...box, fill: '#808080' }),
    element('rect', { ...box, fill: 'url(#scale)', 'fill-opacity': opacity }),
    element('rect', { ...box, fill: 'none', stroke: faint, 'stroke-width': 0.5 }),
    ...labels.map((label, i) => {
      const anchor = (['start', 'middle', 'end'] as const)[i] ?? 'start';
      return note([label], gap + (length * i) / 2, top + 29, { size: 7.5, anchor });
    }),
  ].join('\n');
}

function extremes(maps: readonly HeatMap[]): [number, number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const { values } of maps) {
    for (let i = 0; i < values.length; i++) {
      low = Math.min(low, values[i] ?? 0);
      high = Math.max(high, values[i] ?? 0);
    }
  }
  return [low, high];
}

/** Contributions are counted from nothing, so that a weak map looks weak. */
function fromZero([low, high]: readonly [number, number]): [number, number] {
  return [Math.min(0, low), Math.max(0, high)];
}

function format(value: number): string {
  if (value === 0) return '0';
  return Math.abs(value) < 0.001 || Math.abs(value) >= 10_000 ? value.toExponential(1) : String(Number(value.toPrecision(2)));
}

function check(rows: readonly HeatMapRow[]): void {
  if (rows.length === 0 || rows.every(({ maps }) => maps.length === 0))
    throw new Error('a heat-map figure needs at least one map; none was given');
  for (const { grid, maps } of rows) {
    const cells = grid[0] * grid[1];
    for (const { label, values } of maps) {
      if (values.length !== cells)
        throw new Error(
          `the map "${label}" has ${values.length} values, but its grid of ${grid[0]}x${grid[1]} has ${cells} cells`,
        );
      for (let i = 0; i < cells; i++) {
        if (!Number.isFinite(values[i]))
          throw new Error(`the map "${label}" has the value ${values[i]} in cell ${i}, which cannot be drawn`);
      }
    }
  }
}
