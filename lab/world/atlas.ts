/**
 * The sprites of the mini world in memory: every concept in every art style at every object size, premultiplied RGBA.
 * Sheets are decoded by sharp and scaled here by area averaging, so that pixels are the same on every machine.
 */

import { join } from 'node:path';
import sharp from 'sharp';
import sheet from '../../assets/emoji/atlas.json' with { type: 'json' };
import { packageRoot } from '../../src/files/package-root.ts';
import { concepts, styles } from './concepts.ts';

export const objectSizes = [25, 26, 27, 28, 29, 30, 31, 32, 33] as const;
const smallest = objectSizes[0];
const folder = join(packageRoot, 'assets/emoji/');

export class Atlas {
  /** [style][size - smallest]: concepts x size x size x 4, premultiplied. */
  readonly #sprites: readonly (readonly Uint8Array[])[];

  private constructor(sprites: readonly (readonly Uint8Array[])[]) {
    this.#sprites = sprites;
  }

  static async load(): Promise<Atlas> {
    const sheets = await Promise.all(
      styles.map((style) =>
        sharp(join(folder, `atlas-${style}.png`))
          .ensureAlpha()
          .raw()
          .toBuffer({ resolveWithObject: true }),
      ),
    );
    return new Atlas(sheets.map(({ data, info }) => objectSizes.map((size) => scaleSheet(data, info.width, size))));
  }

  /** The sprites of one style and size, and where this concept's begins. */
  sprite(style: number, concept: number, size: number): { pixels: Uint8Array; offset: number } {
    const pixels = this.#sprites[style]?.[size - smallest];
    if (!pixels) throw new Error(`no sprites of style ${style} at ${size} pixels`);
    return { pixels, offset: concept * size * size * 4 };
  }
}

/** Area averaging: target pixel t covers source pixels [t * ratio, (t + 1) * ratio). */
function overlaps(from: number, to: number): { first: number; weights: number[] }[] {
  const ratio = from / to;
  return Array.from({ length: to }, (_, t) => {
    const start = t * ratio;
    const end = Math.min(from, start + ratio);
    const first = Math.floor(start);
    const weights: number[] = [];
    for (let s = first; s < end - 1e-9; s++) weights.push((Math.min(end, s + 1) - Math.max(start, s)) / ratio);
    return { first, weights };
  });
}

function scaleSheet(data: Uint8Array, width: number, size: number): Uint8Array {
  const full = sheet.size;
  const spans = overlaps(full, size);
  const out = new Uint8Array(concepts.length * size * size * 4);
  const rows = new Float64Array(full * size * 4);
  for (let c = 0; c < concepts.length; c++) {
    const left = (c % sheet.columns) * full;
    const top = Math.floor(c / sheet.columns) * full;
    rows.fill(0);
    for (let y = 0; y < full; y++) {
      for (let x = 0; x < size; x++) {
        const { first, weights } = spans[x]!;
        const to = (y * size + x) * 4;
        for (let k = 0; k < weights.length; k++) {
          const at = ((top + y) * width + left + first + k) * 4;
          const alpha = data[at + 3]! * weights[k]!;
          for (let i = 0; i < 3; i++) rows[to + i]! += (data[at + i]! * alpha) / 255;
          rows[to + 3]! += alpha;
        }
      }
    }
    for (let y = 0; y < size; y++) {
      const { first, weights } = spans[y]!;
      for (let x = 0; x < size * 4; x++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) sum += rows[(first + k) * size * 4 + x]! * weights[k]!;
        out[(c * size + y) * size * 4 + x] = Math.round(sum);
      }
    }
  }
  return out;
}
