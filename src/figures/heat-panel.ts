/** One heat map over a picture, and the scale that says what its colours mean. */
import { faint, rule, type ScaleName, scaleColour } from './colours.ts';
import { type Pixels, pngUri } from './raster.ts';
import { element, image as imageElement, note, textLines } from './svg.ts';

/** A part of the picture to outline: left, top, width, height as fractions of it. */
export type Box = readonly [number, number, number, number];

export interface Look {
  colours: ScaleName;
  opacity: number;
}

export interface Place {
  x: number;
  y: number;
  width: number;
  height: number;
}

export function framed(uri: string, place: Place, box?: Box): string {
  return imageElement(uri, place.x, place.y, place.width, place.height) + frame(place) + outline(place, box);
}

/** The picture in grey below, the values above it, one rectangle of colour for each cell of the grid. */
export async function heatPanel(
  greyUri: string,
  { values, grid, ends }: { values: ArrayLike<number>; grid: readonly [number, number]; ends: readonly [number, number] },
  place: Place,
  { colours, opacity }: Look,
  box?: Box,
): Promise<string> {
  const { x, y, width, height } = place;
  const [rows, columns] = grid;
  const data = new Uint8Array(rows * columns * 3);
  for (let i = 0; i < rows * columns; i++) data.set(scaleColour(colours, position(values[i] ?? 0, ends)), 3 * i);
  // The SVG stretches the cells over the picture.
  const cells: Pixels = { width: columns, height: rows, data };
  return [
    imageElement(greyUri, x, y, width, height),
    imageElement(await pngUri(cells), x, y, width, height, { opacity }),
    frame(place),
    outline(place, box),
  ].join('\n');
}

function position(value: number, [low, high]: readonly [number, number]): number {
  return high > low ? (value - low) / (high - low) : 0;
}

function frame(place: Place): string {
  return element('rect', { ...place, fill: 'none', stroke: rule, 'stroke-width': 0.6 });
}

/** White below black dashes: seen on any ground. */
function outline({ x, y, width, height }: Place, box: Box | undefined): string {
  if (box === undefined) return '';
  const inset = 0.75;
  const at = {
    x: x + box[0] * width + inset,
    y: y + box[1] * height + inset,
    width: box[2] * width - 2 * inset,
    height: box[3] * height - 2 * inset,
    fill: 'none',
  };
  return (
    element('rect', { ...at, stroke: '#ffffff', 'stroke-width': 1.5 }) +
    element('rect', { ...at, stroke: '#000000', 'stroke-width': 1.1, 'stroke-dasharray': '3 2.5' })
  );
}

export interface ColourBar extends Look {
  /** absent: each map has its own */
  ends: readonly [number, number] | undefined;
  scaleTitle: string;
  labelSize: number;
}

export function colourBar(x: number, top: number, width: number, { ends, colours, opacity, scaleTitle, labelSize }: ColourBar) {
  const title = ends ? scaleTitle : `${scaleTitle} (each map on its own scale)`;
  const length = Math.min(150, width);
  const stops = Array.from({ length: 17 }, (_, i) => {
    const [r, g, b] = scaleColour(colours, i / 16);
    return element('stop', { offset: i / 16, 'stop-color': `rgb(${r},${g},${b})` });
  });
  // Over mid grey and with the maps' opacity, so that the bar has the colours that are seen in the maps.
  const bar = { x, y: top + 12, width: length, height: 8 };
  const labels = ends ? [ends[0], (ends[0] + ends[1]) / 2, ends[1]].map(formatValue) : ['lowest', '', 'highest'];
  return [
    element('linearGradient', { id: 'scale' }, ...stops),
    textLines([title], x, top + 8, { size: labelSize }),
    element('rect', { ...bar, fill: '#808080' }),
    element('rect', { ...bar, fill: 'url(#scale)', 'fill-opacity': opacity }),
    element('rect', { ...bar, fill: 'none', stroke: faint, 'stroke-width': 0.5 }),
    ...labels.map((label, i) => {
      const anchor = (['start', 'middle', 'end'] as const)[i] ?? 'start';
      return note([label], x + (length * i) / 2, top + 29, { size: 7.5, anchor });
    }),
  ].join('\n');
}

export function formatValue(value: number): string {
  if (value === 0) return '0';
  return Math.abs(value) < 0.001 || Math.abs(value) >= 10_000 ? value.toExponential(1) : String(Number(value.toPrecision(2)));
}
