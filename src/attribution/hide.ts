/** Parts of a picture that are hidden: filled with grey, or with the picture's own colours blurred beyond recognition. */

import type { Region, RgbImage } from '../input/segments.ts';

const grey = 128;

/** Sums over every rectangle from the top left modulo 2^32, one row and column more than the picture, three channels. */
function sums({ width, height, data }: RgbImage): Uint32Array {
  const out = new Uint32Array((width + 1) * (height + 1) * 3);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++) {
        const at = (i: number, j: number): number => out[((y + i) * (width + 1) + x + j) * 3 + c]!;
        out[((y + 1) * (width + 1) + x + 1) * 3 + c] = data[(y * width + x) * 3 + c]! + at(0, 1) + at(1, 0) - at(0, 0);
      }
  return out;
}

/** The mean of squares of a third of the picture's shorter side around each pixel. */
function blurred(image: RgbImage): Uint8Array {
  const { width, height } = image;
  const table = sums(image);
  const radius = Math.max(1, Math.round(Math.min(width, height) / 6));
  const out = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const [top, bottom] = [Math.max(0, y - radius), Math.min(height, y + radius + 1)];
      const [left, right] = [Math.max(0, x - radius), Math.min(width, x + radius + 1)];
      const area = (bottom - top) * (right - left);
      for (let c = 0; c < 3; c++) {
        const at = (row: number, column: number): number => table[(row * (width + 1) + column) * 3 + c]!;
        // Of one square, so below 2^32 itself.
        const sum = (at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left)) >>> 0;
        out[(y * width + x) * 3 + c] = Math.round(sum / area);
      }
    }
  return out;
}

/** A copy of a picture in which some parts are hidden; what of them lies beyond the picture is not there to hide. */
export function hideCells(image: RgbImage, parts: readonly Region[], by: 'grey' | 'blur'): RgbImage {
  const { width, height } = image;
  // A Buffer's own slice is no copy.
  const data = Uint8Array.from(image.data);
  const from = by === 'blur' ? blurred(image) : undefined;
  for (const part of parts) {
    const [top, bottom] = [Math.max(0, Math.round(part.top)), Math.min(height, Math.round(part.top + part.height))];
    const [left, right] = [Math.max(0, Math.round(part.left)), Math.min(width, Math.round(part.left + part.width))];
    for (let y = top; y < bottom; y++) {
      const [first, last] = [(y * width + left) * 3, (y * width + right) * 3];
      if (last <= first) continue;
      if (from === undefined) data.fill(grey, first, last);
      else data.set(from.subarray(first, last), first);
    }
  }
  return { ...image, data };
}
