/** Pictures made of pixels: what figures show, and how they are put inside an SVG. */
import sharp from 'sharp';

/** Rows from the top, three bytes (red, green, blue) for each pixel. */
export interface Pixels {
  width: number;
  height: number;
  data: Uint8Array | Uint8ClampedArray;
}

/**
 * A PNG as a data URI. Pictures wider or higher than 512 are made smaller, since a panel shows no more; small ones (the
 * mini world's, grids of values) grow by whole pixels, so that no viewer blurs them.
 */
export async function pngUri(pixels: Pixels): Promise<string> {
  const { width, height, data } = pixels;
  if (!(width > 0 && height > 0) || data.length !== width * height * 3) {
    throw new Error(`a picture of ${width}x${height} needs ${width * height * 3} bytes (RGB), but ${data.length} were given`);
  }
  const raw = enlarge(pixels, Math.ceil(192 / Math.max(width, height)));
  let made = sharp(raw.data, { raw: { width: raw.width, height: raw.height, channels: 3 } });
  if (Math.max(width, height) > 512) made = made.resize(512, 512, { fit: 'inside' });
  return `data:image/png;base64,${(await made.png({ compressionLevel: 9 }).toBuffer()).toString('base64')}`;
}

function enlarge({ width, height, data }: Pixels, factor: number): Pixels {
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

/** The same picture in grey, so that colours laid over it can be read. */
export function toGrey({ width, height, data }: Pixels): Pixels {
  const grey = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = [data[3 * i] ?? 0, data[3 * i + 1] ?? 0, data[3 * i + 2] ?? 0];
    grey.fill(Math.round(0.2126 * r + 0.7152 * g + 0.0722 * b), 3 * i, 3 * i + 3);
  }
  return { width, height, data: grey };
}
