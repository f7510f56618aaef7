/** An edit and what became of the queries around it: picture, prompt, answer before and after (the demo's picture). */
import { bad, faint, good, ink, rule } from './colours.ts';
import { type Pixels, pngUri } from './raster.ts';
import { element, image as imageElement, lineHeight, picture, textLines } from './svg.ts';
import { wrap } from './text.ts';

/** One query of a before-and-after figure. */
export interface BeforeAfterRow {
  /** What the query shows: `reliability`, `text generality`, ... */
  kind: string;
  /** Absent for a text-only query. */
  image?: Pixels;
  prompt: string;
  before: string;
  after: string;
  /** Whether the answer after the edit is the wanted one. */
  passed: boolean;
  /** Under the kind: what is wanted, as `must become the target`. */
  wanted?: string;
}

/** An edit and the queries around it, as data of a figure. */
export interface BeforeAfter {
  title?: string;
  /** The edit itself, above the queries. */
  edit: { image: Pixels; prompt: string; target: string };
  rows: readonly BeforeAfterRow[];
  width?: number;
}

/** How much wider than Inter text may come out where a viewer lacks it (DejaVu Sans): queries must not run into the answers beside them. */
const FALLBACK = 1.12;

const pad = 12;
const thumb = 56;
const size = 10.5;

/**
 * SVG text of an edit and what became of the queries around it.
 * @throws Error when there are no queries
 */
export async function beforeAfter({ title, edit, rows, width = 640 }: BeforeAfter): Promise<string> {
  if (rows.length === 0) throw new Error('a before-and-after figure needs at least one query; none was given');
  const answer = Math.max(96, Math.floor(width * 0.2));
  const columns = {
    image: pad,
    prompt: pad + thumb + 12,
    before: width - pad - 2 * answer - 10,
    after: width - pad - answer,
  };
  const promptWidth = (columns.before - columns.prompt - 10) / FALLBACK;
  const parts: string[] = [];
  let y = pad;
  if (title !== undefined) {
    const lines = wrap(title, width - 2 * pad, 13, { bold: true });
    parts.push(textLines(lines, pad, y + 11, { size: 13, bold: true }));
    y += lines.length * lineHeight(13) + 6;
  }

  const request = wrap(edit.prompt, width - columns.prompt - 2 * pad, size);
  const editHeight = Math.max(thumb, request.length * lineHeight(size) + 34) + 12;
  parts.push(
    element('rect', {
      x: pad - 4,
      y,
      width: width - 2 * pad + 8,
      height: editHeight,
      rx: 4,
      fill: '#f3f6f9',
      stroke: rule,
      'stroke-width': 0.6,
    }),
    await thumbnail(edit.image, columns.image + 2, y + 6),
    textLines(['The edit'], columns.prompt, y + 17, { size: 9.5, fill: faint }),
    textLines(request, columns.prompt, y + 32, { size }),
    textLines([`→ ${edit.target}`], columns.prompt, y + 32 + request.length * lineHeight(size) + 2, { size, bold: true }),
  );
  y += editHeight + 20;

  for (const [x, words] of [
    [columns.prompt, 'Query'],
    [columns.before, 'Before'],
    [columns.after, 'After'],
  ] as const) {
    parts.push(textLines([words], x, y, { size: 9.5, fill: faint }));
  }
  y += 7;
  for (const row of rows) {
    const prompt = wrap(row.prompt, promptWidth, size);
    const before = wrap(row.before, answer - 4, size, { maxLines: 4 });
    const after = wrap(row.after, answer - 20, size, { maxLines: 4, bold: true });
    const kind = row.wanted === undefined ? row.kind : `${row.kind}: ${row.wanted}`;
    const lines = Math.max(prompt.length, before.length - 1, after.length - 1);
    const height = Math.max(thumb + 12, 24 + lines * lineHeight(size) + 8);
    const baseline = y + 34;
    parts.push(
      element('line', { x1: pad - 4, x2: width - pad + 4, y1: y, y2: y, stroke: rule, 'stroke-width': 0.8 }),
      row.image
        ? await thumbnail(row.image, columns.image + 2, y + 6)
        : textLines(['text only'], columns.image + 2 + thumb / 2, y + 6 + thumb / 2 + 3, {
            size: 9,
            fill: faint,
            anchor: 'middle',
          }),
      textLines([kind], columns.prompt, y + 18, { size: 9.5, fill: faint }),
      textLines(prompt, columns.prompt, baseline, { size }),
      textLines(before, columns.before, baseline, { size }),
      textLines(after, columns.after, baseline, { size, bold: true, fill: row.passed ? ink : bad }),
      markPath(row.passed, width - pad - 10, baseline - 8),
    );
    y += height;
  }
  return picture(width, y + 4, ...parts);
}

async function thumbnail(pixels: Pixels, x: number, y: number): Promise<string> {
  const scale = thumb / Math.max(pixels.width, pixels.height);
  const [width, height] = [pixels.width * scale, pixels.height * scale];
  const left = x + (thumb - width) / 2;
  const top = y + (thumb - height) / 2;
  return [
    imageElement(await pngUri(pixels), left, top, width, height),
    element('rect', { x: left, y: top, width, height, fill: 'none', stroke: rule, 'stroke-width': 0.6 }),
  ].join('');
}

/** A tick or a cross: the shape tells it without colour. */
function markPath(passed: boolean, x: number, y: number): string {
  const d = passed ? `M${x} ${y + 4.5}l3 3.5l6 -8` : `M${x} ${y}l8 8m0 -8l-8 8`;
  return element('path', {
    d,
    fill: 'none',
    stroke: passed ? good : bad,
    'stroke-width': 1.8,
    'stroke-linecap': 'round',
    'stroke-linejoin': 'round',
  });
}
