/**
 * Picture files to RGB bytes, with the choices of PIL's `Image.open(...).convert('RGB')`, which the reference
 * processors use: the first frame of an animation; colours are not blended with what is behind them; colour profiles are ignored. Two differences: pictures are
 * turned as their EXIF orientation says, as people see them, unless the pixels are asked for as they are stored; 16-bit grey is scaled to 8 bits,
 * where PIL cuts it off at 255.
 */
import { readFileSync, statSync } from 'node:fs';
import sharp, { type Sharp } from 'sharp';
import type { RgbImage } from '../segments.ts';
import { isGif, openGif } from './gif.ts';

/**
 * How the files of each format begin; `?` is any byte. The format is settled here: drawings and documents, which a library might find in the same bytes, are
 * left out, since rendering them would read other files and needs a size.
 */
const beginnings: Readonly<Record<string, readonly string[]>> = {
  png: ['\x89PNG\r\n\x1a\n'],
  jpeg: ['\xff\xd8\xff'],
  webp: ['RIFF????WEBP'],
  tiff: ['II*\0', 'II+\0', 'MM\0*', 'MM\0+'],
  heif: ['avif', 'avis', 'mif1', 'msf1', 'heic', 'heix', 'hevc'].map((brand) => `????ftyp${brand}`),
};
const MAX_FILE = 512 * 1024 * 1024;

export interface DecodeOptions {
  maxPixels?: number;
  /** `upright` as people see the picture, `stored` as the file has its rows (Pillow's way) */
  orientation?: 'upright' | 'stored';
}

export interface OpenImage {
  /** as it is stored */
  readonly width: number;
  readonly height: number;
  /** @throws Error when the file is damaged or cut off */
  pixels(): Promise<RgbImage>;
}

/**
 * The pixels of a picture file, or of its bytes: 8-bit RGB, row by row.
 * @throws Error that names the file when it is missing, no PNG, JPEG, WebP, GIF, TIFF or AVIF, damaged, or has more than `maxPixels` pixels
 */
export async function decodeImage(source: string | Uint8Array, options: DecodeOptions = {}): Promise<RgbImage> {
  return (await openImage(source, options)).pixels();
}

/** The size of a picture, from the head of its file. @throws as `decodeImage` */
export async function openImage(
  source: string | Uint8Array,
  { maxPixels = 64e6, orientation = 'upright' }: DecodeOptions = {},
): Promise<OpenImage> {
  const name = typeof source === 'string' ? source : 'the picture';
  const bytes = typeof source === 'string' ? readPicture(source) : source;
  if (bytes.byteLength === 0) throw new Error(`${name} is empty; a picture file (PNG, JPEG, WebP, GIF, TIFF, AVIF) is needed`);
  const damaged = (error: unknown): Error =>
    new Error(`${name} is damaged or cut off (${firstLine(error as Error)})`, { cause: error });
  const opened = (width: number, height: number, pixels: () => RgbImage | Promise<RgbImage>): OpenImage => {
    if (width * height > maxPixels)
      throw new Error(`${name} is ${width} by ${height} pixels, more than the ${maxPixels} allowed; make it smaller first`);
    return { width, height, pixels: () => attempt(pixels, damaged) };
  };
  if (isGif(bytes)) {
    const { width, height, pixels } = await attempt(() => openGif(bytes), damaged);
    return opened(width, height, () => ({ width, height, ...pixels() }));
  }
  const format = formatOf(bytes);
  if (format === undefined) throw new Error(`${name} is not a picture; a PNG, JPEG, WebP, GIF, TIFF or AVIF file is needed`);
  const autoOrient = orientation === 'upright';
  const open = (): Sharp => sharp(bytes, { limitInputPixels: false, failOn: 'error', ignoreIcc: true, autoOrient });
  const meta = await attempt(() => open().metadata(), damaged);
  if (meta.format !== format) throw damaged(new Error(`it begins as ${format} and goes on as ${meta.format}`));
  return opened(meta.width, meta.pageHeight ?? meta.height, async () => {
    if (meta.space === 'cmyk') return fromCmyk(await raw(open().pipelineColourspace('cmyk').toColourspace('cmyk')));
    if (meta.hasAlpha) return splitAlpha(await raw(open().ensureAlpha().toColourspace('srgb')));
    const { width, height, data } = await raw(open().removeAlpha().toColourspace('srgb'));
    return { width, height, data };
  });
}

/** The format that the first bytes name. libvips takes files for drawings that have a certain word among letters, whatever they begin with. */
function formatOf(bytes: Uint8Array): string | undefined {
  const head = Buffer.from(bytes.subarray(0, 2048)).toString('latin1');
  if (/<svg/i.test(head) && bytes.subarray(0, 24).every((byte) => byte < 0x80)) return undefined;
  const begins = (pattern: string): boolean => [...pattern].every((letter, i) => letter === '?' || letter === head[i]);
  return Object.keys(beginnings).find((format) => beginnings[format]!.some(begins));
}

async function attempt<T>(run: () => T | Promise<T>, explain: (error: unknown) => Error): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw explain(error);
  }
}

function readPicture(path: string): Uint8Array {
  try {
    const stats = statSync(path);
    const { size } = stats;
    // A device has no size and no end.
    if (stats.isCharacterDevice()) throw new Error('it is not a file');
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

function splitAlpha({ width, height, data: all }: RgbImage): RgbImage {
  const data = new Uint8Array(width * height * 3);
  const alpha = new Uint8Array(width * height);
  for (let i = 0; i < alpha.length; i++) {
    for (let c = 0; c < 3; c++) data[3 * i + c] = all[4 * i + c]!;
    alpha[i] = all[4 * i + 3]!;
  }
  return alpha.every((value) => value === 255) ? { width, height, data } : { width, height, data, alpha };
}

/** The picture on white paper, as processors of transformers 5 take it: PIL's `alpha_composite`, with its rounding. */
export function onWhite(image: RgbImage): RgbImage {
  const { width, height, data, alpha } = image;
  if (alpha === undefined) return image;
  const out = data.map((value, i) => {
    const share = alpha[Math.floor(i / 3)]! * 128;
    const sum = value * share + 255 * (255 * 128 - share) + 0x4000;
    return ((sum >> 8) + sum) >> 15;
  });
  return { width, height, data: out };
}

const firstLine = (error: Error) => error.message.split('\n')[0] ?? '';
