/**
 * Writes a safetensors file of any size piece by piece, so that no tensor need be in memory whole. The file is not atomic by itself: whoever
 * calls writes into a folder that is renamed at the end.
 */

import { open } from 'node:fs/promises';
import { bytesPerElement, sizeOf, type Tensor } from '../graph/dtype.ts';
import { fromBfloat16, fromFloat16, toFloat16 } from './half.ts';
import type { FileDType, SafetensorsEntry, SafetensorsFile } from './safetensors.ts';

const CHUNK = 32 * 1024 * 1024;

/** One tensor to write. */
export interface Piece {
  readonly name: string;
  readonly dtype: FileDType;
  readonly shape: readonly number[];
  readonly bytes: number;
  /** the data in order, in chunks of a whole number of elements */
  read(): Iterable<Uint8Array>;
}

export type FloatDType = 'float32' | 'float16';

const floats = { F32: 4, F16: 2, BF16: 2, F64: 8 } as const;
const written = { float32: 'F32', float16: 'F16' } as const;

/**
 * A stored tensor as a piece.
 * @param as type of floats; their own when left out (F64 becomes F32, which is what models compute in)
 */
export function storedPiece(name: string, file: SafetensorsFile, entry: SafetensorsEntry, as?: FloatDType): Piece {
  const { shape } = entry;
  const width = floats[entry.dtype as keyof typeof floats];
  const target = as === undefined ? (entry.dtype === 'F64' ? 'F32' : entry.dtype) : written[as];
  if (width === undefined || target === entry.dtype) {
    return { name, dtype: entry.dtype, shape, bytes: entry.bytes, read: () => chunksOf(file, entry, 8) };
  }
  const half = target === 'F16';
  return {
    name,
    dtype: target,
    shape,
    bytes: (entry.bytes / width) * (half ? 2 : 4),
    *read() {
      for (const chunk of chunksOf(file, entry, width)) {
        const values = float32(chunk, entry.dtype as keyof typeof floats);
        yield bytesOf(half ? halfOf(values, name, file.path) : values);
      }
    },
  };
}

/** A tensor in memory as a piece. */
export function tensorPiece(name: string, tensor: Tensor<'float32'>, as?: FloatDType): Piece {
  const half = as === 'float16';
  const bytes = sizeOf(tensor.shape) * bytesPerElement[half ? 'float16' : 'float32'];
  return {
    name,
    dtype: half ? 'F16' : 'F32',
    shape: tensor.shape,
    bytes,
    read: () => [bytesOf(half ? halfOf(tensor.data, name, 'it') : tensor.data)],
  };
}

const bytesOf = (data: Float32Array | Uint16Array): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** A strided tensor of a torch file is gathered whole; others are read range by range. */
function* chunksOf(file: SafetensorsFile, entry: SafetensorsEntry, width: number): Iterable<Uint8Array<ArrayBuffer>> {
  const step = 'strides' in entry ? entry.bytes : CHUNK - (CHUNK % width);
  for (let at = 0; at < entry.bytes; at += step) yield file.readBytes(entry, at, Math.min(step, entry.bytes - at));
}

function float32(chunk: Uint8Array<ArrayBuffer>, dtype: keyof typeof floats): Float32Array {
  const { buffer } = chunk.byteOffset === 0 ? chunk : chunk.slice();
  if (dtype === 'F32') return new Float32Array(buffer);
  if (dtype === 'F64') return Float32Array.from(new Float64Array(buffer));
  return (dtype === 'F16' ? fromFloat16 : fromBfloat16)(new Uint16Array(buffer));
}

function halfOf(values: Float32Array, name: string, path: string): Uint16Array {
  const half = toFloat16(values);
  for (let i = 0; i < half.length; i++) {
    if ((half[i]! & 0x7fff) === 0x7c00 && Number.isFinite(values[i]!))
      throw new Error(
        `${path}: ${name} has the value ${values[i]}, too large for half precision (at most 65504); write float32 instead`,
      );
  }
  return half;
}

/** The header of a file with these pieces in this order. */
function headerOf(pieces: readonly Piece[], metadata: Readonly<Record<string, string>>): Buffer {
  let offset = 0;
  const entries = pieces.map(({ name, dtype, shape, bytes }): [string, unknown] => {
    const end = offset + bytes;
    const entry: [string, unknown] = [name, { dtype, shape, data_offsets: [offset, end] }];
    offset = end;
    return entry;
  });
  const json = Buffer.from(JSON.stringify({ __metadata__: metadata, ...Object.fromEntries(entries) }), 'utf8');
  const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, ' ');
  padded.writeBigUInt64LE(BigInt(padded.length - 8), 0);
  json.copy(padded, 8);
  return padded;
}

/** `width`: widest elements first, so that every tensor is aligned; `given`: whoever calls sees to that. */
export type PieceOrder = 'width' | 'given';

export interface WritePieceOptions {
  order?: PieceOrder;
  /** given the bytes just written; what it throws stops the writing */
  afterChunk?: (bytes: number) => void;
}

/** Writes all pieces one after the other. */
export async function writePieces(
  path: string,
  pieces: readonly Piece[],
  metadata: Readonly<Record<string, string>> = {},
  { order = 'width', afterChunk = () => {} }: WritePieceOptions = {},
): Promise<void> {
  const width = ({ bytes, shape }: Piece): number => bytes / Math.max(1, sizeOf(shape));
  const byWidth = (a: Piece, b: Piece): number => width(b) - width(a) || (a.name < b.name ? -1 : 1);
  const ordered = order === 'given' ? pieces : [...pieces].sort(byWidth);
  const file = await open(path, 'wx');
  try {
    await file.writeFile(headerOf(ordered, metadata));
    for (const { name, bytes, read } of ordered) {
      let done = 0;
      for (const chunk of read()) {
        await file.writeFile(chunk);
        done += chunk.length;
        afterChunk(chunk.length);
      }
      if (done !== bytes) throw new Error(`${path}: ${name} gave ${done} bytes instead of ${bytes}`);
    }
    await file.sync();
  } finally {
    await file.close();
  }
}
