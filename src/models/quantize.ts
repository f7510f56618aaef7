/**
 * `quantize`: a model with its matrices rounded to blocks of whole numbers (checkpoints/blocks.ts), as a folder that opens like any other. Tensors
 * are read, rounded and written rows by rows, so that no model is too large for it.
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { blockName, blockShapes, quantizeBlocks, widened } from '../files/blocks.ts';
import type { TensorPlace } from '../files/folder.ts';
import { anyObject, readJsonAs } from '../files/schema.ts';
import { type Piece, storedPiece } from '../files/stream.ts';
import { sizeOf } from '../graph/dtype.ts';
import { describeFolder, openNamed } from './layouts.ts';
import { loadModel, modelFolder } from './load.ts';
import { isMiniGpt4Folder } from './minigpt4-folder.ts';
import { type Quantized, quantizedConfig, quantizedFrom } from './quantized.ts';
import { type BlockShape, blocksOf, isLarge, weightUses } from './weights.ts';
import { companions, type FolderPlan, newFolder, present, type Written, writeFolder } from './write-folder.ts';

export interface QuantizeOptions {
  out: string;
  dtype: Quantized['dtype'];
  /** most numbers that share a scale: a power of two from 16; default: 32 */
  block?: number | undefined;
  signal?: AbortSignal | undefined;
  /** told once what will be written */
  onPlan?: (bytes: number, fromBytes: number) => void;
  onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/** Numbers read at a time. */
const CHUNK = 8 * 1024 * 1024;

export async function quantize(
  model: string,
  { out, dtype, block, signal, onPlan, onProgress }: QuantizeOptions,
): Promise<Written> {
  const from = modelFolder(model);
  const to = newFolder(out);
  if (!existsSync(join(from, 'config.json')) && isMiniGpt4Folder(from))
    throw new Error(`${from} is in several torch files; make one folder of it first: visedit convert ${model} --out DIR`);
  const before = quantizedFrom(from);
  if (before !== undefined)
    throw new Error(`${from} is stored in ${before.dtype} already; round the model that it was made from`);
  // Opening checks the whole model; nothing is run, so memory is no concern.
  const vlm = loadModel(from, { maxMemory: Number.POSITIVE_INFINITY });
  const { fingerprint } = vlm;
  await vlm.release();
  const described = describeFolder(from);
  const opened = described.open({ dir: from, checkpoint: openNamed(from, described), rounded: true });
  const { checkpoint } = opened;
  const uses = weightUses(opened.architecture);
  const words: Piece[] = [];
  const blocks: Piece[] = [];
  const halves: Piece[] = [];
  const bytes: Piece[] = [];
  let read = 0;
  for (const name of checkpoint.names()) {
    const place = checkpoint.place(name);
    read += place.entry.bytes;
    const use = uses.get(name);
    const shape = use && blocksOf(dtype, use, block);
    if (shape !== undefined) {
      const { data, scales, zeros } = blockPieces(name, place, shape);
      blocks.push(data, scales);
      bytes.push(zeros);
      continue;
    }
    const wide = place.entry.dtype === 'F32' && isLarge(place.entry.shape);
    const piece = storedPiece(name, place.file, place.entry, wide ? 'float16' : undefined);
    const width = piece.bytes / Math.max(1, sizeOf(piece.shape));
    (width >= 4 ? words : width === 2 ? halves : bytes).push(piece);
  }
  // Blocks fill multiples of four bytes, so all that is wider than a byte stays aligned.
  const pieces = [...words.sort((a, b) => b.bytes / sizeOf(b.shape) - a.bytes / sizeOf(a.shape)), ...blocks, ...halves, ...bytes];
  onPlan?.(
    pieces.reduce((sum, piece) => sum + piece.bytes, 0),
    read,
  );
  const plan: FolderPlan = {
    pieces,
    order: 'given',
    json: {
      'config.json': {
        ...readJsonAs(join(from, 'config.json'), anyObject),
        quantization_config: quantizedConfig(dtype, fingerprint),
      },
    },
    copies: present(from, companions),
  };
  return writeFolder(to, plan, { what: 'rounding', signal, onProgress });
}

/** The parts of one matrix. Scales and zero points are made while the data is read, and given when they are asked for after it. */
function blockPieces(
  name: string,
  { file, entry }: TensorPlace,
  { bits, block }: BlockShape,
): Record<'data' | 'scales' | 'zeros', Piece> {
  const [rows, columns] = entry.shape as [number, number];
  const shapes = blockShapes([rows, columns], bits, block);
  const width = entry.bytes / (rows * columns);
  const type = entry.dtype;
  if (type !== 'F32' && type !== 'F16' && type !== 'BF16')
    throw new Error(`${file.path}: ${name} is stored as ${type}; weights must be F32, F16 or BF16`);
  const made: Record<'scales' | 'zeros', Uint8Array[]> = { scales: [], zeros: [] };
  const later = (part: 'scales' | 'zeros') =>
    function* (): Iterable<Uint8Array> {
      yield* made[part];
      made[part] = [];
    };
  const step = 'strides' in entry ? rows : Math.max(1, Math.floor(CHUNK / columns));
  const bytesOf = (part: { readonly data: Uint8Array | Float32Array }): Uint8Array =>
    new Uint8Array(part.data.buffer, part.data.byteOffset, part.data.byteLength);
  return {
    data: {
      name: blockName(name, 'data'),
      dtype: 'U8',
      shape: shapes.data,
      bytes: sizeOf(shapes.data),
      *read() {
        for (let row = 0; row < rows; row += step) {
          const count = Math.min(step, rows - row);
          const values = widened(file.readBytes(entry, row * columns * width, count * columns * width), type);
          const { data, scales, zeros } = rounded(values, count);
          made.scales.push(bytesOf(scales));
          made.zeros.push(bytesOf(zeros));
          yield data.data;
        }
      },
    },
    scales: {
      name: blockName(name, 'scales'),
      dtype: 'F32',
      shape: shapes.scales,
      bytes: 4 * sizeOf(shapes.scales),
      read: later('scales'),
    },
    zeros: {
      name: blockName(name, 'zeros'),
      dtype: 'U8',
      shape: shapes.zeros,
      bytes: sizeOf(shapes.zeros),
      read: later('zeros'),
    },
  };

  function rounded(values: Float32Array, count: number): ReturnType<typeof quantizeBlocks> {
    try {
      return quantizeBlocks(values, count, columns, bits, block);
    } catch (error) {
      throw new Error(`${file.path}: ${name} cannot be rounded: ${(error as Error).message}`, { cause: error });
    }
  }
}
