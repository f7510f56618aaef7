/**
 * PIL's resampling of 8-bit pictures (src/libImaging/Resample.c): a horizontal and a vertical pass, each with
 * fixed-point weights and rounded to bytes, the filter widened when shrinking. torch and torchvision do the same with weights of 16 bits. Reproduced to the bit, because the
 * reference processors use it and other libraries round differently. The horizontal pass comes first, as in Pillow 10; Pillow 13 shrinks the height first
 * where that takes away more than twice as many pixels as the width loses, which differs by a level or two in photographs and by more in pictures of
 * pure black and white.
 */
import type { RgbImage } from '../segments.ts';
import type { Resizer } from './config.ts';

interface Filter {
  readonly support: number;
  weight(x: number): number;
}

const sinc = (x: number) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

/** The filters by PIL's codes. */
export const filters: Readonly<Record<1 | 2 | 3, Filter>> = {
  /** Lanczos */
  1: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
  /** bilinear */
  2: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  /** bicubic with a = -0.5 */
  3: {
    support: 2,
    weight: (signed) => {
      const x = Math.abs(signed);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
    },
  },
};

/** bits of Pillow's weights: 32 less 8 for the pixel and 2 for the overshoot */
const PRECISION = 22;

interface Taps {
  /** first source pixel of each output pixel */
  starts: Int32Array;
  /** `size` weights per output pixel, zero beyond those used */
  weights: Int32Array;
  size: number;
  /** bits of the weights behind the point */
  precision: number;
}

function tapsOf(from: number, to: number, filter: Filter, resizer: Resizer): Taps {
  const scale = from / to;
  const widening = Math.max(scale, 1);
  const support = filter.support * widening;
  const size = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(to);
  const exact = new Float64Array(to * size);
  for (let i = 0; i < to; i++) {
    const center = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(from, Math.trunc(center + support + 0.5));
    const row = exact.subarray(i * size, i * size + end - start);
    for (let k = 0; k < row.length; k++) row[k] = filter.weight((k + start - center + 0.5) * (1 / widening));
    const sum = row.reduce((a, b) => a + b, 0);
    if (sum !== 0) for (let k = 0; k < row.length; k++) row[k] = row[k]! / sum;
    starts[i] = start;
  }
  const precision = resizer === 'torchvision' ? shortPrecision(exact) : PRECISION;
  const weights = new Int32Array(exact.length);
  exact.forEach((weight, k) => {
    const fixed = weight * 2 ** precision;
    weights[k] = Math.trunc(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
  });
  return { starts, weights, size, precision };
}

/** torch keeps weights in 16 bits: as many bits as the largest leaves room for (ATen/native/cpu/UpSampleKernel.cpp). */
function shortPrecision(weights: Float64Array): number {
  const largest = weights.reduce((a, b) => Math.max(a, b), 0);
  let precision = 0;
  while (precision < 22 && Math.trunc(0.5 + largest * 2 ** (precision + 1)) < 2 ** 15) precision++;
  return precision;
}

/** Rows of `width` pixels, each from `from` pixels. */
function across(source: Uint8Array, from: number, rows: number, width: number, filter: Filter, resizer: Resizer): Uint8Array {
  const { starts, weights, size, precision } = tapsOf(from, width, filter, resizer);
  const out = new Uint8ClampedArray(rows * width * 3);
  const half = 1 << (precision - 1);
  for (let row = 0, to = 0; row < rows; row++) {
    for (let i = 0; i < width; i++, to += 3) {
      const start = starts[i]!;
      const end = i * size + Math.min(size, from - start);
      let [red, green, blue] = [half, half, half];
      for (let k = i * size, at = (row * from + start) * 3; k < end; k++, at += 3) {
        const weight = weights[k]!;
        red += source[at]! * weight;
        green += source[at + 1]! * weight;
        blue += source[at + 2]! * weight;
      }
      out[to] = red >> precision;
      out[to + 1] = green >> precision;
      out[to + 2] = blue >> precision;
    }
  }
  return new Uint8Array(out.buffer);
}

/** `height` rows of a picture of `from` rows. */
function down(source: Uint8Array, from: number, width: number, height: number, filter: Filter, resizer: Resizer): Uint8Array {
  const { starts, weights, size, precision } = tapsOf(from, height, filter, resizer);
  const length = width * 3;
  const out = new Uint8ClampedArray(height * length);
  const sums = new Int32Array(length);
  for (let i = 0; i < height; i++) {
    const start = starts[i]!;
    sums.fill(1 << (precision - 1));
    for (let k = 0; k < Math.min(size, from - start); k++) {
      const weight = weights[i * size + k]!;
      const row = (start + k) * length;
      if (weight !== 0) for (let j = 0; j < length; j++) sums[j]! += source[row + j]! * weight;
    }
    for (let j = 0, to = i * length; j < length; j++) out[to + j] = sums[j]! >> precision;
  }
  return new Uint8Array(out.buffer);
}

export function resize(
  image: RgbImage,
  width: number,
  height: number,
  filter: Filter = filters[3],
  resizer: Resizer = 'pillow',
): RgbImage {
  const { data } = image;
  const [shorter, narrower] = [image.height - height, image.width - width];
  const wide = (from: Uint8Array, rows: number): Uint8Array =>
    narrower === 0 ? from : across(from, image.width, rows, width, filter, resizer);
  const high = (from: Uint8Array, columns: number): Uint8Array =>
    shorter === 0 ? from : down(from, image.height, columns, height, filter, resizer);
  const heightFirst = resizer === 'pillow-13' && shorter > 0 && shorter > 2 * narrower;
  return { width, height, data: heightFirst ? wide(high(data, image.width), height) : high(wide(data, image.height), width) };
}
