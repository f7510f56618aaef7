import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import fc from 'fast-check';
import sharp from 'sharp';
import { afterAll, describe, expect, test } from 'vitest';
import { parseConfig, readConfig } from '../../../src/files/config.ts';
import { openSafetensors } from '../../../src/files/safetensors.ts';
import { preprocessorConfig } from '../../../src/input/image/config.ts';
import { decodeImage, onWhite } from '../../../src/input/image/decode.ts';
import { imageProcessor, squareProcessor } from '../../../src/input/image/processor.ts';
import { filters, resize } from '../../../src/input/image/resample.ts';
import type { RgbImage } from '../../../src/input/segments.ts';
import { fixturesDir, hasFixtures } from '../../shared.ts';

fc.configureGlobal({ seed: 3 });

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

test('transparency is kept beside the colours, and put on white where a processor asks for it', async () => {
  const half = await decodeImage(await plain({ r: 200, g: 100, b: 50, alpha: 0.5 }).png().toBuffer());
  expect(half.alpha).toEqual(new Uint8Array(48).fill(128));
  // PIL.Image.alpha_composite over white
  expect(pixel(onWhite(half), 3, 3)).toEqual([227, 177, 152]);
  const opaque = await decodeImage(await plain({ r: 200, g: 100, b: 50, alpha: 1 }).png().toBuffer());
  expect(opaque.alpha).toBeUndefined();
  expect(onWhite(opaque)).toBe(opaque);
  const settings = parseConfig('c', preprocessorConfig, { size: 4, crop_size: 4, do_normalize: false });
  const value = (version: 4 | 5) => imageProcessor(settings, 'c', version).process(half).data[0]! * 255;
  expect([Math.round(value(4)), Math.round(value(5))]).toEqual([200, 227]);
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

test.each([
  // orientation, the corner of the seen picture that is the first pixel of the file
  [1, [0, 0]],
  [2, [7, 0]],
  [3, [7, 5]],
  [4, [0, 5]],
  [5, [0, 0]],
  [6, [5, 0]],
  [7, [5, 7]],
  [8, [0, 7]],
] as const)('EXIF orientation %i: upright as people see it, or as the file has it', async (orientation, [x, y]) => {
  const data = new Uint8Array(8 * 6 * 3);
  data.fill(255, 0, 3);
  const raw = { raw: { width: 8, height: 6, channels: 3 as const } };
  const turned = await sharp(data, raw).png().withMetadata({ orientation }).toBuffer();
  const stored = await decodeImage(turned, { orientation: 'stored' });
  expect([stored.width, stored.height, ...pixel(stored, 0, 0)]).toEqual([8, 6, 255, 255, 255]);
  const seen = await decodeImage(turned);
  expect([seen.width, seen.height, ...pixel(seen, x, y)]).toEqual([...(orientation > 4 ? [6, 8] : [8, 6]), 255, 255, 255]);
});

/** A GIF of one frame, written with a code for each pixel and the table cleared before codes grow. */
function gifOf(
  screen: readonly [number, number],
  {
    left,
    top,
    width,
    height,
    indices,
    palette,
    transparent,
    own,
  }: {
    left: number;
    top: number;
    width: number;
    height: number;
    indices: readonly number[];
    palette: Uint8Array;
    transparent: number | undefined;
    own: boolean;
  },
): Buffer {
  const u16 = (...values: number[]) => values.flatMap((value) => [value & 255, value >> 8]);
  const flags = 0x80 | 7;
  let bits = '';
  // Nine bits each, the lowest first.
  const put = (code: number) => {
    bits = code.toString(2).padStart(9, '0') + bits;
  };
  indices.forEach((index, i) => {
    if (i % 200 === 0) put(256);
    put(index);
  });
  put(257);
  const data = (bits.length % 8 === 0 ? bits : bits.padStart(bits.length + 8 - (bits.length % 8), '0')).match(/.{8}/g)!;
  const bytes = data.map((byte) => Number.parseInt(byte, 2)).reverse();
  const blocks = Array.from({ length: Math.ceil(bytes.length / 255) }, (_, i) => bytes.slice(i * 255, (i + 1) * 255));
  return Buffer.from([
    ...Buffer.from('GIF89a'),
    ...u16(...screen),
    own ? 0 : flags,
    0,
    0,
    ...(own ? [] : palette),
    ...(transparent === undefined ? [] : [0x21, 0xf9, 4, 1, 0, 0, transparent, 0]),
    0x2c,
    ...u16(left, top, width, height),
    own ? flags : 0,
    ...(own ? palette : []),
    8,
    ...blocks.flatMap((block) => [block.length, ...block]),
    0,
    0x3b,
  ]);
}

describe('GIF', () => {
  const frame = fc
    .record({ left: fc.nat(5), top: fc.nat(5), width: fc.integer({ min: 1, max: 20 }), height: fc.integer({ min: 1, max: 20 }) })
    .chain(({ width, height, ...place }) =>
      fc.record({
        ...{ left: fc.constant(place.left), top: fc.constant(place.top), width: fc.constant(width), height: fc.constant(height) },
        indices: fc.array(fc.nat(255), { minLength: width * height, maxLength: width * height }),
        palette: fc.uint8Array({ minLength: 768, maxLength: 768 }),
        transparent: fc.option(fc.nat(255), { nil: undefined }),
        own: fc.boolean(),
      }),
    );

  test('every pixel has its colour of the palette, transparent ones too; so has what the frame leaves free, as in PIL', async () => {
    await fc.assert(
      fc.asyncProperty(fc.tuple(fc.integer({ min: 1, max: 24 }), fc.integer({ min: 1, max: 24 })), frame, async (screen, of) => {
        const image = await decodeImage(gifOf(screen, of));
        const size = [Math.max(screen[0], of.left + of.width), Math.max(screen[1], of.top + of.height)];
        expect([image.width, image.height]).toEqual(size);
        for (let y = 0; y < image.height; y++)
          for (let x = 0; x < image.width; x++) {
            const [column, row] = [x - of.left, y - of.top];
            const inside = column >= 0 && row >= 0 && column < of.width && row < of.height;
            const index = inside ? of.indices[row * of.width + column]! : (of.transparent ?? 0);
            expect(pixel(image, x, y)).toEqual([...of.palette.subarray(3 * index, 3 * index + 3)]);
            expect(image.alpha?.[y * image.width + x] ?? 255).toBe(index === of.transparent ? 0 : 255);
          }
      }),
      { numRuns: 50 },
    );
  });

  test('compressed and interlaced files are what libvips makes of them; damaged ones are refused', async () => {
    const noise = await sharp(Buffer.from(Array.from({ length: 90 * 70 * 3 }, (_, i) => (i * i * 31 + (i >> 5)) % 256)), {
      raw: { width: 90, height: 70, channels: 3 },
    })
      .gif({ dither: 0 })
      .toBuffer();
    const expected = await sharp(noise).removeAlpha().raw().toBuffer();
    expect(Buffer.from((await decodeImage(noise)).data).equals(expected)).toBe(true);
    await fc.assert(
      fc.asyncProperty(fc.nat(noise.length - 2), fc.option(fc.uint8Array({ minLength: 1, maxLength: 8 })), async (cut, junk) => {
        const bytes = Buffer.from(noise);
        bytes.set(junk ?? [], Math.min(cut, bytes.length - 8));
        // Any picture, or an error that says so.
        await decodeImage(junk === null ? bytes.subarray(0, cut) : bytes).catch((error: Error) =>
          expect(error.message).toMatch(/is empty|is not a picture|is damaged or cut off|more than the/),
        );
      }),
      { numRuns: 200 },
    );
    await expect(decodeImage(noise.subarray(0, 2000))).rejects.toThrow('damaged or cut off');
  });
});

test('what begins as a picture never reaches the decoder of another format', async () => {
  const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"><rect width="4" height="4"/></svg>';
  for (const begin of ['<PNG:', 'II*\0\b\0\0\0', 'RIFF\0\0\0\0WEBP', '\0\0\0 ftypavif', 'GIF89a\x01\0\x01\0', 'MM\0*\0\0\0\b'])
    for (const drawing of [svg, ` ${svg}`, svg.replaceAll('svg', 'SVG'), `<!-- ${'x'.repeat(800)} -->${svg}`])
      await expect(decodeImage(Buffer.from(begin + drawing, 'latin1'))).rejects.toThrow(
        /not a picture|damaged or cut off \(it has no frame\)/,
      );
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
  await expect(decodeImage('/dev/zero')).rejects.toThrow('cannot read picture /dev/zero: it is not a file');
  await expect(decodeImage(scratch)).rejects.toThrow(/cannot read picture/);
  const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"><rect width="4" height="4"/></svg>';
  await expect(decodeImage(at('drawing.svg', svg))).rejects.toThrow(/drawing\.svg is not a picture/);
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

test.each([
  [64, 43, 34, 34, 3, 'bc440346b1370981'],
  [33, 77, 56, 56, 3, 'da977a493d0969c4'],
  [50, 40, 90, 70, 3, '55f7f8e505f8e37e'],
  [61, 40, 20, 17, 2, '19f6a95573e017d2'],
  [61, 40, 20, 17, 1, '5ecda9df148b5eee'],
  [200, 150, 13, 300, 3, '43ff02c81b332863'],
  [500, 400, 33, 21, 2, '01541fc1e8610a96'],
  [31, 29, 31, 64, 1, '3402e83e79153ec4'],
] as const)(
  '%i x %i to %i x %i with filter %i is what torchvision 0.29 gives, to the bit',
  (width, height, toWidth, toHeight, code, expected) => {
    expect(digest(resize(random(width, height), toWidth, toHeight, filters[code], 'torchvision').data)).toBe(expected);
  },
);

/** Settings, a picture's size, and the hash of the float32 pixels that transformers 5.24.0 makes of it. */
test.each<[object, number, number, string]>([
  [
    { image_processor_type: 'CLIPImageProcessorFast', size: { shortest_edge: 20 }, crop_size: { height: 20, width: 20 } },
    61,
    40,
    '22b29c0fdec78860',
  ],
  [
    { image_processor_type: 'CLIPImageProcessorFast', size: { shortest_edge: 21 }, crop_size: { height: 16, width: 18 } },
    40,
    61,
    '0c4a8791b6eb926f',
  ],
  [
    { image_processor_type: 'CLIPImageProcessorFast', size: { height: 9, width: 12 }, crop_size: { height: 14, width: 15 } },
    40,
    61,
    '135a2b1cb07aebef',
  ],
  [
    {
      image_processor_type: 'CLIPImageProcessorFast',
      size: { shortest_edge: 20 },
      crop_size: { height: 20, width: 20 },
      do_normalize: false,
    },
    33,
    20,
    '858eb6316e4cce88',
  ],
  [
    {
      image_processor_type: 'CLIPImageProcessorFast',
      size: { shortest_edge: 20 },
      crop_size: { height: 20, width: 20 },
      do_rescale: false,
    },
    33,
    20,
    '9e5ebdbe92071c47',
  ],
  [
    {
      image_processor_type: 'CLIPImageProcessorFast',
      size: { shortest_edge: 20 },
      crop_size: { height: 20, width: 20 },
      rescale_factor: 0.004,
      image_mean: [0.5, 0.4, 0.3],
      image_std: [0.5, 0.6, 0.7],
      resample: 2,
    },
    33,
    29,
    '184db7ae565d27cc',
  ],
  [
    {
      image_processor_type: 'LlavaImageProcessorFast',
      size: { shortest_edge: 20 },
      crop_size: { height: 20, width: 20 },
      do_pad: true,
    },
    61,
    40,
    '68fc325bcae71e9f',
  ],
  [
    {
      image_processor_type: 'LlavaImageProcessorFast',
      size: { shortest_edge: 20 },
      crop_size: { height: 20, width: 20 },
      do_pad: true,
    },
    40,
    63,
    '896358dccef28668',
  ],
  [{ image_processor_type: 'BlipImageProcessorFast', size: { height: 20, width: 20 } }, 61, 40, '9270f478112b5af0'],
  [
    {
      image_processor_type: 'BlipImageProcessorFast',
      size: { height: 24, width: 24 },
      do_center_crop: true,
      crop_size: { height: 20, width: 20 },
    },
    61,
    40,
    '519f164779cf44b3',
  ],
  [
    { image_processor_type: 'CLIPImageProcessorPil', size: { height: 9, width: 12 }, crop_size: { height: 14, width: 15 } },
    40,
    61,
    'd03bee7bdc31d550',
  ],
])('%j of a picture of %i x %i: the pixels of transformers 5.24, to the bit', (settings, width, height, expected) => {
  const { data } = imageProcessor(parseConfig('c', preprocessorConfig, settings)).process(random(width, height));
  expect(digest(new Uint8Array(data.buffer))).toBe(expected);
});

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
  expect(() => config({ size: 8, image_processor_type: 'ViTImageProcessor' })).toThrow(/image_processor_type: only CLIP/);
  expect(() => config({ size: 8, resample: 0 })).toThrow(/resample: expected 1 \(Lanczos\)/);
  expect(() => clip.process(random(900, 2))).toThrow(/too narrow/);
  for (const huge of [{ shortest_edge: 20_000 }, 20_000, { height: 20_000, width: 8 }])
    expect(() => config({ size: huge })).toThrow(/size.* at most 2048 pixels/);
  expect(() => config({ size: 8, crop_size: 5000 })).toThrow(/crop_size.* at most 2048 pixels/);
  expect(() => config({ size: 8, image_std: [1, 0, 1] })).toThrow(/image_std\.1: expected a number above 0/);
  expect(() => config({ size: { shortest_edge: 8, longest_edge: 16 } })).toThrow(/size.*/);
  const large = imageProcessor(config({ size: { shortest_edge: 2048 }, crop_size: 8 }));
  expect(() => large.process(random(900, 20))).toThrow(/would become one of \d+ pixels, more than the 16777216 allowed/);
});
