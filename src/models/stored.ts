/** How a model's weights are stored. */

import { statSync } from 'node:fs';
import { bytesPerElement, sizeOf, type Tensor } from '../graph/dtype.ts';
import type { WeightLocation } from '../onnx/emit.ts';
import type { Vlm } from './vlm.ts';

export interface StoredWeights {
  /** numbers that the model reads */
  parameters: number;
  /** of most weights; a list when there are several */
  dtype: string | string[];
  /** of the files that hold them */
  bytes: number;
  files: number;
}

/** @param shapes of the weights that the model reads, by name */
export function storedWeights(vlm: Vlm, shapes: ReadonlyMap<string, readonly number[]>): StoredWeights {
  const files = new Set<string>();
  const dtypes = new Map<string, number>();
  let parameters = 0;
  let inMemory = 0;
  const add = (piece: WeightLocation | Tensor): void => {
    if ('file' in piece) files.add(piece.file);
    else inMemory += sizeOf(piece.shape) * bytesPerElement[piece.dtype];
  };
  for (const [name, shape] of shapes) {
    const count = sizeOf(shape);
    parameters += count;
    const place = vlm.weights(name);
    if (place === undefined) continue;
    const dtype = 'parts' in place ? `int${place.bits}` : place.dtype;
    dtypes.set(dtype, (dtypes.get(dtype) ?? 0) + count);
    for (const piece of 'parts' in place ? Object.values(place.parts()) : [place]) add(piece);
  }
  const byCount = [...dtypes].sort(([, a], [, b]) => b - a).map(([dtype]) => dtype);
  const onDisk = [...files].reduce((total, file) => total + statSync(file).size, 0);
  return {
    parameters,
    dtype: byCount.length === 1 ? byCount[0]! : byCount,
    bytes: files.size > 0 ? onDisk : inMemory,
    files: files.size,
  };
}
