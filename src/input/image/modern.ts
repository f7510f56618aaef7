/**
 * The processors of modern families, from their settings: a picture becomes what the image encoder reads, a number of visual tokens, and the part of
 * the picture that each of them stands for. The settings are those of transformers' image processors (`readImageSettings`); pixels are made in
 * tiles.ts, numbers of tiles and tokens in grids.ts.
 */

import { z } from 'zod';
import { exactly, flag, parseConfig, positive, count as wholeNumber } from '../../files/config.ts';
import type { Json } from '../../files/json.ts';
import type { Tensor } from '../../graph/dtype.ts';
import type { Region, RgbImage, View } from '../segments.ts';
import { edge, type ImageSettings, limitsOf, resizerOf, rgb } from './config.ts';
import { onWhite } from './decode.ts';
import { anyRes, type Size, smartSize, smolTiles, tiledCanvas } from './grids.ts';
import { packed, packedAlone } from './packing.ts';
import { valuesOf } from './processor.ts';
import {
  fitWithin,
  gemmaTiles,
  internVlTiles,
  oneVisionSquare,
  oneVisionTiles,
  type PixelSettings,
  pixelValues,
  qwenPixels,
  smolVlmTiles,
} from './tiles.ts';
import { rowView, tileView, tokenPlaces } from './views.ts';

/** A picture as a processor leaves it. */
export interface ProcessedPicture {
  /** what the image encoder reads, by the names of its inputs; computed when called */
  pixels(): Readonly<Record<string, Tensor>>;
  /** visual tokens */
  readonly count: number;
  /** rows and columns of tiles, or of visual tokens where there are no tiles; 0 and 0: the picture is one tile */
  readonly grid: readonly [number, number];
  /** height and width that the picture is scaled to */
  readonly size: Size;
  readonly views: readonly View[];
  /** the part of the picture that visual token i shows; undefined: it ends a row */
  regionOf(token: number): Region | undefined;
}

export interface PictureProcessor {
  /** @param together pictures of the prompt, itself included */
  process(image: RgbImage, together?: number): ProcessedPicture;
}

const pixelCount = wholeNumber.max(2 ** 26, 'expected at most 67108864 pixels');
/** Pixels that settings may make of a small picture: several times what those of published models do, and one second's work. */
const MOST_MADE = 2 ** 23;
const made = pixelCount.max(MOST_MADE, `expected at most ${MOST_MADE} pixels, which every picture has at least`);
/** @param what of the settings makes so many pixels of any picture */
function checkMade({ name }: ImageSettings, what: string, pixels: number): void {
  if (pixels > MOST_MADE)
    throw new Error(
      `${name}: ${what} is ${pixels} pixels, which small pictures are scaled up to, too; at most ${MOST_MADE} are read`,
    );
}
const square = z
  .looseObject({ height: edge, width: edge })
  .refine(({ height, width }) => height === width, 'only squares are supported');
const shared = {
  do_resize: exactly(true, 'the encoder reads pictures of certain sizes'),
  do_convert_rgb: flag(true),
  do_rescale: flag(true),
  rescale_factor: positive.default(1 / 255),
  do_normalize: flag(true),
  resample: z.union([z.literal(1), z.literal(2), z.literal(3)], 'expected 1 (Lanczos), 2 (bilinear) or 3 (bicubic)').default(3),
};
const half: [number, number, number] = [0.5, 0.5, 0.5];
const clip = {
  image_mean: rgb(z.number()).default([0.48145466, 0.4578275, 0.40821073]),
  image_std: rgb(positive).default([0.26862954, 0.26130258, 0.27577711]),
};
const siglip = { image_mean: rgb(z.number()).default(half), image_std: rgb(positive).default(half) };
const typed = (name: string, other = name) =>
  z
    .string()
    .regex(new RegExp(`^(${name}|${other})ImageProcessor(Fast|Pil)?$`), `only ${name}ImageProcessor is supported`)
    .default(`${name}ImageProcessor`);

const whole = ({ width, height }: RgbImage): Region => ({ left: 0, top: 0, width, height });

/** Tokens of tiles row by row, `side` x `side` each, then of the whole picture; 0 x 0 and 1 x 1 tiles: of the whole picture alone. */
function tileViews(image: RgbImage, tiles: Size, side: number): View[] {
  const count = tiles[0] * tiles[1];
  if (count < 2) return [rowView('whole', whole(image), [side, side])];
  return [tileView(whole(image), tiles, side), rowView('whole', whole(image), [side, side], count * side ** 2)];
}

/** What follows from the views. */
const seenBy = (views: readonly View[], count: number): Pick<ProcessedPicture, 'views' | 'count' | 'regionOf'> => {
  let places: ReturnType<typeof tokenPlaces> | undefined;
  return {
    views,
    count,
    regionOf(token) {
      places ??= tokenPlaces(views, count);
      return places[token]?.region;
    },
  };
};

/**
 * How the settings' pixels are made. Whichever version wrote a folder, transformers 5 reads it, whose processors resize by torchvision, or by the
 * Pillow of its time.
 */
function pixelSettings(
  settings: Parameters<typeof valuesOf>[0] & { image_processor_type: string; resample: 1 | 2 | 3 },
  given = resizerOf(settings.image_processor_type, 5),
): PixelSettings {
  const resizer = given === 'pillow' ? 'pillow-13' : given;
  return { resample: settings.resample, resizer, values: valuesOf(settings, resizer) };
}

const qwenSettings = z.preprocess(
  // Before transformers 5 the limits stand beside `size`.
  (value) => {
    // Refused by the schema.
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    const { min_pixels, max_pixels, size, ...rest } = value as Record<string, Json>;
    const limits = {
      ...(size as object),
      ...(min_pixels && { shortest_edge: min_pixels }),
      ...(max_pixels && { longest_edge: max_pixels }),
    };
    return { ...rest, size: limits };
  },
  z.looseObject({
    image_processor_type: typed('Qwen2VL'),
    ...shared,
    ...clip,
    size: z.looseObject({ shortest_edge: made.default(56 * 56), longest_edge: pixelCount.default(28 * 28 * 1280) }),
    patch_size: edge.default(14),
    temporal_patch_size: wholeNumber.max(8).default(2),
    merge_size: wholeNumber.max(16).default(2),
  }),
);

/**
 * Qwen2.5-VL and Qwen3-VL: [rows columns, 3 frames patch²].
 * @param reads what the image encoder reads
 * @throws Error when the settings are for an image encoder that reads other patches
 */
export function qwenProcessor(
  given: ImageSettings,
  reads: { patch_size?: number; merge_size?: number; temporal_patch_size?: number } = {},
): PictureProcessor {
  const config = parseConfig(given.name, qwenSettings, given.settings);
  const { patch_size: patch, merge_size: merge, temporal_patch_size: frames, size } = config;
  for (const field of ['patch_size', 'merge_size', 'temporal_patch_size'] as const)
    if (reads[field] !== undefined && reads[field] !== config[field])
      throw new Error(
        `${given.name}: ${field} is ${config[field]}, but the image encoder of config.json reads ${reads[field]}; use the processor's file that was published with this model`,
      );
  const limits = limitsOf(given, (patch * merge) ** 2, true);
  const { minPixels = Math.min(size.shortest_edge, limits.maxPixels ?? size.shortest_edge) } = limits;
  const { maxPixels = Math.max(size.longest_edge, minPixels) } = limits;
  const settings = pixelSettings(config);
  return {
    process(image) {
      const scaled = smartSize([image.height, image.width], patch * merge, minPixels, maxPixels);
      const grid: [number, number] = [scaled[0] / patch / merge, scaled[1] / patch / merge];
      return {
        pixels: () => ({ pixels: qwenPixels(onWhite(image), { patch, merge, frames, minPixels, maxPixels }, settings).pixels }),
        ...seenBy([rowView('whole', whole(image), grid)], grid[0] * grid[1]),
        grid,
        size: scaled,
      };
    },
  };
}

const smolSettings = z.looseObject({
  image_processor_type: typed('SmolVLM', 'Idefics3'),
  ...shared,
  ...siglip,
  resample: shared.resample.default(1),
  do_image_splitting: exactly(true, 'pictures that are not split have another layout'),
  size: z.looseObject({ longest_edge: wholeNumber.max(4096, 'expected at most 4096 pixels') }).default({ longest_edge: 4 * 364 }),
  max_image_size: z.looseObject({ longest_edge: edge }).default({ longest_edge: 364 }),
});

/** @throws Error when the processor makes tiles of another size than the encoder reads */
function checkTile({ name }: ImageSettings, tile: number, encoder: number): void {
  if (tile !== encoder)
    throw new Error(`${name} makes tiles of ${tile} pixels, config.json asks for ${encoder} (vision_config.image_size)`);
}

/** SmolVLM: [tiles, 3, s, s]; the whole picture is the last tile. @param side visual tokens along a tile @param size pixels along a tile that the encoder reads */
export function smolVlmProcessor(given: ImageSettings, side: number, size?: number): PictureProcessor {
  const config = parseConfig(given.name, smolSettings, given.settings);
  const [longest, tile] = [config.size.longest_edge, config.max_image_size.longest_edge];
  checkTile(given, tile, size ?? tile);
  checkMade(given, 'size.longest_edge squared', longest ** 2);
  const { maxPixels = Number.POSITIVE_INFINITY } = limitsOf(given, tile ** 2, false);
  // transformers takes Pillow for its Lanczos filter, which torchvision has since 0.27 only.
  const settings = pixelSettings(config, 'pillow');
  /** The longest side, some tiles shorter where the picture would have more pixels than it may. */
  const sideWithin = (shape: Size): number => {
    for (let side = longest; ; side = (Math.ceil(side / tile) - 1) * tile) {
      const { cut } = smolTiles(shape, side, tile);
      if (cut[0] * cut[1] <= maxPixels || side <= tile) return side;
    }
  };
  return {
    process(image) {
      const shape: Size = [image.height, image.width];
      const within = sideWithin(shape);
      const { tiles, cut } = smolTiles(shape, within, tile);
      return {
        pixels: () => ({ pixels: pixelValues(smolVlmTiles(onWhite(image), within, tile, settings), settings.values) }),
        ...seenBy(tileViews(image, tiles, side), (tiles[0] * tiles[1] + 1) * side ** 2),
        grid: tiles,
        size: cut,
      };
    },
  };
}

const internSettings = z.looseObject({
  image_processor_type: typed('GotOcr2'),
  ...shared,
  ...clip,
  size: square.default({ height: 384, width: 384 }),
  min_patches: wholeNumber.max(64).default(1),
  max_patches: wholeNumber.max(64, 'expected at most 64 tiles').default(12),
});

/** InternVL3: [tiles, 3, s, s]; the whole picture is the last tile, unless there is one. @param side visual tokens along a tile @param size pixels along a tile that the encoder reads */
export function internVlProcessor(given: ImageSettings, side: number, size?: number): PictureProcessor {
  const config = parseConfig(given.name, internSettings, given.settings);
  const tile = config.size.height;
  checkTile(given, tile, size ?? tile);
  checkMade(given, 'max_patches tiles of size', config.max_patches * tile ** 2);
  // Tiles are always made: the processor around this one says so, whatever `crop_to_patches` is in the file (`processing_internvl.py`).
  const { minPixels, maxPixels } = limitsOf(given, tile ** 2, true);
  const most = maxPixels === undefined ? config.max_patches : Math.min(64, Math.floor(maxPixels / tile ** 2));
  const least = Math.min(most, minPixels === undefined ? config.min_patches : Math.ceil(minPixels / tile ** 2));
  const settings = pixelSettings(config);
  return {
    process(image) {
      const canvas = tiledCanvas([image.height, image.width], tile, least, most);
      const tiles = canvas[0] * canvas[1];
      return {
        pixels: () => ({ pixels: pixelValues(internVlTiles(onWhite(image), tile, least, most, settings), settings.values) }),
        ...seenBy(tileViews(image, canvas, side), (tiles === 1 ? 1 : tiles + 1) * side ** 2),
        grid: canvas,
        size: [canvas[0] * tile, canvas[1] * tile],
      };
    },
  };
}

const gemmaSettings = z.looseObject({
  image_processor_type: typed('Gemma3'),
  ...shared,
  ...siglip,
  resample: shared.resample.default(2),
  size: square.default({ height: 224, width: 224 }),
});

/** Gemma 3: [3, s, s]; its processor never cuts pictures, whatever `do_pan_and_scan` is in the file. @param side visual tokens along the picture, after pooling @param pixels along the picture that the encoder reads */
export function gemmaProcessor(given: ImageSettings, side: number, pixels?: number): PictureProcessor {
  const config = parseConfig(given.name, gemmaSettings, given.settings);
  const size: Size = [config.size.height, config.size.width];
  checkTile(given, size[0], pixels ?? size[0]);
  const settings = pixelSettings(config);
  return {
    process: (image) => ({
      pixels: () => {
        const { data, dtype } = pixelValues(gemmaTiles(onWhite(image), size, settings), settings.values);
        return { pixels: { data, dtype, shape: [3, ...size] } };
      },
      ...seenBy([rowView('whole', whole(image), [side, side])], side ** 2),
      grid: [side, side],
      size,
    }),
  };
}

const largest = wholeNumber.max(4096, 'expected at most 4096 pixels');
const oneVisionSettings = z.looseObject({
  image_processor_type: typed('LlavaOnevision'),
  ...shared,
  ...clip,
  size: square.default({ height: 384, width: 384 }),
  image_grid_pinpoints: z
    .array(z.tuple([largest, largest], 'expected sizes [height, width]'), 'expected a list of sizes')
    .min(1, 'expected at least one size')
    .max(256, 'expected at most 256 sizes'),
});

/**
 * LLaVA-OneVision: [tiles, 3, s, s]. A picture that is alone in its prompt: the whole picture, then the tiles of its best resolution, whose tokens are
 * packed without margins, with one token after each row. One of several: a square with margins, and one token after it.
 * @param side visual tokens along a tile @param most tiles' worth of visual tokens that are kept
 * @param size pixels along a tile that the encoder reads
 */
export function oneVisionProcessor(given: ImageSettings, side: number, most: number, size?: number): PictureProcessor {
  const config = parseConfig(given.name, oneVisionSettings, given.settings);
  const tile = config.size.height;
  checkTile(given, tile, size ?? tile);
  for (const size of config.image_grid_pinpoints)
    if (size.some((length) => length % tile !== 0))
      throw new Error(
        `${given.name}: image_grid_pinpoints has ${size.join(' x ')}, which is not a number of tiles of ${tile} pixels`,
      );
  const areaOf = ([height, width]: Size): number => height * width;
  checkMade(given, 'the smallest of image_grid_pinpoints', Math.min(...config.image_grid_pinpoints.map(areaOf)));
  const { maxPixels = Number.POSITIVE_INFINITY } = limitsOf(given, Math.min(...config.image_grid_pinpoints.map(areaOf)), false);
  const resolutions = config.image_grid_pinpoints.filter((size) => areaOf(size) <= maxPixels);
  const settings = pixelSettings(config);
  return {
    process(image, together = 1) {
      if (together > 1) {
        const edge = Math.max(image.width, image.height);
        const around = { left: -((edge - image.width) >> 1), top: -((edge - image.height) >> 1), width: edge, height: edge };
        return {
          pixels: () => ({
            pixels: pixelValues(oneVisionSquare(onWhite(image), tile, config.image_mean, settings), settings.values),
            ...packedAlone(side),
          }),
          ...seenBy([rowView('whole', around, [side, side])], side ** 2 + 1),
          grid: [0, 0],
          size: [tile, tile],
        };
      }
      const shape: Size = [image.height, image.width];
      const laid = anyRes(shape, { resolutions, tile, side, most });
      const { tiles, unpadded, resolution, count } = laid;
      // The tokens that are kept, in pixels of the canvas, and from there in pixels of the picture.
      const fit = fitWithin(shape, resolution);
      const [down, across] = [image.height / fit.size[0], image.width / fit.size[1]];
      const pixels = tile / side;
      const kept: Region = {
        left: (((tiles[1] * side - unpadded[1]) / 2) * pixels - fit.left) * across,
        top: (((tiles[0] * side - unpadded[0]) / 2) * pixels - fit.top) * down,
        width: unpadded[1] * pixels * across,
        height: unpadded[0] * pixels * down,
      };
      return {
        pixels: () => ({
          pixels: pixelValues(oneVisionTiles(onWhite(image), tile, resolutions, settings), settings.values),
          ...packed(laid, side),
        }),
        ...seenBy(
          [rowView('whole', whole(image), [side, side]), { ...rowView('tiles', kept, laid.packed, side ** 2, 1), tiles }],
          count,
        ),
        grid: tiles,
        size: fit.size,
      };
    },
  };
}
