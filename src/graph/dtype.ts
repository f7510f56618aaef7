/** Element types and concrete tensors: what every layer above exchanges. */

/** Element types of tensors. */
export type DType = 'float32' | 'float16' | 'int64' | 'int32' | 'int8' | 'uint8' | 'bool';

/** The array that holds elements of each type. */
export interface ArrayOf {
  float32: Float32Array;
  /** raw bits: Node 20 has no Float16Array */
  float16: Uint16Array;
  int64: BigInt64Array;
  int32: Int32Array;
  int8: Int8Array;
  uint8: Uint8Array;
  /** one byte per element, 0 or 1 */
  bool: Uint8Array;
}

/** A concrete tensor: row-major data with its shape. */
export interface Tensor<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly data: ArrayOf[D];
}

/** Bytes of one element. */
export const bytesPerElement: Record<DType, number> = { float32: 4, float16: 2, int64: 8, int32: 4, int8: 1, uint8: 1, bool: 1 };

/** Number of elements of a concrete shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** A float32 tensor; checks that data and shape agree. */
export function f32(data: Float32Array | readonly number[], shape: readonly number[]): Tensor<'float32'> {
  const array = data instanceof Float32Array ? data : Float32Array.from(data);
  checkSize(array.length, shape);
  return { dtype: 'float32', shape: [...shape], data: array };
}

/** An int64 tensor (token ids, indices, shapes). */
export function i64(data: BigInt64Array | readonly number[], shape: readonly number[]): Tensor<'int64'> {
  const array = data instanceof BigInt64Array ? data : BigInt64Array.from(data, (x) => BigInt(x));
  checkSize(array.length, shape);
  return { dtype: 'int64', shape: [...shape], data: array };
}

function checkSize(length: number, shape: readonly number[]): void {
  if (length !== sizeOf(shape))
    throw new Error(`a tensor of shape [${shape.join(', ')}] needs ${sizeOf(shape)} elements, got ${length}`);
}
