/** The processors of modern families, opened from every folder of the fixtures: pixels, numbers of visual tokens, grids, and what each token stands for. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { openSafetensors } from '../../src/files/safetensors.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import { type ImageSettings, type PixelLimits, readImageSettings } from '../../src/input/image/config.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import {
  gemmaProcessor,
  internVlProcessor,
  oneVisionProcessor,
  type PictureProcessor,
  type ProcessedPicture,
  qwenProcessor,
  smolVlmProcessor,
} from '../../src/input/image/modern.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import { sharedDir } from '../shared.ts';

const modern = join(sharedDir, 'fixtures-modern');
const processors: Record<string, (settings: ImageSettings) => PictureProcessor> = {
  qwen2_5_vl: (settings) => qwenProcessor(settings),
  qwen3_vl: (settings) => qwenProcessor(settings),
  smolvlm: (settings) => smolVlmProcessor(settings, 2),
  gemma3: (settings) => gemmaProcessor(settings, 4),
  internvl: (settings) => internVlProcessor(settings, 2),
  llava_onevision: (settings) => oneVisionProcessor(settings, 4, 4),
};

interface Grid {
  image_grid_thw?: number[][];
  rows?: number[];
  cols?: number[];
  canvas?: number[][];
}
interface Meta {
  layouts: string[];
  cases: { images: string[]; spans: [number, number][][]; grid: Grid | null }[];
}
const metaOf = (family: string): Meta =>
  JSON.parse(readFileSync(join(modern, 'expected', `tiny-${family}`, 'meta.json'), 'utf8')) as Meta;

/** The reference's grid of picture i, in visual tokens or tiles. */
function gridOf(grid: Grid, i: number): number[] | undefined {
  if (grid.image_grid_thw !== undefined) return grid.image_grid_thw[i]!.slice(1).map((patches) => patches / 2);
  if (grid.rows !== undefined) return [grid.rows[i]!, grid.cols![i]!];
  return grid.canvas?.[i]?.toReversed();
}

describe.skipIf(!existsSync(modern))('processors from their folders', () => {
  const folders = existsSync(modern)
    ? Object.keys(processors).flatMap((family) => metaOf(family).layouts.map((dir) => [dir, family]))
    : [];
  test.each(folders as [string, string][])('%s', async (dir, family) => {
    const processor = processors[family]!(readImageSettings(join(modern, dir)));
    const tensors = openSafetensors(join(modern, 'expected', `tiny-${family}`, 'tensors.safetensors'));
    for (const [c, { images, spans, grid }] of metaOf(family).cases.entries()) {
      if (images.length === 0) continue;
      const pictures: ProcessedPicture[] = [];
      for (const file of images) {
        const image = await decodeImage(join(modern, 'images', file));
        pictures.push(processor.process(image, images.length));
      }
      pictures.forEach((picture, i) => {
        expect(picture.count).toBe(spans[i]!.reduce((sum, [start, end]) => sum + end - start, 0));
        const expected = gridOf(grid!, i);
        if (expected !== undefined) expect([...picture.grid]).toEqual(expected);
      });
      const expected = tensors.readTensor(`${c}.pixel_values`) as Tensor<'float32'>;
      const own = pictures.map((picture) => picture.pixels().pixels as Tensor<'float32'>);
      expect(own.map(({ shape }) => shape.slice(1))).toEqual(
        own.map(() => expected.shape.slice(expected.shape.length - own[0]!.shape.length + 1)),
      );
      const values = own.flatMap(({ data }) => [...data]);
      expect(values.length).toBe(expected.data.length);
      // three grey levels of 255 for a deviation of 0.5, the largest of these families, in one of a thousand
      const far = values.filter((value, i) => !(Math.abs(value - expected.data[i]!) <= 3 / 255 / 0.5)).length;
      expect(far / values.length).toBeLessThan(0.001);
    }
  });

  const blank = (width: number, height: number): RgbImage => ({ width, height, data: new Uint8Array(3 * width * height) });

  test.each(Object.keys(processors))('%s: the tokens of a picture cover it', (family) => {
    const processor = processors[family]!(readImageSettings(join(modern, `tiny-${family}`)));
    const sides = fc.integer({ min: 20, max: 300 });
    fc.assert(
      fc.property(sides, sides, fc.integer({ min: 1, max: 2 }), (width, height, together) => {
        const picture = processor.process(blank(width, height), together);
        let area = 0;
        for (let token = 0; token < picture.count; token++) {
          const region = picture.regionOf(token);
          if (region === undefined) continue;
          const across = Math.min(width, region.left + region.width) - Math.max(0, region.left);
          const down = Math.min(height, region.top + region.height) - Math.max(0, region.top);
          area += Math.max(0, across) * Math.max(0, down);
        }
        // once for the tiles and once for the whole picture; what is unpadded may cut a row of tokens
        const times = area / (width * height);
        expect(Math.abs(times - Math.round(times))).toBeLessThan(family === 'llava_onevision' ? 0.35 : 1e-6);
        expect([1, 2]).toContain(Math.round(times));
      }),
      { numRuns: 40, seed: 5 },
    );
  });

  test.each(['qwen3_vl', 'smolvlm', 'internvl', 'llava_onevision'])('%s: limits of pixels that are given', (family) => {
    const settings = readImageSettings(join(modern, `tiny-${family}`));
    const of = (limits: PixelLimits): PictureProcessor => processors[family]!({ ...settings, limits });
    const sides = fc.integer({ min: 20, max: 300 });
    fc.assert(
      fc.property(sides, sides, fc.integer({ min: 2048, max: 20_000 }), (width, height, maxPixels) => {
        fc.pre(Math.max(width, height) < 8 * Math.min(width, height));
        const image = blank(width, height);
        const [limited, usual] = [of({ maxPixels }).process(image), processors[family]!(settings).process(image)];
        // Qwen's sides are never shorter than one token, and small pictures are rounded up, as in the reference.
        const [down, across] = limited.size;
        const rounded = family === 'qwen3_vl' ? 16 * (down + across) : 0;
        expect(down * across).toBeLessThanOrEqual(maxPixels + rounded);
        if (usual.size[0] * usual.size[1] <= maxPixels && family === 'smolvlm') expect(limited.size).toEqual(usual.size);
        expect(limited.pixels().pixels!.shape.slice(-1)).toEqual(usual.pixels().pixels!.shape.slice(-1));
      }),
      { numRuns: 40, seed: 3 },
    );
    expect(() => of({ maxPixels: 8 })).toThrow(/--max-pixels is 8, but the smallest picture that the model reads has \d+ pixels/);
    const lower = (): PictureProcessor => of({ minPixels: 5000, maxPixels: 4000 });
    if (family === 'qwen3_vl' || family === 'internvl') {
      expect(lower).toThrow(/--min-pixels is 5000 and --max-pixels is 4000/);
      const { size } = of({ minPixels: 5000 }).process(blank(64, 64));
      expect(size[0] * size[1]).toBeGreaterThanOrEqual(5000);
    } else expect(lower).toThrow(/this processor has no lower limit of pixels; leave --min-pixels out/);
  });

  test('limits of the area, settings that nobody can hold, and other processors', () => {
    const settings = readImageSettings(join(modern, 'tiny-qwen3_vl'));
    const image = blank(640, 320);
    expect(qwenProcessor({ ...settings, limits: { maxPixels: 2000, minPixels: 1 } }).process(image).size).toEqual([16, 48]);
    expect(qwenProcessor(settings).process(image).size).toEqual([48, 96]);
    const given = (change: object): ImageSettings => ({
      ...settings,
      settings: { ...(settings.settings as object), ...change } as never,
    });
    expect(() => qwenProcessor(given({ size: { longest_edge: 1e12 } }))).toThrow(
      /size\.longest_edge: expected at most 67108864 pixels/,
    );
    expect(() => qwenProcessor(given({ min_pixels: 1e12 }))).toThrow(/size\.shortest_edge/);
    expect(() => qwenProcessor(given({ image_std: [0, 1, 1] }))).toThrow(/image_std\.0: expected a number above 0/);
    expect(() => qwenProcessor(given({ image_processor_type: 'CLIPImageProcessor' }))).toThrow(
      /only Qwen2VLImageProcessor is supported/,
    );
    expect(() => smolVlmProcessor(given({}), 2)).toThrow(/only SmolVLMImageProcessor is supported/);
    expect(() => qwenProcessor(given({})).process(blank(1, 10_000))).toThrow(/at most 200 to 1/);
  });

  test.each(Object.keys(processors))('%s: settings that are no object are refused', (family) => {
    for (const settings of [null, 1, 'x', []])
      expect(() => processors[family]!({ name: 'it', settings, version: 5 })).toThrow(/^it/);
  });

  test('settings cannot make a large picture of a small one', () => {
    const refused = (family: string, change: object): void => {
      const given = readImageSettings(join(modern, `tiny-${family}`));
      const settings = { ...(given.settings as object), ...change } as never;
      expect(() => processors[family]!({ ...given, settings })).toThrow(/at most 8388608/);
    };
    refused('qwen3_vl', { size: { shortest_edge: 2 ** 26, longest_edge: 2 ** 26 } });
    refused('smolvlm', { size: { longest_edge: 4096 } });
    refused('internvl', { size: { height: 2048, width: 2048 }, max_patches: 64 });
    refused('llava_onevision', { size: { height: 512, width: 512 }, image_grid_pinpoints: [[4096, 4096]] });
  });

  test('processors around them decide about tiles: those of InternVL are always made, a picture of Gemma is never cut', () => {
    const settingsOf = (folder: string, own: object): ImageSettings => {
      const given = readImageSettings(join(modern, folder));
      return { ...given, settings: { ...(given.settings as object), ...own } as never };
    };
    const wide = blank(150, 40);
    const tiles = internVlProcessor(settingsOf('tiny-internvl', { crop_to_patches: false }), 2).process(wide);
    expect(tiles.grid).toEqual([1, 4]);
    expect(tiles.count).toBe(20);
    expect(gemmaProcessor(settingsOf('tiny-gemma3', { do_pan_and_scan: true }), 4).process(wide).count).toBe(16);
  });
});
