/** Pictures in prompts and in the image encoder: what families share. */

import type { Dim } from '../graph/dim.ts';
import { input, type Node, reshape, transpose } from '../graph/index.ts';
import type { ProcessedPicture } from '../input/image/modern.ts';
import type { ImageProcessor } from '../input/image/processor.ts';
import { cellOf, finestView } from '../input/image/views.ts';
import type { PreparedPicture, RgbImage } from '../input/segments.ts';
import type { FixedPictures, LaidToken, PromptPart, TextCodec } from './architecture.ts';

export { cellOf } from '../input/image/views.ts';

/** Pixel values [b, 3, height, width] of pictures of one size. */
export const fixedPixels = ({ size }: FixedPictures): Record<string, Node> => ({ pixels: input('pixels', ['b', 3, ...size]) });

/** Pixel values [b, tiles, 3, s, s] of pictures of equally many square tiles. */
export const tiledPixels = (size: number): Record<string, Node> => ({ pixels: input('pixels', ['b', 'tiles', 3, size, size]) });

/** Squares of r x r patches as one row each, in their order: [n, side², d] -> [n, (side / r)², r² d]. */
export function joinPatches(x: Node, side: number, r: number): Node {
  const [n, , d] = x.shape as [Dim, number, number];
  const s = side / r;
  const cut = transpose(reshape(x, [n, s, r, s, r, d]), [0, 1, 3, 2, 4, 5]);
  return reshape(cut, [n, s * s, r * r * d]);
}

/** A picture for a family of fixed pictures. */
export function prepareFixed({ count, grid }: FixedPictures, processor: ImageProcessor, image: RgbImage): PreparedPicture {
  const seen = processor.region(image);
  return { count, grid, regionOf: (cell) => cellOf(seen, grid, cell), pixels: () => ({ pixels: processor.process(image) }) };
}

/** A picture for a family whose pictures differ in their visual tokens; heat maps are drawn on its tiles where it has some. */
export function prepareViews({ pixels, count, views, size }: ProcessedPicture): PreparedPicture {
  const { region, grid } = finestView(views);
  return { pixels, count, views, size, grid, regionOf: (cell) => cellOf(region, grid, cell) };
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
