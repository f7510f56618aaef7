/** Pictures in prompts and in the image encoder: what families share. */

import { input, type Node } from '../graph/index.ts';
import type { ImageProcessor } from '../input/image/processor.ts';
import type { PreparedPicture, Region, RgbImage } from '../input/segments.ts';
import type { FixedPictures, LaidToken, PromptPart, TextCodec } from './architecture.ts';

/** Pixel values [b, 3, height, width] of pictures of one size. */
export const fixedPixels = ({ size }: FixedPictures): Record<string, Node> => ({ pixels: input('pixels', ['b', 3, ...size]) });

/** A picture for a family of fixed pictures. */
export function prepareFixed({ count, grid }: FixedPictures, processor: ImageProcessor, image: RgbImage): PreparedPicture {
  const seen = processor.region(image);
  return { count, grid, regionOf: (cell) => cellOf(seen, grid, cell), pixels: () => ({ pixels: processor.process(image) }) };
}

/** Cell i, row by row, of a grid over a region. */
export function cellOf(region: Region, [rows, columns]: readonly [number, number], cell: number): Region {
  const [width, height] = [region.width / columns, region.height / rows];
  const row = Math.floor(cell / columns);
  return { left: region.left + (cell - row * columns) * width, top: region.top + row * height, width, height };
}

/** Tokens of a text in which one token stands for a whole picture. */
export function withPictures(
  ids: readonly number[],
  token: number,
  parts: readonly PromptPart[],
  placeholder: string,
): LaidToken[] {
  const counts = parts.flatMap((part) => ('picture' in part ? [part.picture.count] : []));
  let next = 0;
  const out = ids.map((id): LaidToken => (id === token ? { picture: next, run: counts[next++] ?? 0 } : id));
  if (next !== counts.length)
    throw new Error(
      next === 0
        ? `the tokenizer does not make token ${token} of ${placeholder}; use the tokenizer files that were published with this model`
        : `the prompt has ${placeholder} ${times(next)} and ${counts.length === 0 ? 'no picture' : `${counts.length} pictures`}; give one picture for each`,
    );
  return out;
}

const times = (count: number): string => (count === 1 ? 'once' : count === 2 ? 'twice' : `${count} times`);

/**
 * Tokens of a prompt whose texts are tokenised one by one.
 * @param begin whether the special token that begins stands before the first `text`, or before the whole `input` and so before a picture too
 */
export function pieces(parts: readonly PromptPart[], codec: TextCodec, begin: 'text' | 'input'): LaidToken[] {
  const out: LaidToken[] = [];
  let begun = false;
  let picture = 0;
  for (const part of parts) {
    if ('text' in part) {
      if (!begun || part.text !== '') out.push(...codec.encode(part.text, { special: !begun }));
      begun = true;
      continue;
    }
    if (begin === 'input' && !begun) {
      out.push(...codec.encode(''));
      begun = true;
    }
    out.push({ picture: picture++, run: part.picture.count });
  }
  return out;
}
