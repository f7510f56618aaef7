/** Pictures that clients send: data URLs, paths of pictures that this server has, and addresses of hosts that the operator named. */

import { readFileSync } from 'node:fs';
import { decodeImage } from '../../../src/input/image/decode.ts';
import type { RgbImage } from '../../../src/models/vlm.ts';
import { ApiError } from '../errors.ts';
import type { HostName } from '../http/host.ts';
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
  readonly allowedHosts: readonly HostName[];
  /** a picture of this server by its path; undefined: there is none */
  find(path: string): Promise<Uint8Array | string | undefined> | Uint8Array | string | undefined;
}

const invalid = (message: string, param: string | undefined): ApiError => new ApiError(400, 'invalid_image', message, { param });

/**
 * The bytes of a data URL (RFC 2397): base64 with or without padding, in lines, and in either alphabet of RFC 4648; or bytes written as %XX.
 * @throws ApiError
 */
export function fromDataUrl(url: string, param: string | undefined): Uint8Array {
  const comma = url.indexOf(',');
  if (!isDataUrl(url) || comma < 0 || comma > 1000)
    throw invalid('this is not a data URL of the form data:image/png;base64,...', param);
  const written = url.slice(comma + 1);
  if (/[^\0-\xff]/.test(written)) throw invalid('the data URL has letters that no URL has', param);
  const bytes = Buffer.from(written, 'latin1');
  // A URL may write any byte as %XX, those of base64 too.
  const body = written.includes('%') ? percentDecoded(bytes) : bytes;
  if (body === undefined) throw invalid('the data URL has a % that two hexadecimal digits do not follow', param);
  if (!/;\s*base64\s*$/i.test(url.slice(0, comma))) return body;
  const digits = base64Digits(body);
  if (digits === undefined || digits.length % 4 === 1)
    throw invalid('the data URL is not written in base64, or is cut off', param);
  return Buffer.from(digits.toString('latin1'), 'base64');
}

const isDataUrl = (url: string): boolean => /^\s*data:/i.test(url);

/** In place; undefined: a % begins no byte. */
function percentDecoded(bytes: Buffer): Buffer | undefined {
  let length = 0;
  for (let at = 0; at < bytes.length; at++) {
    if (bytes[at] !== 0x25) bytes[length++] = bytes[at]!;
    else {
      const byte = 16 * hexDigit(bytes[at + 1]) + hexDigit(bytes[at + 2]);
      if (Number.isNaN(byte)) return undefined;
      bytes[length++] = byte;
      at += 2;
    }
  }
  return bytes.subarray(0, length);
}

const hexDigit = (code = 0): number => {
  const lower = code | 0x20;
  return code >= 0x30 && code <= 0x39 ? code - 0x30 : lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : Number.NaN;
};

const isDigit = Uint8Array.from({ length: 256 }, (_, code) => Number(/[\w+/-]/.test(String.fromCharCode(code))));
const isSpace = Uint8Array.from({ length: 256 }, (_, code) => Number(/[\t\n\f\r ]/.test(String.fromCharCode(code))));

/** Without white space and padding, in place; undefined: there is something else. A loop, since expressions run out of stack on megabytes. */
function base64Digits(bytes: Buffer): Buffer | undefined {
  let length = 0;
  let padding = 0;
  for (let at = 0; at < bytes.length; at++) {
    const code = bytes[at]!;
    if (isSpace[code] === 1) continue;
    if (code === 0x3d) padding++;
    else if (isDigit[code] === 1 && padding === 0) bytes[length++] = code;
    else return undefined;
  }
  return padding > 2 ? undefined : bytes.subarray(0, length);
}

export class Pictures {
  constructor(readonly options: PictureOptions) {}

  /** @throws ApiError 400 that says what is wrong with the picture */
  async read(url: string, param: string | undefined, signal: AbortSignal): Promise<SentPicture> {
    return this.decode(await this.#bytes(url, param, signal), param);
  }

  async #bytes(url: string, param: string | undefined, signal: AbortSignal): Promise<Uint8Array> {
    if (isDataUrl(url)) return fromDataUrl(url, param);
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
    const image = await decodeImage(bytes, { maxPixels: this.options.limits.pixels }).catch((error: Error) => {
      throw new ApiError(400, 'invalid_image', error.message, { param, cause: error });
    });
    const [short, long] = [Math.min(image.width, image.height), Math.max(image.width, image.height)];
    if (long > short * maxRatio)
      throw invalid(`the picture is ${image.width} by ${image.height}; at most ${maxRatio} to 1 is allowed`, param);
    return { image, bytes };
  }
}
