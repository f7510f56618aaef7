/** Pictures that clients send: data URLs, paths of pictures that this server has, and addresses of hosts that the operator named. */

import { readFileSync } from 'node:fs';
import { decodeImage } from '../../../src/input/image/decode.ts';
import type { RgbImage } from '../../../src/models/vlm.ts';
import { ApiError } from '../errors.ts';
import type { Limits } from '../options.ts';
import { fetchPicture } from './remote.ts';

/** Longer than this the sides of a picture must not differ: processors scale the short one first. */
const maxRatio = 100;

export interface SentPicture {
  readonly image: RgbImage;
  /** the file as it was sent */
  readonly bytes: Uint8Array;
}

export interface PictureOptions {
  readonly limits: Pick<Limits, 'pixels' | 'bodyBytes'>;
  readonly allowedHosts: readonly string[];
  /** a picture of this server by its path; undefined: there is none */
  find(path: string): Promise<Uint8Array | string | undefined> | Uint8Array | string | undefined;
}

const invalid = (message: string, param: string | undefined): ApiError => new ApiError(400, 'invalid_image', message, { param });

/** The first bytes of the formats that are read; decoders of anything else never see what a client sent. */
const beginnings: readonly ((bytes: Uint8Array) => boolean)[] = [
  (b) => ascii(b, 1, 3) === 'PNG',
  (b) => b[0] === 0xff && b[1] === 0xd8 && b[2] === 0xff,
  (b) => ascii(b, 0, 4) === 'RIFF' && ascii(b, 8, 4) === 'WEBP',
  (b) => ascii(b, 0, 3) === 'GIF',
  (b) => ascii(b, 0, 4) === 'II*\0' || ascii(b, 0, 4) === 'MM\0*',
  (b) => ascii(b, 4, 4) === 'ftyp' && /^(avif|avis|mif1|heic|heix)/.test(ascii(b, 8, 4)),
];
const ascii = (bytes: Uint8Array, at: number, length: number): string => String.fromCharCode(...bytes.subarray(at, at + length));

/** The bytes of a data URL. @throws ApiError */
export function fromDataUrl(url: string, param: string | undefined): Uint8Array {
  const comma = url.indexOf(',');
  if (comma < 0 || comma > 200 || !/^data:[\w.+/-]*(;[\w.+=-]+)*;base64$/i.test(url.slice(0, comma)))
    throw invalid('this is not a data URL of the form data:image/png;base64,...', param);
  const text = url.slice(comma + 1);
  if (text.length % 4 === 1 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text))
    throw invalid('the data URL is not written in base64, or is cut off', param);
  return Buffer.from(text, 'base64');
}

export class Pictures {
  constructor(readonly options: PictureOptions) {}

  /** @throws ApiError 400 that says what is wrong with the picture */
  async read(url: string, param: string | undefined, signal: AbortSignal): Promise<SentPicture> {
    return this.decode(await this.#bytes(url, param, signal), param);
  }

  async #bytes(url: string, param: string | undefined, signal: AbortSignal): Promise<Uint8Array> {
    if (url.startsWith('data:')) return fromDataUrl(url, param);
    if (url.startsWith('/')) {
      const found = await this.options.find(url);
      if (found === undefined) throw invalid(`this server has no picture ${url.slice(0, 200)}`, param);
      return typeof found === 'string' ? readFileSync(found) : found;
    }
    const { allowedHosts: allowed, limits } = this.options;
    return fetchPicture(url, { allowed, maxBytes: limits.bodyBytes, signal, param });
  }

  async decode(bytes: Uint8Array, param: string | undefined): Promise<SentPicture> {
    if (bytes.length === 0) throw invalid('the picture is empty', param);
    if (!beginnings.some((begins) => begins(bytes)))
      throw invalid('this is not a picture; a PNG, JPEG, WebP, GIF, TIFF or AVIF is needed', param);
    const image = await decodeImage(bytes, { maxPixels: this.options.limits.pixels }).catch((error: Error) => {
      throw new ApiError(400, 'invalid_image', error.message, { param, cause: error });
    });
    const [short, long] = [Math.min(image.width, image.height), Math.max(image.width, image.height)];
    if (long > short * maxRatio)
      throw invalid(`the picture is ${image.width} by ${image.height}; at most ${maxRatio} to 1 is allowed`, param);
    return { image, bytes };
  }
}
