/** Pictures that clients send: data URLs, paths of pictures that this server has, and addresses of hosts that the operator named. */

import { readFile } from 'node:fs/promises';
import type { RgbImage } from '../../../src/input/segments.ts';
import { Budget } from '../budget.ts';
import { ApiError } from '../errors.ts';
import type { HostName } from '../http/host.ts';
import type { Limits } from '../options.ts';
import type { Hide } from './decode-messages.ts';
import { Decoder } from './decoder.ts';
import { fetchPicture } from './remote.ts';

/** Largest ratio of a picture's sides: processors scale the short side first, which makes the long one huge. */
const maxRatio = 100;

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

/** Decodes in place. @returns undefined when two hexadecimal digits do not follow a % */
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

/** Removes white space and padding in place. @returns undefined for anything else that is not base64. A regular expression runs out of stack here. */
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

/** A picture as a client names it, and the field that does. */
export interface Source {
  readonly url: string;
  readonly param: string;
}

/** A picture as the model sees it, as a PNG file. */
export interface Png {
  /** hash of its pixels */
  readonly id: string;
  readonly width: number;
  readonly height: number;
  /** the file */
  readonly data: Uint8Array;
}

/** Bytes of pixels that the server holds at the same time. */
const heldBytes = 64e6;
/** The pictures of one request may have so many times `limits.pixels` together. */
const perRequest = 4;

export class Pictures {
  readonly #decoder: Decoder;
  readonly #held = new Budget(heldBytes);

  constructor(readonly options: PictureOptions) {
    this.#decoder = new Decoder(options.limits.pixels);
  }

  /**
   * Reads pictures, gives them to `work`, and lets go of them when it ends. Pictures with the same address are read once.
   * @throws ApiError 400 that says what is wrong with which picture
   */
  async with<T>(
    sources: readonly Source[],
    signal: AbortSignal,
    work: (images: readonly RgbImage[]) => T | Promise<T>,
  ): Promise<T> {
    const { limits } = this.options;
    const distinct = new Map(sources.map((source) => [source.url, source]));
    const files = new Map<string, Uint8Array>();
    let bytes = 0;
    for (const { url, param } of distinct.values()) {
      const file = await this.#bytes(url, param, signal);
      bytes += 3 * (await this.#measure(file, param, signal));
      if (bytes > 3 * perRequest * limits.pixels)
        throw invalid(`the pictures have more than the ${perRequest * limits.pixels} pixels together that are allowed`, param);
      files.set(url, file);
    }
    const release = await this.#held.take(bytes, signal);
    try {
      const images = new Map<string, RgbImage>();
      for (const { url, param } of distinct.values())
        images.set(url, await this.#decoder.decode(files.get(url)!, 'pixels', param, signal));
      return await work(sources.map(({ url }) => images.get(url)!));
    } finally {
      release();
    }
  }

  /** A picture as a file of its own, with some parts hidden. @throws ApiError 400 as `with` */
  async asPng({ url, param }: Source, signal: AbortSignal, hide?: Hide): Promise<Png> {
    const file = await this.#bytes(url, param, signal);
    await this.#measure(file, param, signal);
    return this.#decoder.decode(file, 'png', param, signal, hide);
  }

  async #measure(file: Uint8Array, param: string, signal: AbortSignal): Promise<number> {
    const { width, height } = await this.#decoder.decode(file, 'size', param, signal);
    if (Math.max(width, height) > Math.min(width, height) * maxRatio)
      throw invalid(`the picture is ${width} by ${height}; at most ${maxRatio} to 1 is allowed`, param);
    return width * height;
  }

  async #bytes(url: string, param: string, signal: AbortSignal): Promise<Uint8Array> {
    if (isDataUrl(url)) return fromDataUrl(url, param);
    if (url.startsWith('/')) {
      const found = await this.options.find(url);
      if (found === undefined) throw invalid(`this server has no picture ${url.slice(0, 200)}`, param);
      return typeof found === 'string' ? readFile(found) : found;
    }
    const { allowedHosts: allowed, limits } = this.options;
    return fetchPicture(url, { allowed, maxBytes: limits.bodyBytes, signal, param });
  }

  close(): void {
    this.#decoder.close();
  }
}
