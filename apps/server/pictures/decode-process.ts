/** The program of the process that reads clients' pictures; decoder.ts starts it, and ends it when it takes too long. */

import { createHash } from 'node:crypto';
import sharp from 'sharp';
import { hideCells } from '../../../src/attribution/hide.ts';
import { openImage } from '../../../src/input/image/decode.ts';
import type { RgbImage } from '../../../src/input/segments.ts';
import { type DecodeAnswer, type DecodeAsked, type Hide, tooMuchMemory } from './decode-messages.ts';

// libvips chooses a loader by looking at the bytes. In this process only these loaders work.
sharp.block({ operation: ['VipsForeignLoad'] });
sharp.unblock({ operation: ['Jpeg', 'Png', 'Webp', 'Tiff', 'Heif'].map((name) => `VipsForeignLoad${name}Buffer`) });
sharp.concurrency(1);
sharp.cache(false);

const maxBytes = Number(process.argv.at(-1));
setInterval(() => {
  if (process.memoryUsage.rss() > maxBytes) process.exit(tooMuchMemory);
}, 20).unref();

const hidden = (image: RgbImage, { regions, by }: Hide): RgbImage => {
  const { width, height } = image;
  const parts = regions.map(([left, top, w, h]) => ({
    left: left * width,
    top: top * height,
    width: w * width,
    height: h * height,
  }));
  return hideCells(image, parts, by);
};

async function answer({ bytes, maxPixels, want, hide }: DecodeAsked): Promise<DecodeAnswer> {
  try {
    const opened = await openImage(bytes, { maxPixels });
    if (want === 'size') return { width: opened.width, height: opened.height, data: new Uint8Array(), id: '' };
    const pixels = await opened.pixels();
    const { width, height, data } = hide === undefined ? pixels : hidden(pixels, hide);
    if (want === 'pixels') return { width, height, data, id: '' };
    const id = createHash('sha256').update(`${width}x${height}`).update(data).digest('hex').slice(0, 32);
    const png = sharp(data, { raw: { width, height, channels: 3 } }).png({ compressionLevel: 6 });
    return { width, height, data: await png.toBuffer(), id };
  } catch (error) {
    return { error: (error as Error).message };
  }
}

process.on('message', async (asked: DecodeAsked) => {
  const decoded = await answer(asked);
  // V8 does not see how large pictures are, and would collect them much later.
  process.send!(decoded, () => globalThis.gc?.());
});
process.on('disconnect', () => process.exit());
