/**
 * Inputs of one run side by side. Columns [0, prefix) hold each input up to the end of its last picture, which never sees the words behind it; the
 * words begin at column `prefix` in every row, and both parts are padded on the right. So what stands in a picture's part can be shared and run
 * apart, however many visual tokens each input has.
 */

import { f32, i64, type Tensor } from '../graph/dtype.ts';
import type { Feeds } from '../runtime/program.ts';
import type { Decoder, Sight } from './architecture.ts';
import { prefixOf, type Sequence, visualPlaces } from './sequence.ts';

export const MASKED = -1e9;

/** The columns of a batch. */
export interface BatchShape {
  readonly sequences: readonly Sequence[];
  /** columns of the longest part up to the end of the pictures; 0 without pictures */
  readonly prefix: number;
  /** columns */
  readonly length: number;
  /** whether the inputs have pictures */
  readonly image: boolean;
}

/** Inputs of one run of the decoder, right-padded to [b, l], with the tensors that programs read. */
export interface Batch extends BatchShape {
  readonly feeds: Feeds;
}

/**
 * Columns for some inputs.
 * @param mixed inputs with and without pictures may stand beside each other, as in a program that takes both
 * @throws Error when some have pictures and some have none, and they are not to be mixed
 */
export function batchShape(sequences: readonly Sequence[], mixed = false): BatchShape {
  const first = sequences[0];
  if (first === undefined) throw new Error('a batch needs at least one sequence');
  const image = mixed || first.pictures.length > 0;
  if (!mixed && sequences.some((s) => s.pictures.length > 0 !== image))
    throw new Error('one batch holds inputs with pictures, or inputs without');
  const prefix = Math.max(...sequences.map(prefixOf));
  return { sequences, prefix, length: prefix + Math.max(...sequences.map((s) => s.ids.length - prefixOf(s))), image };
}

/** The column where a position of an input stands. */
export const columnOf = ({ sequences, prefix }: BatchShape, n: number, position: number): number => {
  const own = prefixOf(sequences[n]!);
  return position < own ? position : prefix + position - own;
};

/** The place among all rows of the batch, [b * l], where a position of an input stands. */
export const rowOf = (batch: BatchShape, n: number, position: number): number => n * batch.length + columnOf(batch, n, position);

/** The columns of an input, in order: two runs. */
const runsOf = ({ sequences, prefix }: BatchShape, n: number): [number, number][] => {
  const { ids } = sequences[n]!;
  const own = prefixOf(sequences[n]!);
  return [
    [0, own],
    [prefix, prefix + ids.length - own],
  ];
};

/** Values of an input [length × width] out of those of its batch [b, l, width]. */
export function rowsOf(batch: BatchShape, n: number, data: Float32Array, width: number): Float32Array {
  const out = new Float32Array(batch.sequences[n]!.ids.length * width);
  let at = 0;
  for (const [start, end] of runsOf(batch, n)) {
    const first = (n * batch.length + start) * width;
    out.set(data.subarray(first, first + (end - start) * width), at);
    at += (end - start) * width;
  }
  return out;
}

/** Values of inputs [length × width] put side by side as [b, l, width]; padding is 0. */
export function padRows(batch: BatchShape, rows: readonly Float32Array[], width: number): Tensor<'float32'> {
  const out = new Float32Array(rows.length * batch.length * width);
  rows.forEach((row, n) => {
    let at = 0;
    for (const [start, end] of runsOf(batch, n)) {
      out.set(row.subarray(at, at + (end - start) * width), (n * batch.length + start) * width);
      at += (end - start) * width;
    }
  });
  return f32(out, [rows.length, batch.length, width]);
}

/** Columns [start, end) of the batch that an input leaves empty. */
export function paddingOf(batch: BatchShape, n: number): [number, number][] {
  const [[, prefixEnd], [, end]] = runsOf(batch, n) as [[number, number], [number, number]];
  return [
    [prefixEnd, batch.prefix],
    [end, batch.length],
  ];
}

/** The part of an input that a program runs over. */
export type Part = 'whole' | 'prefix' | 'text';

const columns = ({ prefix, length }: BatchShape, part: Part): [number, number] =>
  part === 'whole' ? [0, length] : part === 'prefix' ? [0, prefix] : [prefix, length];

/** Calls `put` for every run of positions that stands among the part's columns: its length, and its first place in [b * columns]. */
function eachRun(batch: BatchShape, part: Part, put: (n: number, position: number, place: number, length: number) => void): void {
  const [from, to] = columns(batch, part);
  batch.sequences.forEach((_, n) => {
    let position = 0;
    for (const [start, end] of runsOf(batch, n)) {
      const [first, last] = [Math.max(start, from), Math.min(end, to)];
      if (first < last) put(n, position + first - start, n * (to - from) + first - from, last - first);
      position += end - start;
    }
  });
}

/** Whole numbers from 0 to 2^31 - 1 of an int64 tensor by their lower halves: making a BigInt of each takes several times as long. */
const lowerHalves = (data: BigInt64Array): Int32Array => new Int32Array(data.buffer);

/** Token ids [b, l]; 0 where a visual token stands. */
export function idFeeds(batch: BatchShape, part: Part = 'whole'): Tensor {
  const [from, to] = columns(batch, part);
  const data = new BigInt64Array(batch.sequences.length * (to - from));
  const low = lowerHalves(data);
  eachRun(batch, part, (n, position, place, length) => {
    const { ids } = batch.sequences[n]!;
    for (let i = 0; i < length; i++) low[2 * (place + i)] = Math.max(0, ids[position + i]!);
  });
  return i64(data, [batch.sequences.length, to - from]);
}

/** Positions [b, l], or [axes, b, l] of a decoder with several axes. */
export function positionFeeds(batch: BatchShape, axes = 1, part: Part = 'whole'): Tensor {
  const [from, to] = columns(batch, part);
  const b = batch.sequences.length;
  const size = b * (to - from);
  const data = new BigInt64Array(axes * size);
  const low = lowerHalves(data);
  eachRun(batch, part, (n, position, place, length) => {
    const { positions } = batch.sequences[n]!;
    for (let axis = 0; axis < axes; axis++) {
      const own = positions?.[axis];
      for (let i = 0; i < length; i++) low[2 * (axis * size + place + i)] = own?.[position + i] ?? position + i;
    }
  });
  return i64(data, axes === 1 ? [b, to - from] : [axes, b, to - from]);
}

/** Causal bias [b, 1, l, l]. */
export function causalBias(b: number, length: number): Tensor<'float32'> {
  const one = new Float32Array(length * length);
  for (let i = 0; i < length; i++) one.fill(MASKED, i * length + i + 1, (i + 1) * length);
  const data = b === 1 ? one : new Float32Array(b * length * length);
  if (b > 1) for (let n = 0; n < b; n++) data.set(one, n * length * length);
  return f32(data, [b, 1, length, length]);
}

/** What tokens see, as programs of a decoder read it: `bias`, or `reach` (see `biasInput`). */
export const sightFeeds = ({ sight }: Pick<Decoder, 'sight'>, batch: BatchShape, part: Part = 'whole'): Feeds =>
  sight === undefined ? { bias: biasFeeds(batch, part) } : { reach: reachFeeds(batch, sight, part) };

/** The index of a column that no token sees. */
export const UNSEEN = 1e9;

/**
 * How far each column up to a part's end reaches, [b, 2, columns]: its token's index, and the index of the last token that it sees. Padding is not seen.
 * @param more columns behind the part
 */
export function reachFeeds(
  batch: BatchShape,
  { wholePictures }: Pick<Sight, 'wholePictures'>,
  part: Part = 'whole',
  more: readonly (readonly number[])[] = [],
): Tensor<'float32'> {
  const b = batch.sequences.length;
  const [, to] = columns(batch, part);
  const width = to + (more[0]?.length ?? 0);
  const data = new Float32Array(b * 2 * width).fill(UNSEEN);
  batch.sequences.forEach((sequence, n) => {
    const [index, until] = [0, 1].map((i) => data.subarray((2 * n + i) * width, (2 * n + i + 1) * width)) as [
      Float32Array,
      Float32Array,
    ];
    let position = 0;
    for (const [start, end] of runsOf(batch, n)) {
      for (let column = start; column < Math.min(end, to); column++, position++) index[column] = until[column] = position;
    }
    if (wholePictures) for (const [start, end] of sequence.spans.flat()) if (start < to) until.fill(end - 1, start, end);
    (more[n] ?? []).forEach((own, i) => {
      index[to + i] = until[to + i] = own;
    });
  });
  return f32(data, [b, 2, width]);
}

/** Causal bias [b, 1, columns of the part, columns up to its end]: padding between a picture's part and the words is not seen. */
export function biasFeeds(batch: BatchShape, part: Part = 'whole'): Tensor<'float32'> {
  const [from, to] = columns(batch, part);
  const b = batch.sequences.length;
  if (part !== 'text') {
    const bias = causalBias(b, to);
    batch.sequences.forEach((_, n) => {
      const [[start, end]] = paddingOf(batch, n) as [[number, number]];
      if (start < end && end < to)
        for (let i = end; i < to; i++) bias.data.fill(MASKED, (n * to + i) * to + start, (n * to + i) * to + end);
    });
    return bias;
  }
  const rows = to - from;
  const data = new Float32Array(b * rows * to);
  for (let n = 0; n < b; n++) {
    const [[start, end]] = paddingOf(batch, n) as [[number, number]];
    for (let i = 0; i < rows; i++) {
      const at = (n * rows + i) * to;
      data.fill(MASKED, at + start, at + end);
      data.fill(MASKED, at + from + i + 1, at + to);
    }
  }
  return f32(data, [b, 1, rows, to]);
}

/**
 * Where the visual tokens of some inputs stand among columns [0, length), `v` of the input with the most: what `Spans` reads.
 * `visual.rows` [b, v] and `visual.mask` [b, v, 1] say it for each visual token, `visual.place` [b, l] and `visual.words` [b, l, 1] for each column.
 */
export function spanFeeds(sequences: readonly Sequence[], length: number): Feeds {
  const b = sequences.length;
  // Visual tokens all stand within the prefix, whose columns are positions.
  const places = sequences.map(visualPlaces);
  const v = Math.max(...places.map((own) => own.length));
  const rows = new BigInt64Array(b * v);
  const mask = new Float32Array(b * v);
  const place = new BigInt64Array(b * length);
  const [lowRows, lowPlace] = [lowerHalves(rows), lowerHalves(place)];
  for (let i = 0; i < b * length; i++) lowPlace[2 * i] = i;
  const words = new Float32Array(b * length).fill(1);
  places.forEach((own, n) => {
    own.forEach((column, i) => {
      const at = n * length + column;
      lowRows[2 * (n * v + i)] = at;
      mask[n * v + i] = 1;
      lowPlace[2 * at] = b * length + n * v + i;
      words[at] = 0;
    });
    // A token that is not there is read where the input begins, and never written.
    for (let i = own.length; i < v; i++) lowRows[2 * (n * v + i)] = n * length;
  });
  return {
    'visual.rows': i64(rows, [b, v]),
    'visual.mask': f32(mask, [b, v, 1]),
    'visual.place': i64(place, [b, length]),
    'visual.words': f32(words, [b, length, 1]),
  };
}

/** Tensors [n, ...] side by side as [b, n, ...] of the largest n; padding is 0. */
export function stackPadded(parts: readonly Tensor<'float32'>[]): Tensor<'float32'> {
  const rest = parts[0]!.shape.slice(1);
  const width = rest.reduce((a, c) => a * c, 1);
  const most = Math.max(...parts.map(({ shape }) => shape[0]!));
  const data = new Float32Array(parts.length * most * width);
  parts.forEach((part, i) => {
    data.set(part.data, i * most * width);
  });
  return f32(data, [parts.length, most, ...rest]);
}

/** [..] × b -> [b, ..], of one type and shape */
export function stack<D extends 'float32' | 'int64'>(parts: readonly Tensor<D>[]): Tensor<D> {
  const { data: first, dtype, shape } = parts[0]!;
  const kind = first.constructor as new (length: number) => typeof first;
  const data = new kind(parts.length * first.length);
  // Both are arrays of one type.
  parts.forEach((part, i) => {
    data.set(part.data as never, i * first.length);
  });
  return { dtype, data, shape: [parts.length, ...shape] };
}

/** Visual tokens of several pictures behind each other, [n, d]. */
export function joined(parts: readonly Tensor<'float32'>[]): Tensor<'float32'> {
  const [first] = parts;
  if (parts.length === 1) return first!;
  const data = new Float32Array(parts.reduce((total, part) => total + part.data.length, 0));
  let at = 0;
  for (const part of parts) {
    data.set(part.data, at);
    at += part.data.length;
  }
  return { dtype: 'float32', data, shape: [data.length / first!.shape[1]!, first!.shape[1]!] };
}
