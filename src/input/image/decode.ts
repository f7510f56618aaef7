/**
 * Picture files to RGB bytes, with the choices of PIL's `Image.open(...).convert('RGB')`, which the reference
 * processors use: the first frame of an animation; alpha is dropped, not blended; EXIF orientation is not applied;
 * colour profiles are ignored. One difference: 16-bit grey is scaled to 8 bits, where PIL cuts it off at 255.
 */
import { readFileSync, statSync } from 'node:fs';
import sharp, { type Sharp } from 'sharp';

export interface RgbImage {
  readonly width: number;
  readonly height: number;
  /** rows of red, green, blue bytes */
  readonly data: Uint8Array;
}

/** Drawings and documents are left out: rendering them would read other files and needs a size. */
const FORMATS = new Set(['jpeg', 'png', 'webp', 'gif', 'tiff', 'heif', 'avif']);
const MAX_FILE = 512 * 1024 * 1024;

/**
 * The pixels of a picture file, or of its bytes: 8-bit RGB, row by row.
 * @throws Error that names the file when it is missing, no PNG, JPEG, WebP, GIF or TIFF, damaged, or has more than `maxPixels` pixels
 */
export async function decodeImage(source: string | Uint8Array, { maxPixels = 64e6 } = {}): Promise<RgbImage> {
  const name = typeof source === 'string' ? source : 'the picture';
  const bytes = typeof source === 'string' ? readPicture(source) : source;
  if (bytes.byteLength === 0) throw new Error(`${name} is empty; a picture file (PNG, JPEG, WebP, GIF, TIFF) is needed`);
  const open = (): Sharp => sharp(bytes, { limitInputPixels: false, failOn: 'error', ignoreIcc: true });
  const meta = await open()
    .metadata()
    .catch((error: Error) => {
      throw new Error(
        `${name} is not a picture, or is damaged; a PNG, JPEG, WebP, GIF or TIFF file is needed (${firstLine(error)})`,
        { cause: error },
      );
    });
  if (!FORMATS.has(meta.format))
    throw new Error(`${name} is a ${meta.format} file; a PNG, JPEG, WebP, GIF or TIFF picture is needed`);
  const { width } = meta;
  const height = meta.pageHeight ?? meta.height;
  if (width * height > maxPixels)
    throw new Error(`${name} is ${width} by ${height} pixels, more than the ${maxPixels} allowed; make it smaller first`);
  try {
    if (meta.space === 'cmyk') return fromCmyk(await raw(open().pipelineColourspace('cmyk').toColourspace('cmyk')));
    return await raw(open().removeAlpha().toColourspace('srgb'));
  } catch (error) {
    throw new Error(`${name} is damaged or cut off (${firstLine(error as Error)})`, { cause: error });
  }
}

function readPicture(path: string): Uint8Array {
  try {
    const { size } = statSync(path);
    if (size > MAX_FILE) throw new Error(`it has ${size} bytes, more than the ${MAX_FILE} allowed`);
    return readFileSync(path);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new Error(missing ? `picture ${path} does not exist` : `cannot read picture ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

async function raw(picture: Sharp): Promise<RgbImage & { channels: number }> {
  const { data, info } = await picture.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, data, channels: info.channels };
}

/** PIL's conversion: each colour is 255 - K, less its ink's share of that. */
function fromCmyk({ width, height, data, channels }: RgbImage & { channels: number }): RgbImage {
  const out = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    const light = 255 - data[i * channels + 3]!;
    for (let c = 0; c < 3; c++) out[i * 3 + c] = light - Math.round((data[i * channels + c]! * light) / 255);
  }
  return { width, height, data: out };
}

const firstLine = (error: Error) => error.message.split('\n')[0] ?? '';
