/**
 * PIL's resampling of 8-bit pictures (src/libImaging/Resample.c): a horizontal and a vertical pass, each with
 * fixed-point weights and rounded to bytes, the filter widened when shrinking. Reproduced to the bit, because the
 * reference processors use it and other libraries round differently. The horizontal pass comes first, as in Pillow 10; Pillow 13 takes the order
 * that costs less, which differs by a level or two in photographs and by more in pictures of pure black and white.
 */
import type { RgbImage } from './decode.ts';

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

/** 32 bits less 8 for the pixel and 2 for the overshoot of the weights */
const PRECISION = 22;

interface Taps {
  /** first source pixel of each output pixel */
  starts: Int32Array;
  /** `size` weights per output pixel, zero beyond those used */
  weights: Int32Array;
  size: number;
}

function tapsOf(from: number, to: number, filter: Filter): Taps {
  const scale = from / to;
  const widening = Math.max(scale, 1);
  const support = filter.support * widening;
  const size = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(to);
  const weights = new Int32Array(to * size);
  for (let i = 0; i < to; i++) {
    const center = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(from, Math.trunc(center + support + 0.5));
    const exact = Array.from({ length: end - start }, (_, k) => filter.weight((k + start - center + 0.5) * (1 / widening)));
    const sum = exact.reduce((a, b) => a + b, 0);
    starts[i] = start;
    exact.forEach((weight, k) => {
      const fixed = (sum === 0 ? weight : weight / sum) * 2 ** PRECISION;
      weights[i * size + k] = Math.trunc(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    });
  }
  return { starts, weights, size };
}

/** One pass over `lines` lines; `step` lies between neighbouring pixels of a line, `next` between lines, in pixels. */
function pass(source: Uint8Array, from: number, lines: number, to: number, vertical: boolean, filter: Filter): Uint8Array {
  const { starts, weights, size } = tapsOf(from, to, filter);
  const out = new Uint8Array(lines * to * 3);
  const [step, next] = vertical ? [lines * 3, 3] : [3, from * 3];
  const [outStep, outNext] = vertical ? [lines * 3, 3] : [3, to * 3];
  for (let i = 0; i < to; i++) {
    const start = starts[i]!;
    const used = Math.min(size, from - start);
    for (let line = 0; line < lines; line++) {
      let red = 1 << (PRECISION - 1);
      let green = red;
      let blue = red;
      let at = line * next + start * step;
      for (let k = i * size; k < i * size + used; k++, at += step) {
        const weight = weights[k]!;
        red += source[at]! * weight;
        green += source[at + 1]! * weight;
        blue += source[at + 2]! * weight;
      }
      const to = line * outNext + i * outStep;
      out[to] = byte(red);
      out[to + 1] = byte(green);
      out[to + 2] = byte(blue);
    }
  }
  return out;
}

const byte = (sum: number) => Math.max(0, Math.min(255, sum >> PRECISION));

export function resize(image: RgbImage, width: number, height: number, filter: Filter = filters[3]): RgbImage {
  let data = image.data;
  if (width !== image.width) data = pass(data, image.width, image.height, width, false, filter);
  if (height !== image.height) data = pass(data, image.height, width, height, true, filter);
  return { width, height, data };
}
