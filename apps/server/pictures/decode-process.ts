/** The program of the process that reads clients' pictures; decoder.ts starts it, and ends it when it takes too long. */

import sharp from 'sharp';
import { openImage } from '../../../src/input/image/decode.ts';
import { type DecodeAsked, type Decoded, tooMuchMemory } from './decode-messages.ts';

// What a library would find in the bytes does not matter: the loaders of other formats do not work in this process.
sharp.block({ operation: ['VipsForeignLoad'] });
sharp.unblock({ operation: ['Jpeg', 'Png', 'Webp', 'Tiff', 'Heif'].map((name) => `VipsForeignLoad${name}Buffer`) });
sharp.concurrency(1);
sharp.cache(false);

const maxBytes = Number(process.argv.at(-1));
setInterval(() => {
  if (process.memoryUsage.rss() > maxBytes) process.exit(tooMuchMemory);
}, 20).unref();

async function answer({ bytes, maxPixels, pixels }: DecodeAsked): Promise<Decoded> {
  try {
    const opened = await openImage(bytes, { maxPixels });
    const { width, height, data } = pixels ? await opened.pixels() : { ...opened, data: undefined };
    return { width, height, data };
  } catch (error) {
    return { error: (error as Error).message };
  }
}

process.on('message', (asked: DecodeAsked) => void answer(asked).then((decoded) => process.send!(decoded)));
process.on('disconnect', () => process.exit());
