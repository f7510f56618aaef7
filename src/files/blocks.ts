/**
 * Weights in blocks of 4- or 8-bit whole numbers: w = scale (q − zero), one scale and one zero point per run of a row. A block's range always
 * holds 0, which is kept exact. Layout: that of ONNX Runtime's MatMulNBits, four bits two to a byte, the lower half first.
 */

import { f32, type Tensor } from '../graph/dtype.ts';
import { fromBfloat16, fromFloat16 } from './half.ts';

export type BlockBits = 4 | 8;

export const BLOCK = 32;

/** What a matrix [out, in] becomes; in a file each part is a tensor with one of these endings after the weight's name. */
export interface Blocks {
  /** uint8 [out, in / block, block × bits / 8] */
  readonly data: Tensor<'uint8'>;
  /** [out, in / block] */
  readonly scales: Tensor<'float32'>;
  /** uint8 [out, in / block × bits / 8] */
  readonly zeros: Tensor<'uint8'>;
}

export const blockParts = ['data', 'scales', 'zeros'] as const;
export const blockName = (weight: string, part: (typeof blockParts)[number]): string => `${weight}.${part}`;

/** The longest block of at most `longest` numbers that rows of this width allow; undefined: this matrix stays as it is. */
export function blockFor(columns: number, bits: BlockBits, longest = BLOCK): number | undefined {
  for (let block = longest; block >= 16; block /= 2) {
    // Zero points of a row fill whole bytes.
    if (columns % block === 0 && ((columns / block) * bits) % 8 === 0) return block;
  }
  return undefined;
}

/** Shapes of the parts of a matrix [rows, columns]. */
export function blockShapes([rows, columns]: readonly [number, number], bits: BlockBits, block: number) {
  const count = columns / block;
  return { data: [rows, count, (block * bits) / 8], scales: [rows, count], zeros: [rows, (count * bits) / 8] } as const;
}

/**
 * Rounds a matrix [rows, columns], given row by row, to blocks. The loops have no branch that depends on the data (a third of the time of
 * comparisons): floats order as the whole numbers that have their bits.
 * @throws Error when a value is not finite
 */
export function quantizeBlocks(values: Float32Array, rows: number, columns: number, bits: BlockBits, block: number): Blocks {
  const shapes = blockShapes([rows, columns], bits, block);
  const words = new Int32Array(values.buffer, values.byteOffset, values.length);
  const most = 2 ** bits - 1;
  const blocks = values.length / block;
  const data = new Uint8Array((values.length * bits) / 8);
  const scales = new Float32Array(blocks);
  const zeros = new Uint8Array((blocks * bits) / 8);
  for (let n = 0, at = 0; n < blocks; n++, at += block) {
    const end = at + block;
    let high = 0;
    let low = 0;
    for (let i = at; i < end; i++) {
      const x = words[i]!;
      const sign = x >> 31;
      const above = ((x & ~sign) - high) | 0;
      high = (high + (above & ~(above >> 31))) | 0;
      const below = ((x & sign & 0x7fffffff) - low) | 0;
      low = (low + (below & ~(below >> 31))) | 0;
    }
    if (high >= INFINITE || low >= INFINITE) throw new Error('it holds a value that is not a finite number');
    const lowest = floatOf(low);
    const scale = Math.fround((floatOf(high) + lowest) / most) || 1;
    const inverse = 1 / scale;
    const zero = Math.min(most, Math.round(lowest * inverse));
    scales[n] = scale;
    // Adding a half, then cutting off, rounds; q - (q >> bits) keeps the one step too many of the largest value inside.
    const shift = zero + 0.5;
    if (bits === 8) {
      zeros[n] = zero;
      for (let i = at; i < end; i++) {
        const q = (values[i]! * inverse + shift) | 0;
        data[i] = q - (q >> 8);
      }
    } else {
      zeros[n >> 1]! |= zero << ((n & 1) << 2);
      for (let i = at; i < end; i += 2) {
        const q = (values[i]! * inverse + shift) | 0;
        const r = (values[i + 1]! * inverse + shift) | 0;
        data[i >> 1] = (q - (q >> 4)) | ((r - (r >> 4)) << 4);
      }
    }
  }
  return {
    data: { dtype: 'uint8', shape: shapes.data, data },
    scales: f32(scales, shapes.scales),
    zeros: { dtype: 'uint8', shape: shapes.zeros, data: zeros },
  };
}

/** The bits of infinity. */
const INFINITE = 0x7f800000;
const word = new Int32Array(1);
const float = new Float32Array(word.buffer);
const floatOf = (bits: number): number => {
  word[0] = bits;
  return float[0]!;
};

/** The matrix that blocks stand for, row by row. */
export function dequantizeBlocks({ data, scales, zeros }: Blocks, bits: BlockBits): Float32Array {
  const block = (data.shape[2]! * 8) / bits;
  const out = new Float32Array((data.data.length * 8) / bits);
  for (let i = 0; i < out.length; i++) {
    const n = Math.floor(i / block);
    const q = bits === 8 ? data.data[i]! : (data.data[i >> 1]! >> ((i & 1) << 2)) & 15;
    const zero = bits === 8 ? zeros.data[n]! : (zeros.data[n >> 1]! >> ((n & 1) << 2)) & 15;
    out[i] = (q - zero) * scales.data[n]!;
  }
  return out;
}

/** Stored floats of any of a checkpoint's types as float32. */
export function widened(bytes: Uint8Array<ArrayBuffer>, dtype: 'F32' | 'F16' | 'BF16'): Float32Array {
  if (dtype === 'F32') return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const half = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  return dtype === 'F16' ? fromFloat16(half) : fromBfloat16(half);
}
