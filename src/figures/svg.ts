/** Small pieces of SVG. Numbers are rounded to a hundredth, so that the same figure is the same bytes everywhere. */
import { faint, ink } from './colours.ts';
import { fontFamily } from './text.ts';

type Attributes = Record<string, string | number | undefined>;

export function element(name: string, attributes: Attributes, ...children: string[]): string {
  const written = Object.entries(attributes)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ` ${key}="${typeof value === 'number' ? round(value) : escapeXml(String(value))}"`)
    .join('');
  return children.length === 0 ? `<${name}${written}/>` : `<${name}${written}>${children.join('')}</${name}>`;
}

export interface TextStyle {
  size?: number;
  bold?: boolean;
  anchor?: 'start' | 'middle' | 'end';
  fill?: string;
}

/** Lines of text; `y` is the base line of the first. */
export function textLines(
  lines: readonly string[],
  x: number,
  y: number,
  { size = 9, bold = false, anchor = 'start', fill = ink }: TextStyle = {},
): string {
  return lines
    .map((line, i) =>
      element(
        'text',
        {
          x,
          y: y + i * lineHeight(size),
          'font-size': size,
          'font-weight': bold ? 600 : undefined,
          'text-anchor': anchor === 'start' ? undefined : anchor,
          fill,
        },
        escapeXml(line),
      ),
    )
    .join('');
}

export const lineHeight = (size: number): number => size * 1.3;

/** A whole picture: white ground, the figures' font, sizes in CSS pixels (96 to the inch). */
export function picture(width: number, height: number, ...parts: string[]): string {
  return `${element(
    'svg',
    {
      xmlns: 'http://www.w3.org/2000/svg',
      'xmlns:xlink': 'http://www.w3.org/1999/xlink',
      width: Math.ceil(width),
      height: Math.ceil(height),
      viewBox: `0 0 ${Math.ceil(width)} ${Math.ceil(height)}`,
      'font-family': fontFamily,
      fill: ink,
    },
    '\n',
    element('rect', { width: Math.ceil(width), height: Math.ceil(height), fill: '#ffffff' }),
    '\n',
    ...parts.map((part) => `${part}\n`),
  )}\n`;
}

export function image(href: string, x: number, y: number, width: number, height: number, attributes: Attributes = {}): string {
  return element('image', { x, y, width, height, preserveAspectRatio: 'none', ...attributes, 'xlink:href': href });
}

export const note = (lines: readonly string[], x: number, y: number, style: TextStyle = {}): string =>
  textLines(lines, x, y, { fill: faint, ...style });

export function round(value: number): string {
  return String(Math.round(value * 100) / 100 + 0);
}

// The characters that XML 1.0 cannot hold at all are dropped, so that a model's odd token never breaks a file.
export function escapeXml(text: string): string {
  return text
    .replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '')
    .replace(/&/g, '&amp;')
    .replace(/</g, '&lt;')
    .replace(/>/g, '&gt;')
    .replace(/"/g, '&quot;');
}
