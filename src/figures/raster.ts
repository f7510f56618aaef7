/** Pictures made of pixels: what figures show, and how they are put inside an SVG. Runs in Node and in browsers alike. */
import { encodePng, fromBase64, toBase64 } from './png.ts';

/** A picture: rows from the top, three bytes (red, green, blue) for each pixel; in a figure kept as JSON, those bytes in base64. */
export interface Pixels {
  width: number;
  height: number;
  data: Uint8Array | Uint8ClampedArray | string;
}

interface Raster extends Pixels {
  data: Uint8Array | Uint8ClampedArray;
}

/** No panel shows more pixels than this on a side. */
const largest = 384;

/**
 * A PNG as a data URI. Large pictures are made smaller; small ones (the mini world's, grids of values) grow by whole pixels, so that no
 * viewer blurs them.
 */
export async function pngUri(pixels: Pixels): Promise<string> {
  const side = Math.max(pixels.width, pixels.height);
  const raster = bytesOf(pixels);
  const { width, height, data } = side > largest ? shrink(raster, largest / side) : enlarge(raster, Math.ceil(192 / side));
  return `data:image/png;base64,${toBase64(await encodePng(width, height, data))}`;
}

/**
 * Cells of colours [r, g, b, alpha] as a data URI. They grow by whole pixels, so that no viewer blurs them.
 * @param cells four bytes for each, row by row
 */
export async function cellsUri(rows: number, columns: number, cells: Uint8Array): Promise<string> {
  const factor = Math.max(1, Math.ceil(192 / Math.max(rows, columns)));
  const [width, height] = [columns * factor, rows * factor];
  const large = new Uint8Array(4 * width * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const from = 4 * (Math.floor(y / factor) * columns + Math.floor(x / factor));
      large.set(cells.subarray(from, from + 4), 4 * (y * width + x));
    }
  return `data:image/png;base64,${toBase64(await encodePng(width, height, large, true))}`;
}

/** @throws Error unless there are three bytes for every pixel */
export function checkPixels(pixels: Pixels): void {
  bytesOf(pixels);
}

function bytesOf({ width, height, data }: Pixels): Raster {
  const bytes = typeof data === 'string' ? fromBase64(data) : data;
  if (!(width > 0 && height > 0) || bytes.length !== width * height * 3) {
    throw new Error(`a picture of ${width}x${height} needs ${width * height * 3} bytes (RGB), but ${bytes.length} were given`);
  }
  return { width, height, data: bytes };
}

function enlarge({ width, height, data }: Raster, factor: number): Raster {
  if (factor <= 1) return { width, height, data };
  const large = new Uint8Array(width * height * 3 * factor * factor);
  const rowBytes = width * factor * 3;
  for (let y = 0; y < height; y++) {
    const start = y * factor * rowBytes;
    for (let x = 0; x < width * factor; x++) {
      const from = 3 * (y * width + Math.floor(x / factor));
      large.set(data.subarray(from, from + 3), start + 3 * x);
    }
    for (let copy = 1; copy < factor; copy++) large.copyWithin(start + copy * rowBytes, start, start + rowBytes);
  }
  return { width: width * factor, height: height * factor, data: large };
}

/** Each new pixel is the mean of those that it takes the place of. */
function shrink({ width, height, data }: Raster, scale: number): Raster {
  const [columns, rows] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  const small = new Uint8Array(columns * rows * 3);
  for (let row = 0; row < rows; row++) {
    const [top, bottom] = [Math.floor((row * height) / rows), Math.ceil(((row + 1) * height) / rows)];
    for (let column = 0; column < columns; column++) {
      const [left, right] = [Math.floor((column * width) / columns), Math.ceil(((column + 1) * width) / columns)];
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) sum += data[3 * (y * width + x) + channel]!;
        small[3 * (row * columns + column) + channel] = Math.round(sum / ((bottom - top) * (right - left)));
      }
    }
  }
  return { width: columns, height: rows, data: small };
}

/** The same picture in grey, so that colours laid over it can be read. */
export function toGrey(pixels: Pixels): Pixels {
  const { width, height, data } = bytesOf(pixels);
  const grey = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = [data[3 * i] ?? 0, data[3 * i + 1] ?? 0, data[3 * i + 2] ?? 0];
    grey.fill(Math.round(0.2126 * r + 0.7152 * g + 0.0722 * b), 3 * i, 3 * i + 3);
  }
  return { width, height, data: grey };
}
