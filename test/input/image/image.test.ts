import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import sharp from 'sharp';
import { afterAll, describe, expect, test } from 'vitest';
import { parseConfig, preprocessorConfig, readConfig } from '../../../src/files/config.ts';
import { openSafetensors } from '../../../src/files/safetensors.ts';
import { decodeImage, type RgbImage } from '../../../src/input/image/decode.ts';
import { imageProcessor, squareProcessor } from '../../../src/input/image/processor.ts';
import { filters, resize } from '../../../src/input/image/resample.ts';
import { fixturesDir, hasFixtures } from '../../shared.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-image-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const pixel = (image: RgbImage, x: number, y: number) => [
  ...image.data.subarray((y * image.width + x) * 3, (y * image.width + x) * 3 + 3),
];
const plain = (background: { r: number; g: number; b: number; alpha?: number }, width = 8, height = 6) =>
  sharp({ create: { width, height, channels: background.alpha === undefined ? 3 : 4, background } });

describe.skipIf(!hasFixtures)("the reference's pixel values", () => {
  test.each(['tiny-llava', 'tiny-blip2-opt', 'tiny-minigpt4'])('%s', async (model) => {
    const processor =
      model === 'tiny-minigpt4'
        ? squareProcessor(56)
        : imageProcessor(readConfig(join(fixturesDir, model, 'preprocessor_config.json'), preprocessorConfig));
    const meta = JSON.parse(readFileSync(join(fixturesDir, 'expected', model, 'meta.json'), 'utf8')) as {
      cases: { image: string | null }[];
    };
    const expected = openSafetensors(join(fixturesDir, 'expected', model, 'tensors.safetensors'));
    for (const [c, { image }] of meta.cases.entries()) {
      if (!image) continue;
      const { data, shape } = processor.process(await decodeImage(join(fixturesDir, 'images', image)));
      const reference = expected.readTensor(`${c}.pixel_values`, { as: 'float32' });
      expect(shape).toEqual(reference.shape);
      // one grey level of the least spread channel
      const level = 1 / 255 / 0.26;
      const differences = Array.from(data, (value, i) => Math.abs(value - reference.data[i]!) / level);
      const mean = differences.reduce((a, b) => a + b) / differences.length;
      // the fixtures allow a mean of 0.5 and 3 levels for 99.9 % of the pixels; the same arithmetic gives the same values
      expect(mean, `${image}: largest difference ${Math.max(...differences)} grey levels`).toBeLessThan(1e-4);
    }
  });
});

test('alpha is dropped, grey becomes RGB, 16 bits become 8', async () => {
  const rgba = await plain({ r: 200, g: 100, b: 50, alpha: 0.1 }).png().toBuffer();
  expect(pixel(await decodeImage(rgba), 3, 3)).toEqual([200, 100, 50]);
  const grey = await plain({ r: 90, g: 90, b: 90 }).toColourspace('b-w').png().toBuffer();
  expect((await sharp(grey).metadata()).channels).toBe(1);
  expect(pixel(await decodeImage(grey), 0, 0)).toEqual([90, 90, 90]);
  const deep = await sharp(
    Uint16Array.from({ length: 12 }, () => 0x80ff),
    { raw: { width: 2, height: 2, channels: 3 } },
  )
    .toColourspace('rgb16')
    .png()
    .toBuffer();
  expect((await sharp(deep).metadata()).depth).toBe('ushort');
  expect(pixel(await decodeImage(deep), 1, 1)).toEqual([128, 128, 128]);
});

test('CMYK is converted', async () => {
  const cmyk = await plain({ r: 255, g: 255, b: 255 }).toColourspace('cmyk').jpeg({ quality: 100 }).toBuffer();
  expect((await sharp(cmyk).metadata()).space).toBe('cmyk');
  const image = await decodeImage(cmyk);
  expect(image.data.length).toBe(8 * 6 * 3);
  for (const value of pixel(image, 4, 3)) expect(value).toBeGreaterThan(245);
});

test.each(['gif', 'webp'] as const)('an animated %s gives its first frame', async (format) => {
  const frames = [plain({ r: 255, g: 0, b: 0 }), plain({ r: 0, g: 0, b: 255 })];
  const joined = await sharp(await Promise.all(frames.map((frame) => frame.png().toBuffer())), { join: { animated: true } })
    [format](format === 'webp' ? { lossless: true } : {})
    .toBuffer();
  expect((await sharp(joined).metadata()).pages).toBe(2);
  const image = await decodeImage(joined);
  expect([image.width, image.height, ...pixel(image, 2, 2)]).toEqual([8, 6, 255, 0, 0]);
});

test('EXIF orientation is not applied, as in PIL', async () => {
  const turned = await plain({ r: 1, g: 2, b: 3 }).jpeg().withMetadata({ orientation: 6 }).toBuffer();
  const image = await decodeImage(turned);
  expect([image.width, image.height]).toEqual([8, 6]);
});

/** A PNG of which only the header says how large it is. */
function pngHeader(width: number, height: number): Buffer {
  const chunk = (type: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const frame = Buffer.alloc(8);
    frame.writeUInt32BE(data.length, 0);
    frame.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2, 0, 0, 0], 8);
  const magic = Buffer.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]);
  return Buffer.concat([
    magic,
    chunk('IHDR', head),
    chunk('IDAT', deflateSync(Buffer.alloc(100))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let k = 0; k < 8; k++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

test('files that are no usable pictures are explained', async () => {
  const at = (name: string, data: string | Uint8Array) => {
    writeFileSync(join(scratch, name), data);
    return join(scratch, name);
  };
  await expect(decodeImage(at('notes.txt', 'hello'))).rejects.toThrow(/notes\.txt is not a picture/);
  await expect(decodeImage(at('empty.png', ''))).rejects.toThrow(/empty\.png is empty/);
  await expect(decodeImage(join(scratch, 'none.png'))).rejects.toThrow(/none\.png does not exist/);
  await expect(decodeImage(scratch)).rejects.toThrow(/cannot read picture/);
  const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"><rect width="4" height="4"/></svg>';
  await expect(decodeImage(at('drawing.svg', svg))).rejects.toThrow(/drawing\.svg is a svg file/);
  await expect(decodeImage(at('bomb.png', pngHeader(60000, 60000)))).rejects.toThrow(
    /bomb\.png is 60000 by 60000 pixels, more than the 64000000 allowed/,
  );
  await expect(decodeImage(pngHeader(100, 100), { maxPixels: 9999 })).rejects.toThrow(/the picture is 100 by 100/);
  const whole = await sharp(Buffer.from(Array.from({ length: 30000 }, (_, i) => (i * 7919) % 251)), {
    raw: { width: 100, height: 100, channels: 3 },
  })
    .png()
    .toBuffer();
  await expect(decodeImage(at('cut.png', whole.subarray(0, whole.length >> 1)))).rejects.toThrow(
    /cut\.png is damaged or cut off/,
  );
  const jpeg = await sharp(whole).jpeg().toBuffer();
  await expect(decodeImage(at('cut.jpg', jpeg.subarray(0, jpeg.length >> 1)))).rejects.toThrow(/cut\.jpg is damaged or cut off/);
});

const random = (width: number, height: number): RgbImage => ({
  width,
  height,
  data: Uint8Array.from({ length: width * height * 3 }, (_, i) => (i * i * 31 + i * 7) % 256),
});

/** First digits of the SHA-256 of the bytes. */
const digest = (data: Uint8Array) => createHash('sha256').update(data).digest('hex').slice(0, 16);

test.each([
  [64, 43, 34, 34, 3, '5fabded6d752cd5d'],
  [33, 77, 56, 56, 3, 'd3a2aa6c508a5ae2'],
  [50, 40, 90, 70, 3, 'b90bb8ebdf50c5da'],
  [61, 40, 20, 17, 2, '6ce0c6034e2005e7'],
  [61, 40, 20, 17, 1, 'acec1820bc227e24'],
] as const)(
  '%i x %i to %i x %i with filter %i is what Pillow 10.4 gives, to the bit',
  (width, height, toWidth, toHeight, code, expected) => {
    expect(digest(resize(random(width, height), toWidth, toHeight, filters[code]).data)).toBe(expected);
  },
);

test.skipIf(!hasFixtures)('a JPEG decodes to what Pillow 10.4 gives, to the bit', async () => {
  expect(digest((await decodeImage(join(fixturesDir, 'images', 'scene5.jpg'))).data)).toBe('ca9d637f737ca0af');
});

test('resampling keeps flat pictures flat and copies at equal size', () => {
  const flat = { width: 7, height: 5, data: new Uint8Array(105).fill(77) };
  for (const filter of Object.values(filters)) {
    for (const [w, h] of [
      [3, 9],
      [20, 2],
      [7, 5],
    ] as const)
      expect(new Set(resize(flat, w, h, filter).data)).toEqual(new Set([77]));
  }
  const image = random(6, 4);
  expect(resize(image, 6, 4).data).toEqual(image.data);
});

test('processors: shortest edge and crop, squares, padding, wrong configurations', () => {
  const config = (value: object) => parseConfig('preprocessor_config.json', preprocessorConfig, value);
  const clip = imageProcessor(config({ image_processor_type: 'CLIPImageProcessor', size: 8, crop_size: 8 }));
  expect(clip.process(random(20, 11)).shape).toEqual([3, 8, 8]);
  expect(imageProcessor(config({ image_processor_type: 'BlipImageProcessor', size: 8 })).process(random(20, 11)).shape).toEqual([
    3, 8, 8,
  ]);
  const padded = imageProcessor(
    config({ size: { height: 2, width: 3 }, crop_size: { height: 5, width: 4 }, do_normalize: false }),
  );
  const { data } = padded.process({ width: 3, height: 2, data: new Uint8Array(18).fill(255) });
  expect([...data.subarray(0, 20)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0]);
  expect(() => imageProcessor(config({ size: { shortest_edge: 8 }, do_center_crop: false }))).toThrow(/different sizes/);
  // BLIP's processor has no crop; what a file leaves out has the reference's size
  const blip = { image_processor_type: 'BlipImageProcessor', do_center_crop: true, crop_size: 5, size: 8 };
  expect(imageProcessor(config(blip)).process(random(20, 11)).shape).toEqual([3, 8, 8]);
  expect(imageProcessor(config({ image_processor_type: 'BlipImageProcessor' }))).toMatchObject({ height: 384, width: 384 });
  expect(imageProcessor(config({ image_processor_type: 'CLIPImageProcessor' }))).toMatchObject({ height: 224, width: 224 });
  expect(() => config({ size: 8, image_processor_type: 'SiglipImageProcessor' })).toThrow(/image_processor_type: only CLIP/);
  expect(() => config({ size: 8, resample: 0 })).toThrow(/resample: expected 1 \(Lanczos\)/);
  expect(() => clip.process(random(900, 2))).toThrow(/too narrow/);
});
