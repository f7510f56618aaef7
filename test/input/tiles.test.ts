/** Pixels of modern families' processors, against what transformers' processors give for the same files. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openSafetensors } from '../../src/files/safetensors.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import { decodeImage, onWhite } from '../../src/input/image/decode.ts';
import type { Size } from '../../src/input/image/grids.ts';
import { valuesOf } from '../../src/input/image/processor.ts';
import {
  gemmaTiles,
  internVlTiles,
  oneVisionSquare,
  oneVisionTiles,
  type PixelSettings,
  pixelValues,
  qwenPixels,
  smolVlmTiles,
} from '../../src/input/image/tiles.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import { sharedDir } from '../shared.ts';

const modern = join(sharedDir, 'fixtures-modern');
type Sizes = Record<string, number>;
interface Meta {
  cases: { images: string[] }[];
  image_backend: 'torchvision' | 'pil';
  sizes: Sizes;
}
interface Config {
  image_mean: [number, number, number];
  image_std: [number, number, number];
  rescale_factor: number;
  resample: 1 | 2 | 3;
}
type Pixels = (images: RgbImage[], sizes: Sizes, settings: PixelSettings, config: Config) => Tensor<'float32'>[];

const qwen: Pixels = (images, s, settings) =>
  images.map(
    (image) =>
      qwenPixels(
        image,
        { patch: s.patch!, merge: s.merge!, frames: 2, minPixels: s.min_pixels!, maxPixels: s.max_pixels! },
        settings,
      ).pixels,
  );
const tiles =
  (
    tilesOf: (
      image: RgbImage,
      alone: boolean,
      ...rest: Parameters<Pixels> extends [unknown, ...infer R] ? R : never
    ) => RgbImage[],
  ): Pixels =>
  (images, ...rest) =>
    images.map((image) => pixelValues(tilesOf(image, images.length === 1, ...rest), rest[1].values));
const families: Record<string, Pixels> = {
  'tiny-qwen2_5_vl': qwen,
  'tiny-qwen3_vl': qwen,
  'tiny-smolvlm': tiles((image, _, s, settings) => smolVlmTiles(image, s.longest_edge!, s.tile!, settings)),
  'tiny-llava_onevision': tiles((image, alone, s, settings, config) =>
    alone
      ? oneVisionTiles(image, s.tile!, s.image_grid_pinpoints as unknown as Size[], settings)
      : oneVisionSquare(image, s.tile!, config.image_mean, settings),
  ),
  'tiny-gemma3': tiles((image, _, s, settings) => gemmaTiles(image, [s.image_size!, s.image_size!], settings)),
  'tiny-internvl': tiles((image, _, s, settings) => internVlTiles(image, s.tile!, s.min_patches!, s.max_patches!, settings)),
};

const read = async (file: string): Promise<RgbImage> => onWhite(await decodeImage(join(modern, 'images', file)));

describe.skipIf(!existsSync(modern))('pixels as transformers gives them', () => {
  test.each(Object.keys(families))('%s', async (name) => {
    const meta = JSON.parse(readFileSync(join(modern, 'expected', name, 'meta.json'), 'utf8')) as Meta;
    const config = JSON.parse(readFileSync(join(modern, name, 'processor_config.json'), 'utf8')).image_processor as Config;
    const tensors = openSafetensors(join(modern, 'expected', name, 'tensors.safetensors'));
    const resizer = meta.image_backend === 'pil' ? ('pillow' as const) : ('torchvision' as const);
    const values = valuesOf({ ...config, do_rescale: true, do_normalize: true }, resizer);
    const settings: PixelSettings = { resample: config.resample, resizer, values };
    let worst = 0;
    for (const [c, { images }] of meta.cases.entries()) {
      if (images.length === 0) continue;
      const expected = tensors.readTensor(`${c}.pixel_values`) as Tensor<'float32'>;
      const own = families[name]!(await Promise.all(images.map(read)), meta.sizes, settings, config);
      const data = own.flatMap((one) => [...one.data]);
      expect(data.length).toBe(expected.data.length);
      // in grey levels of 255
      const deviation = config.image_std.reduce((a, b) => a + b, 0) / 3;
      let [total, far] = [0, 0];
      data.forEach((value, i) => {
        const difference = Math.abs(value - expected.data[i]!) * deviation * 255;
        total += difference;
        if (difference > 3) far++;
      });
      expect({ case: c, mean: total / data.length < 0.5, far: far / data.length < 0.001 }).toEqual({
        case: c,
        mean: true,
        far: true,
      });
      worst = Math.max(worst, total / data.length);
    }
    // Bilinear pixels were made by a torchvision that computes in floats where the processor has no AVX2.
    expect(worst).toBeLessThan(config.resample === 2 ? 0.25 : 1e-4);
  });
});
