/**
 * Heat maps over pictures, several side by side (figures 1, 3, 4, 7, 8 and 9 of the paper): one row for each question or layer, one panel
 * for each map. The picture lies below in grey, so that a colour means a value and nothing else.
 */
import type { ScaleName } from './colours.ts';
import { type Box, colourBar, formatValue, framed, heatPanel, type Look } from './heat-panel.ts';
import { checkPixels, type Pixels, pngUri, toGrey } from './raster.ts';
import { lineHeight, note, picture, textLines } from './svg.ts';
import { textWidth, wrap } from './text.ts';

/** A picture, or the number of one in `pictures`, where several maps lie over it. */
export type PictureOf = Pixels | number;

/** One map over a picture. */
export interface HeatMap {
  /** Above the panel: `Layer 3`. */
  label: string;
  /** One value for each cell of the grid, row by row from the top left; absent: the picture is shown as it is. */
  values?: ArrayLike<number>;
  /** Where they are not those of the row. */
  image?: PictureOf;
  grid?: readonly [number, number];
  seen?: Box;
  box?: Box;
  /** Just below the map, such as `no weight`; in the place of its range where it has a scale of its own. */
  note?: string;
  /** Below the panel: a question and its answer. */
  prompt?: string;
  answer?: string;
}

/** Maps about one picture. */
export interface HeatMapRow {
  /** Shown before the maps and in grey below them; absent where the maps have pictures of their own. */
  image?: PictureOf;
  /** Rows and columns of the grid of visual tokens. */
  grid?: readonly [number, number];
  /** The part of the picture that the grid covers, as fractions of it: the whole when absent. The rest is drawn pale. */
  seen?: Box;
  maps: readonly HeatMap[];
  /** Outlined on the picture and on every map: what is asked for, say. */
  box?: Box;
  /** Above the whole row; `captionEnd` goes on in bold. */
  caption?: string;
  captionEnd?: string;
  /** Above the picture: what it is in the figure. */
  label?: string;
  /** Below the picture: the question and the answer. */
  prompt?: string;
  answer?: string;
}

/** Rows of maps with one colour scale, as data of a figure. */
export interface HeatMaps {
  rows: readonly HeatMapRow[];
  /** Pictures that rows and maps name by their number. */
  pictures?: readonly Pixels[];
  title?: string;
  /** Beside the colour scale: what a value is. */
  scaleTitle?: string;
  /** Values at the two ends of the colours: the same for all maps (`all`, from 0, comparable), or from 0 to each map's own largest (`each`, shows the place but not the size). */
  normalise?: 'all' | 'each';
  /** Fixed ends of the colours, when known; with `all` only. */
  range?: readonly [number, number];
  /** With `each`: a map without a value above this is drawn as nothing, so that no rounding error shines. */
  floor?: number;
  colours?: ScaleName;
  /** How strongly the colour of the largest value covers the picture, 0 to 1; smaller values let more of it through. */
  opacity?: number;
  /** Maps in one line before the next begins. */
  perLine?: number;
  /** Rows side by side. */
  across?: number;
  /** Side of one panel. */
  panel?: number;
}

const gap = 6;
const labelSize = 8.5;
const smallSize = 8;

/**
 * SVG text of maps over pictures, with a labelled colour scale.
 * @throws Error when there are no maps, or one has no picture, no grid, or values that are not one finite number for each cell
 */
export async function heatMaps(figure: HeatMaps): Promise<string> {
  const {
    title,
    scaleTitle = 'Contribution',
    normalise = 'all',
    range,
    floor = 0,
    colours = 'viridis',
    opacity = 0.85,
    perLine = 4,
    across = 1,
    panel = 76,
  } = figure;
  const rows = figure.rows.map((row) => resolved(row, figure.pictures ?? []));
  check(rows);
  const all = rows.flatMap(({ maps }) => maps);
  const ends = normalise === 'all' ? (range ?? fromZero(extremes(all))) : undefined;
  const columns = Math.max(...rows.map(({ maps, image }) => Math.min(perLine, maps.length) + (image === undefined ? 0 : 1)));
  const rowWidth = columns * (panel + gap) - gap;
  const betweenRows = 2 * gap;
  const width = 2 * gap + Math.min(across, rows.length) * (rowWidth + betweenRows) - betweenRows;
  const parts: string[] = [];
  let y = gap;
  if (title !== undefined) {
    const lines = wrap(title, width - 2 * gap, 10.5, { bold: true });
    parts.push(textLines(lines, gap, y + 9, { size: 10.5, bold: true }));
    y += lines.length * lineHeight(10.5) + 4;
  }
  const drawing: Drawing = { ends, floor, perLine, panel, rowWidth, look: { colours, opacity } };
  for (let at = 0; at < rows.length; at += across) {
    let height = 0;
    for (const [i, row] of rows.slice(at, at + across).entries()) {
      const drawn = await drawRow(row, gap + i * (rowWidth + betweenRows), y, drawing);
      parts.push(drawn.svg);
      height = Math.max(height, drawn.height);
    }
    y += height + gap;
  }
  parts.push(colourBar(gap, y + 2, width - 2 * gap, { ends, colours, opacity, scaleTitle, labelSize }));
  return picture(width, y + 36, ...parts);
}

interface ResolvedMap extends HeatMap {
  image?: Pixels;
}
interface ResolvedRow extends HeatMapRow {
  image?: Pixels;
  maps: readonly ResolvedMap[];
}

function resolved(row: HeatMapRow, pictures: readonly Pixels[]): ResolvedRow {
  const find = (image: PictureOf | undefined): { image?: Pixels } => {
    if (typeof image !== 'number') return image === undefined ? {} : { image };
    const found = pictures[image];
    if (found === undefined) throw new Error(`a map names picture ${image}, but the figure has ${pictures.length}`);
    return { image: found };
  };
  return { ...row, ...find(row.image), maps: row.maps.map((map) => ({ ...map, ...find(map.image) })) } as ResolvedRow;
}

interface Drawing {
  ends: readonly [number, number] | undefined;
  floor: number;
  perLine: number;
  panel: number;
  rowWidth: number;
  look: Look;
}

async function drawRow(row: ResolvedRow, left: number, top: number, drawing: Drawing): Promise<{ svg: string; height: number }> {
  const { ends, floor, panel, perLine, look } = drawing;
  const labelHeight = lineHeight(labelSize);
  const parts: string[] = [];
  const caption = captionLines(row, drawing.rowWidth);
  parts.push(...caption.map((line, i) => line(left, top + labelSize + i * labelHeight)));
  const start = top + (caption.length > 0 ? caption.length * labelHeight + 3 : 0);
  const uris = new Pictures();
  let pictureHeight = 0;
  if (row.image !== undefined) {
    const height = panelHeight(row.image, panel);
    const at = { x: left, y: start + labelHeight, width: panel, height };
    parts.push(label(row.label ?? 'Image', left, start, panel), framed(await uris.colour(row.image), at, row.box));
    const text = below(row.prompt, row.answer, left, at.y + height, panel);
    parts.push(text.svg);
    pictureHeight = labelHeight + height + text.height;
  }
  const first = left + (row.image === undefined ? 0 : panel + gap);
  let y = start;
  for (let at = 0; at < row.maps.length; at += perLine) {
    let lineHeightMax = 0;
    for (const [i, map] of row.maps.slice(at, at + perLine).entries()) {
      const x = first + i * (panel + gap);
      const image = (map.image ?? row.image)!;
      const height = panelHeight(image, panel);
      const place = { x, y: y + labelHeight, width: panel, height };
      const box = map.box ?? row.box;
      parts.push(label(map.label, x, y, panel));
      let used = labelHeight + height;
      if (map.values === undefined) parts.push(framed(await uris.colour(image), place, box));
      else {
        const own = ends ?? drawnEnds(map, floor);
        const grid = (map.grid ?? row.grid)!;
        const seen = map.seen ?? row.seen;
        parts.push(await heatPanel(await uris.grey(image), { values: map.values, grid, ends: own, seen }, place, look, box));
        // Under a map of its own scale stands its range.
        if (map.note !== undefined) {
          parts.push(note([map.note], x, place.y + height + 8.5, { size: 7.5 }));
          used += 10;
        } else if (!ends) {
          const text = own[1] === Number.POSITIVE_INFINITY ? 'nothing' : `${formatValue(own[0])} – ${formatValue(own[1])}`;
          parts.push(note([text], x, place.y + height + 8.5, { size: 7.5 }));
          used += 10;
        }
      }
      const text = below(map.prompt, map.answer, x, y + used, panel);
      parts.push(text.svg);
      lineHeightMax = Math.max(lineHeightMax, used + text.height);
    }
    y += lineHeightMax + gap;
  }
  const height = Math.max(y - gap, start + pictureHeight) - top;
  return { svg: parts.filter(Boolean).join('\n'), height };
}

const panelHeight = (image: Pixels, panel: number): number => (panel * image.height) / image.width;

function label(text: string, x: number, y: number, panel: number): string {
  return textLines(wrap(text, panel, labelSize, { maxLines: 1 }), x, y + labelSize, { size: labelSize });
}

function below(prompt: string | undefined, answer: string | undefined, x: number, y: number, width: number) {
  const lines = [
    ...wrap(prompt ?? '', width, smallSize).map((line) => ({ line, bold: false })),
    ...wrap(answer ?? '', width, smallSize, { bold: true }).map((line) => ({ line, bold: true })),
  ];
  const svg = lines
    .map(({ line, bold }, i) => textLines([line], x, y + 9 + i * lineHeight(smallSize), { size: smallSize, bold }))
    .join('\n');
  return { svg, height: lines.length === 0 ? 0 : lines.length * lineHeight(smallSize) + 3 };
}

/** The caption above a row and its bold end, on lines of their own where one does not hold both. */
function captionLines({ caption, captionEnd }: HeatMapRow, width: number): ((x: number, y: number) => string)[] {
  if (caption === undefined) return [];
  const draw = (text: string, bold: boolean) => (x: number, y: number) => textLines([text], x, y, { size: labelSize, bold });
  const first = textWidth(`${caption}  `, labelSize);
  if (captionEnd !== undefined && first + textWidth(captionEnd, labelSize, true) <= width)
    return [(x, y) => draw(caption, false)(x, y) + draw(captionEnd, true)(x + first, y)];
  return [
    ...wrap(caption, width, labelSize).map((text) => draw(text, false)),
    ...(captionEnd === undefined ? [] : wrap(captionEnd, width, labelSize, { bold: true }).map((text) => draw(text, true))),
  ];
}

/** A picture that several maps lie over is packed once. */
class Pictures {
  readonly #made = new Map<Pixels, { colour?: Promise<string>; grey?: Promise<string> }>();

  #of(image: Pixels) {
    const found = this.#made.get(image) ?? {};
    this.#made.set(image, found);
    return found;
  }

  colour(image: Pixels): Promise<string> {
    const found = this.#of(image);
    found.colour ??= pngUri(image);
    return found.colour;
  }

  grey(image: Pixels): Promise<string> {
    const found = this.#of(image);
    found.grey ??= pngUri(toGrey(image));
    return found.grey;
  }
}

function drawnEnds(map: HeatMap, floor: number): readonly [number, number] {
  const own = fromZero(extremes([map]));
  return own[1] > floor ? own : [0, Number.POSITIVE_INFINITY];
}

function extremes(maps: readonly HeatMap[]): [number, number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const { values } of maps) {
    for (let i = 0; i < (values?.length ?? 0); i++) {
      low = Math.min(low, values?.[i] ?? 0);
      high = Math.max(high, values?.[i] ?? 0);
    }
  }
  return [low, high];
}

/** Contributions are counted from nothing, so that a weak map looks weak. */
function fromZero([low, high]: readonly [number, number]): [number, number] {
  return [Math.min(0, low), Math.max(0, high)];
}

function check(rows: readonly ResolvedRow[]): void {
  if (rows.every(({ maps }) => maps.every(({ values }) => values === undefined)))
    throw new Error('a heat-map figure needs at least one map; none was given');
  for (const row of rows) {
    if (row.image !== undefined) checkPixels(row.image);
    for (const { label, values, image = row.image, grid = row.grid } of row.maps) {
      if (image === undefined) throw new Error(`the map "${label}" has no picture to lie over: give it or its row one`);
      checkPixels(image);
      if (values === undefined) continue;
      if (grid === undefined) throw new Error(`the map "${label}" has no grid: give it or its row the rows and columns`);
      const cells = grid[0] * grid[1];
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
