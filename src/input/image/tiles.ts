/**
 * Pictures that become several tiles, or patches in an order of their own: the pixels of the processors of modern families (transformers 5.24). The
 * grids and numbers of visual tokens are those of grids.ts.
 */

import { f32, type Tensor } from '../../graph/dtype.ts';
import type { RgbImage } from '../segments.ts';
import type { Resizer } from './config.ts';
import { bestResolution, type Size, smartSize, smolTiles, tiledCanvas } from './grids.ts';
import { paste } from './processor.ts';
import { filters, resize } from './resample.ts';

/** How a processor resizes, and which value each byte of each channel becomes (`valuesOf`). */
export interface PixelSettings {
  /** PIL's code of the filter */
  readonly resample: keyof typeof filters;
  readonly resizer: Resizer;
  readonly values: readonly Float32Array[];
}

const resized = (image: RgbImage, [height, width]: Size, { resample, resizer }: PixelSettings): RgbImage =>
  resize(image, width, height, filters[resample], resizer);

function canvas([height, width]: Size, colour: readonly number[] = [0, 0, 0]): RgbImage {
  const data = new Uint8Array(3 * height * width);
  if (colour.some((value) => value !== 0)) for (let i = 0; i < data.length; i++) data[i] = colour[i % 3]!;
  return { height, width, data };
}

/** Tiles row by row; the picture's sides are multiples of theirs. */
function cut(image: RgbImage, tile: number): RgbImage[] {
  const tiles: RgbImage[] = [];
  for (let top = 0; top < image.height; top += tile)
    for (let left = 0; left < image.width; left += tile) tiles.push(paste(image, canvas([tile, tile]), -left, -top));
  return tiles;
}

/** Pictures of one size as pixel values [pictures, 3, height, width]. */
export function pixelValues(pictures: readonly RgbImage[], values: PixelSettings['values']): Tensor<'float32'> {
  const { height, width } = pictures[0]!;
  const plane = height * width;
  const data = new Float32Array(pictures.length * 3 * plane);
  for (const [n, { data: bytes }] of pictures.entries())
    for (let c = 0; c < 3; c++) {
      const table = values[c]!;
      const first = (n * 3 + c) * plane;
      for (let i = 0, at = c; i < plane; i++, at += 3) data[first + i] = table[bytes[at]!]!;
    }
  return f32(data, [pictures.length, 3, height, width]);
}

/**
 * Qwen's patches [rows columns, 3 frames patch²], in blocks of `merge` x `merge`; a picture is repeated in time, channels come first.
 * @returns the patches, and the grid of patches [rows, columns]
 */
export function qwenPixels(
  image: RgbImage,
  sizes: { patch: number; merge: number; frames: number; minPixels: number; maxPixels: number },
  settings: PixelSettings,
): { pixels: Tensor<'float32'>; grid: [number, number] } {
  const { patch, merge, frames, minPixels, maxPixels } = sizes;
  const size = smartSize([image.height, image.width], patch * merge, minPixels, maxPixels);
  const { data: bytes, width } = resized(image, size, settings);
  const grid: [number, number] = [size[0] / patch, size[1] / patch];
  const length = 3 * frames * patch ** 2;
  const data = new Float32Array(grid[0] * grid[1] * length);
  let at = 0;
  for (let block = 0; block < (grid[0] * grid[1]) / merge ** 2; block++) {
    const across = grid[1] / merge;
    const [blockRow, blockColumn] = [Math.floor(block / across), block % across];
    for (let inner = 0; inner < merge ** 2; inner++) {
      const top = (blockRow * merge + Math.floor(inner / merge)) * patch;
      const left = (blockColumn * merge + (inner % merge)) * patch;
      for (let c = 0; c < 3; c++)
        for (let t = 0; t < frames; t++)
          for (let y = 0; y < patch; y++)
            for (let x = 0; x < patch; x++) data[at++] = settings.values[c]![bytes[3 * ((top + y) * width + left + x) + c]!]!;
    }
  }
  return { pixels: f32(data, [grid[0] * grid[1], length]), grid };
}

/** InternVL: the picture stretched to its canvas and cut into tiles; the whole picture last, unless there is one tile. */
export function internVlTiles(
  image: RgbImage,
  tile: number,
  minTiles: number,
  maxTiles: number,
  settings: PixelSettings,
): RgbImage[] {
  const [rows, columns] = tiledCanvas([image.height, image.width], tile, minTiles, maxTiles);
  const tiles = cut(resized(image, [rows * tile, columns * tile], settings), tile);
  return tiles.length === 1 ? tiles : [...tiles, resized(image, [tile, tile], settings)];
}

/** SmolVLM: scaled in two steps and cut into tiles; the whole scaled picture last, and alone where it is one tile. */
export function smolVlmTiles(image: RgbImage, longest: number, tile: number, settings: PixelSettings): RgbImage[] {
  const { scaled, cut: size, tiles } = smolTiles([image.height, image.width], longest, tile);
  const whole = resized(resized(image, scaled, settings), size, settings);
  return tiles[0] * tiles[1] === 0 ? [whole] : [...cut(whole, tile), resized(whole, [tile, tile], settings)];
}

/** The largest size of a picture's shape within a resolution, and where it lies there. */
export function fitWithin([height, width]: Size, resolution: Size): { size: Size; top: number; left: number } {
  const [down, across] = [resolution[0] / height, resolution[1] / width];
  const size: Size =
    across < down
      ? [Math.min(Math.ceil(height * across), resolution[0]), resolution[1]]
      : [resolution[0], Math.min(Math.ceil(width * down), resolution[1])];
  return { size, top: (resolution[0] - size[0]) >> 1, left: (resolution[1] - size[1]) >> 1 };
}

/** LLaVA-OneVision, one picture: the whole picture, then the tiles of its best resolution, within black margins. */
export function oneVisionTiles(image: RgbImage, tile: number, resolutions: readonly Size[], settings: PixelSettings): RgbImage[] {
  const resolution = bestResolution([image.height, image.width], resolutions);
  const { size, top, left } = fitWithin([image.height, image.width], resolution);
  const padded = paste(resized(image, size, settings), canvas(resolution), left, top);
  return [resized(image, [tile, tile], settings), ...cut(padded, tile)];
}

/** LLaVA-OneVision, one of several pictures: in the middle of a square of a colour between 0 and 1. */
export function oneVisionSquare(image: RgbImage, tile: number, colour: readonly number[], settings: PixelSettings): RgbImage[] {
  const side = Math.max(image.height, image.width);
  const background = canvas(
    [side, side],
    colour.map((value) => Math.trunc(value * 255)),
  );
  const square = paste(image, background, (side - image.width) >> 1, (side - image.height) >> 1);
  return [resized(square, [tile, tile], settings)];
}

/** Gemma 3: the picture stretched to a square. */
export const gemmaTiles = (image: RgbImage, [height, width]: Size, settings: PixelSettings): RgbImage[] => [
  resized(image, [height, width], settings),
];
