/** Ops that move elements: reshape, transpose, concat, slice, pad, expand, gather and their transposes. */

import { addDim, type Dim, mulDim, showShape, subDim } from '../dim.ts';
import { f32, i64 } from '../dtype.ts';
import { apply, constant, defineOp, type Node, ShapeError } from '../node.ts';
import { broadcast, mul, onnxType } from './elementwise.ts';

/**
 * An axis counted from the start; negative ones count from the end.
 * @throws ShapeError when it is outside the rank
 */
export const normalizeAxis = (axis: number, rank: number): number => {
  const a = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(a) || a < 0 || a >= rank) throw new ShapeError(`axis ${axis} is outside rank ${rank}`);
  return a;
};

const reshapeOp = defineOp({
  name: 'reshape',
  half: 'moves',
  infer: ([x], a) => {
    const shape = a.shape as readonly Dim[];
    if (mulDim(...x!.shape) !== mulDim(...shape))
      throw new ShapeError(`${showShape(x!.shape)} does not reshape to ${showShape(shape)}`);
    return { dtype: x!.dtype, shape };
  },
  onnx: (e, [x], node) => e.reshape(x!, node.shape),
  // the same elements in the other shape
  vjp: (dy, y) => [reshape(dy, y.inputs[0]!.shape)],
});
/** The same elements, in order, in another shape of as many. */
export const reshape = (x: Node, shape: readonly Dim[]): Node => apply(reshapeOp, [x], { shape });

const transposeOp = defineOp({
  name: 'transpose',
  half: 'moves',
  infer: ([x], a) => {
    const perm = a.perm as readonly number[];
    if ([...perm].sort().join() !== x!.shape.map((_, i) => i).join())
      throw new ShapeError(`[${perm.join(', ')}] does not permute rank ${x!.rank}`);
    return { dtype: x!.dtype, shape: perm.map((p) => x!.shape[p]!) };
  },
  onnx: (e, [x], node) => e.node('Transpose', [x!], { perm: node.attributes.perm as readonly number[] }),
  // the inverse permutation
  vjp: (dy, y) => {
    const perm = y.attributes.perm as readonly number[];
    return [
      transpose(
        dy,
        perm.map((_, i) => perm.indexOf(i)),
      ),
    ];
  },
});
/** Axes in another order: axis i of the result is axis perm[i] of x. */
export const transpose = (x: Node, perm: readonly number[]): Node => apply(transposeOp, [x], { perm });

const concatOp = defineOp({
  name: 'concat',
  half: 'moves',
  infer: (inputs, a) => {
    const axis = a.axis as number;
    const [first] = inputs;
    const shape = [...first!.shape];
    for (const x of inputs.slice(1)) {
      if (x.rank !== first!.rank || x.shape.some((d, i) => i !== axis && d !== first!.shape[i])) {
        throw new ShapeError(`${showShape(first!.shape)} and ${showShape(x.shape)} do not concatenate on axis ${axis}`);
      }
      shape[axis] = addDim(shape[axis]!, x.shape[axis]!);
    }
    return { dtype: first!.dtype, shape };
  },
  onnx: (e, inputs, node) => e.node('Concat', inputs, { axis: node.attributes.axis as number }),
  // each input takes its slice
  vjp: (dy, y) => {
    const axis = y.attributes.axis as number;
    let at: Dim = 0;
    return y.inputs.map((x) => {
      const start = at;
      at = addDim(at, x.shape[axis]!);
      return slice(dy, axis, start, at);
    });
  },
});
/** Inputs one after the other along an axis; their other axes are equal. */
export const concat = (inputs: readonly Node[], axis: number): Node =>
  apply(concatOp, inputs, { axis: normalizeAxis(axis, inputs[0]!.rank) });

const sliceOp = defineOp({
  name: 'slice',
  half: 'moves',
  infer: ([x], a) => {
    const axis = a.axis as number;
    const length = subDim(a.end as Dim, a.start as Dim);
    const full = x!.shape[axis]!;
    if (typeof length === 'number' && (length < 0 || (typeof full === 'number' && length > full))) {
      throw new ShapeError(`[${a.start}, ${a.end}) is outside axis ${axis} of ${showShape(x!.shape)}`);
    }
    return { dtype: x!.dtype, shape: x!.shape.map((d, i) => (i === axis ? length : d)) };
  },
  onnx: (e, [x], { attributes: a }) => {
    const axis = e.constant(i64([a.axis as number], [1]));
    return e.node('Slice', [x!, e.shape([a.start as Dim]), e.shape([a.end as Dim]), axis]);
  },
  // zeros around the cotangent
  vjp: (dy, y) => {
    const axis = y.attributes.axis as number;
    return [pad(dy, axis, y.attributes.start as Dim, subDim(y.inputs[0]!.shape[axis]!, y.attributes.end as Dim))];
  },
});
/** Elements [start, end) of one axis. */
export const slice = (x: Node, axis: number, start: Dim, end: Dim): Node =>
  apply(sliceOp, [x], { axis: normalizeAxis(axis, x.rank), start, end });

const padOp = defineOp({
  name: 'pad',
  half: 'moves',
  infer: ([x], a) => ({
    dtype: x!.dtype,
    shape: x!.shape.map((d, i) => (i === a.axis ? addDim(a.before as Dim, d, a.after as Dim) : d)),
  }),
  onnx: (e, [x], node) => {
    const { axis, before, after } = node.attributes;
    if (!e.has('Pad')) {
      const zero = e.node('CastLike', [e.constant(f32([0], [])), x!]);
      const zeros = (length: Dim): string[] =>
        length === 0 ? [] : [e.node('Expand', [zero, e.shape(node.shape.map((d, i) => (i === axis ? length : d)))])];
      return e.node('Concat', [...zeros(before as Dim), x!, ...zeros(after as Dim)], { axis: axis as number });
    }
    const pads = e.shape([before as Dim, after as Dim]);
    return e.node('Pad', [x!, pads, '', e.constant(i64([axis as number], [1]))]);
  },
  vjp: (dy, y) => {
    const { axis, before } = y.attributes;
    const length = y.inputs[0]!.shape[axis as number]!;
    return [slice(dy, axis as number, before as Dim, addDim(before as Dim, length))];
  },
});
/** Zeros before and after on one axis. */
export const pad = (x: Node, axis: number, before: Dim, after: Dim): Node =>
  apply(padOp, [x], { axis: normalizeAxis(axis, x.rank), before, after });

const expandOp = defineOp({
  name: 'expand',
  half: 'moves',
  infer: ([x], a) => {
    const shape = a.shape as readonly Dim[];
    const out = broadcast(x!.shape, shape);
    if (showShape(out) !== showShape(shape))
      throw new ShapeError(`${showShape(x!.shape)} does not expand to ${showShape(shape)}`);
    return { dtype: x!.dtype, shape };
  },
  onnx: (e, [x], node) => e.node('Expand', [x!, e.shape(node.shape)]),
  // the walker sums dy back to the input's shape
  vjp: (dy) => [dy],
});
/** x broadcast to a shape. */
export const expand = (x: Node, shape: readonly Dim[]): Node =>
  showShape(x.shape) === showShape(shape) ? x : apply(expandOp, [x], { shape });

const gatherOp = defineOp({
  name: 'gather',
  half: 'rows',
  infer: ([x, indices]) => {
    if (indices!.dtype !== 'int64' && indices!.dtype !== 'int32')
      throw new ShapeError(`indices must be integers, got ${indices!.dtype}`);
    return { dtype: x!.dtype, shape: [...indices!.shape, ...x!.shape.slice(1)] };
  },
  onnx: (e, inputs) => e.node('Gather', inputs, { axis: 0 }),
  // Rows of a half-precision table are widened after they are read, not the table before.
  onnxStored: (e, inputs, node) => {
    const x = inputs.stored(0);
    return x?.form === 'half'
      ? e.node('Cast', [e.node('Gather', [x.value, inputs.value(1)], { axis: 0 })], { to: onnxType[node.dtype] })
      : undefined;
  },
  // rows that were read several times collect the sum
  vjp: (dy, y) => [scatterAdd(y.inputs[1]!, dy, y.inputs[0]!.shape), undefined],
});
/** Rows of the first axis: x [r, ...], indices [...i] -> [...i, ...]. */
export const gather = (x: Node, indices: Node): Node => apply(gatherOp, [x, indices]);

const placeOp = defineOp({
  name: 'place',
  infer: ([base, values, index]) => {
    if (base!.rank !== 2 || values!.rank !== 2 || base!.dim(1) !== values!.dim(1))
      throw new ShapeError('rows to choose from must have one width');
    return { dtype: base!.dtype, shape: [...index!.shape, base!.dim(1)] };
  },
  onnx: (e, [base, values, index]) => e.node('Gather', [e.node('Concat', [base!, values!], { axis: 0 }), index!], { axis: 0 }),
  // a base row that was kept, and a value where it was put, have the gradient of the row that they became
  vjp: (dy, y) => {
    const [base, values, , rows, mask, words] = y.inputs as [Node, Node, Node, Node, Node, Node];
    const at = gather(reshape(dy, [mulDim(...dy.shape.slice(0, -1)), dy.dim(-1)]), rows);
    return [reshape(mul(dy, words), base.shape), reshape(mul(at, mask), values.shape)];
  },
});
/**
 * Rows of base [m, d], or values [r, d] in their place: place [...] holds i for base row i, which may stand at place i only, and m + j for value j.
 * @param at.rows int64 [..r], the place of each value @param at.mask [..r, 1]: 0 where a value is put nowhere @param at.words [..., 1]: 0 where a value is
 */
export const place = (base: Node, values: Node, at: { place: Node; rows: Node; mask: Node; words: Node }): Node =>
  apply(placeOp, [base, values, at.place, at.rows, at.mask, at.words]);

const scatterAddOp = defineOp({
  name: 'scatterAdd',
  infer: ([indices, updates], a) => {
    if (updates!.rank < indices!.rank) throw new ShapeError('updates need the shape of the indices, then the row');
    return { dtype: updates!.dtype, shape: a.shape as readonly Dim[] };
  },
  onnx: (e, [indices, updates], node) => {
    // ScatterElements, not ScatterND: the latter loses updates on repeated indices with several threads.
    const [index, update] = node.inputs;
    const rows = mulDim(...index!.shape);
    const width = mulDim(...node.shape.slice(1));
    const flatUpdate = e.reshape(updates!, [rows, width]);
    const column = e.reshape(indices!, [rows, 1]);
    const full = e.node('Expand', [column, e.shape([rows, width])]);
    const zero = e.node('Expand', [
      e.constant({ dtype: 'float32', shape: [1, 1], data: new Float32Array(1) }),
      e.shape([node.shape[0]!, width]),
    ]);
    const sum = e.node('ScatterElements', [zero, full, flatUpdate], { axis: 0, reduction: 'add' });
    return update!.rank === 2 && node.shape.length === 2 ? sum : e.reshape(sum, node.shape);
  },
  vjp: (dy, y) => [undefined, gather(dy, y.inputs[0]!)],
});
/** Zeros of `shape` with updates [...i, ...row] added at rows `indices` [...i]. */
export const scatterAdd = (indices: Node, updates: Node, shape: readonly Dim[]): Node =>
  apply(scatterAddOp, [indices, updates], { shape });

const takeLastOp = defineOp({
  name: 'takeLast',
  infer: ([x, indices]) => ({ dtype: x!.dtype, shape: [...x!.shape.slice(0, -1), indices!.dim(-1)] }),
  onnx: (e, inputs) => e.node('GatherElements', inputs, { axis: -1 }),
  vjp: (dy, y) => [putLast(y.inputs[1]!, dy, y.inputs[0]!.shape), undefined],
});
/** Along the last axis: x [..., n], indices [..., i] -> [..., i]; the indices of one row must differ where gradients are asked for. */
export const takeLast = (x: Node, indices: Node): Node => apply(takeLastOp, [x, indices]);

const putLastOp = defineOp({
  name: 'putLast',
  infer: ([, updates], a) => ({ dtype: updates!.dtype, shape: a.shape as readonly Dim[] }),
  onnx: (e, [indices, updates], node) => {
    const zero = e.node('Expand', [e.constant(f32([0], [1])), e.shape(node.shape)]);
    return e.node('ScatterElements', [zero, indices!, updates!], { axis: -1 });
  },
  vjp: (dy, y) => [undefined, takeLast(dy, y.inputs[0]!)],
});
/** Zeros of `shape` with updates [..., i] written at `indices` of the last axis. */
export const putLast = (indices: Node, updates: Node, shape: readonly Dim[]): Node =>
  apply(putLastOp, [indices, updates], { shape });

const oneHotOp = defineOp({
  name: 'oneHot',
  infer: ([indices], a) => ({ dtype: 'float32', shape: [...indices!.shape, a.depth as Dim] }),
  onnx: (e, [indices], node) =>
    e.node('OneHot', [indices!, e.shape([node.attributes.depth as Dim]), e.constant(f32([0, 1], [2]))], { axis: -1 }),
  vjp: null,
});
/** float32 [..., depth] with 1 at each index of int64 [...]. */
export const oneHot = (indices: Node, depth: Dim): Node => apply(oneHotOp, [indices], { depth });

const argMaxOp = defineOp({
  name: 'argMax',
  infer: ([x]) => ({ dtype: 'int64', shape: x!.shape.slice(0, -1) }),
  onnx: (e, [x]) => e.node('ArgMax', [x!], { axis: -1, keepdims: 0 }),
  vjp: null,
});
/** Index of the largest element of the last axis (the first of equals). */
export const argMax = (x: Node): Node => apply(argMaxOp, [x]);

const rangeOp = defineOp({
  name: 'range',
  infer: (_, a) => ({ dtype: 'int64', shape: [a.length as Dim] }),
  onnx: (e, _, node) => {
    const [first, step] = [e.constant(i64([0], [])), e.constant(i64([1], []))];
    return e.node('Range', [first, e.node('Squeeze', [e.shape(node.shape)]), step]);
  },
  vjp: null,
});
/** 0 to n − 1 as int64 [n]. */
export const range = (n: Dim): Node =>
  typeof n === 'number'
    ? constant(
        i64(
          Array.from({ length: n }, (_, i) => i),
          [n],
        ),
      )
    : apply(rangeOp, [], { length: n });

/** A new axis of length one. */
export const unsqueeze = (x: Node, axis: number): Node => {
  const at = axis < 0 ? axis + x.rank + 1 : axis;
  return reshape(x, [...x.shape.slice(0, at), 1, ...x.shape.slice(at)]);
};
