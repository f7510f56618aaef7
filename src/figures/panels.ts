/** Several drawings in one picture, side by side and below each other, each under its letter or title. */
import { columnWidth } from './chart.ts';
import { lineHeight, picture, textLines } from './svg.ts';
import { wrap } from './text.ts';

export interface DrawnPanel {
  svg: string;
  /** Above the drawing. */
  title?: string;
}

export interface Panels {
  title?: string;
  /** Drawings in one line before the next begins. */
  columns?: number;
}

const gap = 10;
const titleSize = 10.5;

/** Width of the text of a two-column paper, 17 cm, in CSS pixels. */
export const textWidthOfPage = 2 * columnWidth;

/**
 * Drawings set into one, line by line.
 * @param panels SVG text of each, with a width and a height in CSS pixels
 * @throws Error when there are none, or one is no such drawing
 */
export function arrange(panels: readonly DrawnPanel[], { title, columns = 2 }: Panels): string {
  if (panels.length === 0) throw new Error('a figure needs at least one panel; none was given');
  const sized = panels.map((panel, i) => ({ ...panel, ...sizeOf(panel.svg, i) }));
  const across = Math.min(columns, sized.length);
  const widths = Array.from({ length: across }, (_, column) =>
    Math.max(...sized.filter((_, i) => i % across === column).map(({ width }) => width)),
  );
  const lefts = widths.map((_, column) => widths.slice(0, column).reduce((sum, width) => sum + width + gap, 0));
  const whole = Math.max(lefts.at(-1)! + widths.at(-1)!, 0);
  const parts: string[] = [];
  let y = 0;
  if (title !== undefined) {
    const lines = wrap(title, whole - 12, titleSize + 1, { bold: true });
    parts.push(textLines(lines, 6, 15, { size: titleSize + 1, bold: true }));
    y = 6 + lines.length * lineHeight(titleSize + 1);
  }
  for (let at = 0; at < sized.length; at += across) {
    const line = sized.slice(at, at + across);
    const titles = line.map((panel, column) =>
      panel.title === undefined ? [] : wrap(panel.title, widths[column]! - 12, titleSize, { bold: true }),
    );
    const titleHeight = Math.max(...titles.map((lines) => lines.length)) * lineHeight(titleSize);
    if (titleHeight > 0) y += 4;
    line.forEach((panel, column) => {
      const x = lefts[column]!;
      parts.push(textLines(titles[column]!, x + 6, y + titleSize, { size: titleSize, bold: true }));
      parts.push(nested(panel.svg, x, y + titleHeight, `p${at + column}-`));
    });
    y += titleHeight + Math.max(...line.map(({ height }) => height)) + (at + across < sized.length ? gap : 0);
  }
  return picture(whole, y, ...parts.filter(Boolean));
}

function sizeOf(svg: string, index: number): { width: number; height: number } {
  const root = /<svg\b[^>]*>/.exec(svg)?.[0] ?? '';
  const [width, height] = ['width', 'height'].map((name) => Number(new RegExp(`\\s${name}="([\\d.]+)"`).exec(root)?.[1]));
  if (!(width! > 0 && height! > 0)) throw new Error(`panel ${index} is not a drawing with a width and a height`);
  return { width: width!, height: height! };
}

/** The drawing at a place in another; its ids get a prefix, since all of a file share one space of names. */
function nested(svg: string, x: number, y: number, prefix: string): string {
  const ids = new Set([...svg.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id!));
  let out = svg.trim().replace(/<svg\b/, `<svg x="${Math.round(100 * x) / 100}" y="${Math.round(100 * y) / 100}"`);
  for (const id of ids) {
    out = out
      .replaceAll(`id="${id}"`, `id="${prefix}${id}"`)
      .replaceAll(`url(#${id})`, `url(#${prefix}${id})`)
      .replaceAll(`href="#${id}"`, `href="#${prefix}${id}"`);
  }
  return out;
}
