/** One heat map over a picture, and the scale that says what its colours mean. */
import { faint, rule, type ScaleName, scaleColour } from './colours.ts';
import { cellsUri } from './raster.ts';
import { element, image as imageElement, note, round, textLines } from './svg.ts';

/** A part of the picture to outline: left, top, width, height as fractions of it. */
export type Box = readonly [number, number, number, number];

export interface Look {
  colours: ScaleName;
  /** How much the colour of the largest value covers the picture. */
  opacity: number;
}

/** How much a colour covers the picture, 0 to 1: little where there is little weight, so that the picture shows through; all alike about zero. */
function covers({ colours, opacity }: Look, position: number): number {
  return colours === 'red-blue' ? opacity : opacity * (0.1 + 0.9 * Math.min(1, Math.max(0, position)));
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

/** Values of a grid over a part of a picture. */
export interface PanelMap {
  values: ArrayLike<number>;
  grid: readonly [number, number];
  ends: readonly [number, number];
  /** The part of the picture that the grid covers: the whole when absent. It may reach beyond the picture, where the model saw padding. */
  seen?: Box | undefined;
}

/** The picture in grey below, the values above it, one rectangle of colour for each cell; what the model did not see is pale. */
export async function heatPanel(
  greyUri: string,
  { values, grid, ends, seen = [0, 0, 1, 1] }: PanelMap,
  place: Place,
  look: Look,
  box?: Box,
): Promise<string> {
  const { x, y, width, height } = place;
  const [rows, columns] = grid;
  const cells = new Uint8Array(rows * columns * 4);
  for (let i = 0; i < rows * columns; i++) {
    const at = position(values[i] ?? 0, ends);
    cells.set([...scaleColour(look.colours, at), Math.round(255 * covers(look, at))], 4 * i);
  }
  const [left, top, across, down] = [seen[0] * width, seen[1] * height, seen[2] * width, seen[3] * height];
  const stretched = await cellsUri(rows, columns, cells);
  const whole = seen[0] <= 0 && seen[1] <= 0 && seen[0] + seen[2] >= 1 && seen[1] + seen[3] >= 1;
  const inside = seen[0] >= 0 && seen[1] >= 0 && seen[0] + seen[2] <= 1.0001 && seen[1] + seen[3] <= 1.0001;
  return [
    imageElement(greyUri, x, y, width, height),
    // A picture of its own cuts what reaches beyond.
    inside
      ? imageElement(stretched, x + left, y + top, across, down)
      : element('svg', { x, y, width, height }, imageElement(stretched, left, top, across, down)),
    ...(whole ? [] : [unseen(place, { x: x + left, y: y + top, width: across, height: down })]),
    frame(place),
    outline(place, box),
  ].join('\n');
}

/** A veil over what lies outside of a part, and a frame round the part. */
function unseen({ x, y, width, height }: Place, part: Place): string {
  const cut = {
    left: Math.max(x, part.x),
    top: Math.max(y, part.y),
    right: Math.min(x + width, part.x + part.width),
    bottom: Math.min(y + height, part.y + part.height),
  };
  const rectangle = (left: number, top: number, right: number, bottom: number): string =>
    `M${round(left)} ${round(top)}H${round(right)}V${round(bottom)}H${round(left)}Z`;
  const hole = rectangle(cut.left, cut.top, cut.right, cut.bottom);
  return (
    element('path', {
      d: rectangle(x, y, x + width, y + height) + hole,
      fill: '#ffffff',
      'fill-opacity': 0.7,
      'fill-rule': 'evenodd',
    }) + element('path', { d: hole, fill: 'none', stroke: faint, 'stroke-width': 0.8 })
  );
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
  /** Colours cover all of the ground. */
  solid?: boolean;
}

export function colourBar(
  x: number,
  top: number,
  width: number,
  { ends, colours, opacity, scaleTitle, labelSize, solid }: ColourBar,
) {
  const title = ends ? scaleTitle : `${scaleTitle} (each map on its own scale)`;
  const length = Math.min(150, width);
  const stops = Array.from({ length: 17 }, (_, i) => {
    const [r, g, b] = scaleColour(colours, i / 16);
    return element('stop', {
      offset: i / 16,
      'stop-color': `rgb(${r},${g},${b})`,
      'stop-opacity': solid ? 1 : covers({ colours, opacity }, i / 16),
    });
  });
  // Over mid grey and as much covering as in the maps, so that the bar has the colours that are seen there.
  const bar = { x, y: top + 12, width: length, height: 8 };
  const labels = ends ? [ends[0], (ends[0] + ends[1]) / 2, ends[1]].map(formatValue) : ['0', '', 'largest'];
  return [
    element('linearGradient', { id: 'scale' }, ...stops),
    textLines([title], x, top + 8, { size: labelSize }),
    element('rect', { ...bar, fill: '#808080' }),
    element('rect', { ...bar, fill: 'url(#scale)' }),
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
