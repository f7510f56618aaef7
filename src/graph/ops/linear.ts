/** Products, reductions, softmax, norms, rotary embedding: the ops that carry the time. */

import { type Dim, mulDim, showShape } from '../dim.ts';
import { f32, i64 } from '../dtype.ts';
import { apply, defineOp, type Emitter, float, type Node, ShapeError } from '../node.ts';
import { add, broadcast, div, exp, log, mul, neg, sqrt, square, sub } from './elementwise.ts';
import { expand, normalizeAxis, oneHot, reshape, takeLast, transpose, unsqueeze } from './shape.ts';

const swap = (shape: readonly Dim[], on: boolean): Dim[] =>
  on ? [...shape.slice(0, -2), shape.at(-1)!, shape.at(-2)!] : [...shape];

/** The last two axes of an ONNX value exchanged. */
function transposed(e: Emitter, x: string, rank: number): string {
  const perm = Array.from({ length: rank }, (_, i) => i);
  return e.node('Transpose', [x], { perm: [...perm.slice(0, -2), rank - 1, rank - 2] });
}

const matmulOp = defineOp({
  name: 'matmul',
  half: 'product',
  infer: ([a, b], { transA, transB }) => {
    if (a!.rank < 2 || b!.rank < 2) throw new ShapeError('both inputs need at least two axes');
    const x = swap(a!.shape, transA as boolean);
    const y = swap(b!.shape, transB as boolean);
    if (x.at(-1) !== y.at(-2))
      throw new ShapeError(`inner dimensions differ: ${showShape(x)} times ${showShape(y)}; is a weight transposed?`);
    return { dtype: a!.dtype, shape: [...broadcast(x.slice(0, -2), y.slice(0, -2)), x.at(-2)!, y.at(-1)!] };
  },
  onnx: (e, inputs, node) => {
    const { transA, transB } = node.attributes;
    if (!transA && !transB) return e.node('MatMul', inputs);
    if (!e.has('FusedMatMul')) {
      const turned = inputs.map((x, i) => ((i === 0 ? transA : transB) ? transposed(e, x, node.inputs[i]!.rank) : x));
      return e.node('MatMul', turned);
    }
    return e.node('FusedMatMul', inputs, { transA: transA ? 1 : 0, transB: transB ? 1 : 0, alpha: float(1) }, 'com.microsoft');
  },
  // x W^T with W in blocks. Its gradient to x is a plain product with W as floats: exact, where a transposed copy would round twice.
  onnxStored: (e, inputs, node) => {
    const w = inputs.stored(1);
    const { transA, transB } = node.attributes;
    if (w?.form !== 'blocks' || transA || !transB) return undefined;
    const [N, K] = node.inputs[1]!.shape as [number, number];
    return e.node(
      'MatMulNBits',
      [inputs.value(0), w.data, w.scales, w.zeros],
      // level 4: activations become 8-bit whole numbers within the product
      { K, N, bits: w.bits, block_size: w.block, accuracy_level: 4 },
      'com.microsoft',
    );
  },
  // Y = A B: dA = dY B^T, dB = A^T dY, with the transposes of A and B folded in
  vjp: (dy, y) => {
    const [a, b] = y.inputs as [Node, Node];
    const transA = y.attributes.transA as boolean;
    const transB = y.attributes.transB as boolean;
    // A shared two-dimensional weight: flatten so that one large product gives its gradient.
    const shared = b.rank === 2 && a.rank > 2 && !transA;
    if (shared) {
      const rows = mulDim(...a.shape.slice(0, -1));
      const a2 = reshape(a, [rows, a.dim(-1)]);
      const dy2 = reshape(dy, [rows, dy.dim(-1)]);
      const db = transB ? matmul(dy2, a2, true, false) : matmul(a2, dy2, true, false);
      return [reshape(matmul(dy2, b, false, !transB), a.shape), db];
    }
    const da = transA ? matmul(b, dy, transB, true) : matmul(dy, b, false, !transB);
    const db = transB ? matmul(dy, a, true, transA) : matmul(a, dy, !transA, false);
    return [da, db];
  },
});
/** op(A) op(B), batch axes broadcast. Linear weights stay [out, in] as on disk and are read with transB. */
export const matmul = (a: Node, b: Node, transA = false, transB = false): Node => apply(matmulOp, [a, b], { transA, transB });

function reducedShape(x: Node, axes: readonly number[], keep: boolean): Dim[] {
  return x.shape.flatMap((d, i) => (axes.includes(i) ? (keep ? [1] : []) : [d]));
}

const sumOp = defineOp({
  name: 'sum',
  infer: ([x], a) => ({ dtype: x!.dtype, shape: reducedShape(x!, a.axes as number[], a.keep as boolean) }),
  onnx: (e, [x], node) => {
    const axes = node.attributes.axes as number[];
    return e.node('ReduceSum', [x!, e.constant(i64(axes, [axes.length]))], { keepdims: node.attributes.keep ? 1 : 0 });
  },
  // every element receives dy
  vjp: (dy, y) => {
    const x = y.inputs[0]!;
    return [expand(reshape(dy, reducedShape(x, y.attributes.axes as number[], true)), x.shape)];
  },
});
/** Sum over axes (default: all, giving a scalar []); `keep` leaves them with length 1. d sum(x) = dx, spread over the axes. */
export const sum = (x: Node, axes: number | readonly number[] = x.shape.map((_, i) => i), keep = false): Node => {
  const list = (typeof axes === 'number' ? [axes] : [...axes]).map((a) => normalizeAxis(a, x.rank));
  return list.length === 0 ? x : apply(sumOp, [x], { axes: list.sort((a, b) => a - b), keep });
};

const meanOp = defineOp({
  name: 'mean',
  infer: ([x], a) => ({ dtype: x!.dtype, shape: reducedShape(x!, a.axes as number[], a.keep as boolean) }),
  onnx: (e, [x], node) => {
    const axes = node.attributes.axes as number[];
    return e.node('ReduceMean', [x!, e.constant(i64(axes, [axes.length]))], { keepdims: node.attributes.keep ? 1 : 0 });
  },
  // every element receives dy / count; the count of a symbolic axis is the sum of ones
  vjp: (dy, y) => {
    const x = y.inputs[0]!;
    const axes = y.attributes.axes as number[];
    const spread = expand(reshape(dy, reducedShape(x, axes, true)), x.shape);
    const count = mulDim(...axes.map((i) => x.shape[i]!));
    return [typeof count === 'number' ? mul(spread, 1 / count) : div(spread, sum(onesLike(x), axes, true))];
  },
});
/** Mean over axes (default: all, giving a scalar []); `keep` leaves them with length 1. */
export const mean = (x: Node, axes: number | readonly number[] = x.shape.map((_, i) => i), keep = false): Node =>
  apply(meanOp, [x], {
    axes: (typeof axes === 'number' ? [axes] : [...axes]).map((a) => normalizeAxis(a, x.rank)).sort((a, b) => a - b),
    keep,
  });

const onesLike = (x: Node): Node => exp(mul(x, 0));

const maxOp = defineOp({
  name: 'reduceMax',
  infer: ([x], a) => ({ dtype: x!.dtype, shape: reducedShape(x!, a.axes as number[], true) }),
  onnx: (e, [x], node) => {
    const axes = node.attributes.axes as number[];
    return e.node('ReduceMax', [x!, e.constant(i64(axes, [axes.length]))], { keepdims: 1 });
  },
  vjp: null,
});
/** Largest element over axes, kept as axes of length one; treated as constant by gradients. */
export const reduceMax = (x: Node, axes: number | readonly number[]): Node =>
  apply(maxOp, [x], { axes: (typeof axes === 'number' ? [axes] : [...axes]).map((a) => normalizeAxis(a, x.rank)) });

const softmaxOp = defineOp({
  name: 'softmax',
  // its sums are float32 in every kernel
  half: 'elementwise',
  infer: ([x]) => ({ dtype: x!.dtype, shape: x!.shape }),
  onnx: (e, [x]) => e.node('Softmax', [x!], { axis: -1 }),
  // dx = y (dy - sum(dy y))
  vjp: (dy, y) => {
    const weighted = mul(dy, y);
    return [sub(weighted, mul(y, sum(weighted, -1, true)))];
  },
});
/** Softmax over the last axis: [..., n] -> [..., n]. */
export const softmax = (x: Node): Node => apply(softmaxOp, [x]);

const logSoftmaxOp = defineOp({
  name: 'logSoftmax',
  infer: ([x]) => ({ dtype: x!.dtype, shape: x!.shape }),
  onnx: (e, [x]) => e.node('LogSoftmax', [x!], { axis: -1 }),
  // dx = dy - softmax(x) sum(dy)
  vjp: (dy, y) => [sub(dy, mul(exp(y), sum(dy, -1, true)))],
});
/** Log of the softmax over the last axis: [..., n] -> [..., n]. */
export const logSoftmax = (x: Node): Node => apply(logSoftmaxOp, [x]);

const crossEntropyOp = defineOp({
  name: 'crossEntropy',
  infer: ([logits, labels]) => {
    if (showShape(logits!.shape.slice(0, -1)) !== showShape(labels!.shape))
      throw new ShapeError('labels need the shape of the logits without the last axis');
    return { dtype: 'float32', shape: labels!.shape };
  },
  onnx: (e, [logits, labels], node) => {
    const column = e.node('Unsqueeze', [labels!, e.constant(i64([node.rank], [1]))]);
    const chosen = e.node('GatherElements', [e.node('LogSoftmax', [logits!], { axis: -1 }), column], { axis: -1 });
    return e.node('Neg', [e.node('Squeeze', [chosen, e.constant(i64([node.rank], [1]))])]);
  },
  // dx = (softmax(x) - onehot(label)) dy
  vjp: (dy, y) => {
    const [logits, labels] = y.inputs as [Node, Node];
    return [mul(sub(softmax(logits), oneHot(labels, logits.dim(-1))), unsqueeze(dy, -1)), undefined];
  },
});
/** −log softmax(logits)[label]: logits [..., n], labels int64 [...] -> [...]. */
export const crossEntropy = (logits: Node, labels: Node): Node => apply(crossEntropyOp, [logits, labels]);

const layerNormOp = defineOp({
  name: 'layerNorm',
  infer: ([x, scale, bias]) => {
    for (const w of [scale!, bias!])
      if (w.rank !== 1 || w.dim(0) !== x!.dim(-1)) throw new ShapeError(`scale and bias need [${x!.dim(-1)}]`);
    return { dtype: x!.dtype, shape: x!.shape };
  },
  onnx: (e, inputs, node) =>
    e.node('LayerNormalization', inputs, { axis: -1, epsilon: float(node.attributes.epsilon as number) }),
  // n = (x - mean) r, r = 1/sqrt(var + eps), g = dy scale: dx = r (g - mean(g) - n mean(g n))
  vjp: (dy, y) => {
    const [x, scale] = y.inputs as [Node, Node, Node];
    const centred = sub(x, mean(x, -1, true));
    const r = div(1, sqrt(add(mean(square(centred), -1, true), y.attributes.epsilon as number)));
    const n = mul(centred, r);
    const g = mul(dy, scale);
    const dx = mul(r, sub(sub(g, mean(g, -1, true)), mul(n, mean(mul(g, n), -1, true))));
    return [dx, mul(dy, n), dy];
  },
});
/** LayerNorm over the last axis with scale and bias [d]. */
export const layerNorm = (x: Node, scale: Node, bias: Node, epsilon = 1e-5): Node =>
  apply(layerNormOp, [x, scale, bias], { epsilon });

const rmsNormOp = defineOp({
  name: 'rmsNorm',
  infer: ([x, scale]) => {
    if (scale!.rank !== 1 || scale!.dim(0) !== x!.dim(-1)) throw new ShapeError(`the scale needs [${x!.dim(-1)}]`);
    return { dtype: x!.dtype, shape: x!.shape };
  },
  onnx: (e, inputs, node) =>
    e.node('SimplifiedLayerNormalization', inputs, {
      axis: -1,
      epsilon: float(node.attributes.epsilon as number),
      stash_type: 1,
    }),
  // n = x r, r = 1/sqrt(mean(x^2) + eps), g = dy scale: dx = r (g - n mean(g n))
  vjp: (dy, y) => {
    const [x, scale] = y.inputs as [Node, Node];
    const r = div(1, sqrt(add(mean(square(x), -1, true), y.attributes.epsilon as number)));
    const n = mul(x, r);
    const g = mul(dy, scale);
    return [mul(r, sub(g, mul(n, mean(mul(g, n), -1, true)))), mul(dy, n)];
  },
});
/** RMSNorm over the last axis with scale [d]: x / sqrt(mean(x²) + epsilon) · scale. */
export const rmsNorm = (x: Node, scale: Node, epsilon = 1e-6): Node => apply(rmsNormOp, [x, scale], { epsilon });

const rotaryOp = defineOp({
  name: 'rotary',
  half: 'rows',
  infer: ([x, positions, cosTable, sinTable]) => {
    if (x!.rank !== 4) throw new ShapeError('rotary takes [b, h, l, k]');
    if (positions!.rank !== 2) throw new ShapeError('positions are [b, l]');
    for (const t of [cosTable!, sinTable!])
      if (mulDim(2, t.dim(1)) !== x!.dim(3)) throw new ShapeError('the tables need half the head width');
    return { dtype: x!.dtype, shape: x!.shape };
  },
  onnx: (e, inputs) => e.node('RotaryEmbedding', inputs, { interleaved: 0 }, 'com.microsoft'),
  // a rotation's transpose is the rotation back
  vjp: (dy, y) => [rotary(dy, y.inputs[1]!, y.inputs[2]!, neg(y.inputs[3]!)), undefined, undefined, undefined],
});
/** Rotary position embedding, halves convention: x [b, h, l, k], positions int64 [b, l], tables [positions, k/2]. */
export const rotary = (x: Node, positions: Node, cosTable: Node, sinTable: Node): Node =>
  apply(rotaryOp, [x, positions, cosTable, sinTable]);

/** KL(p ‖ q) over the last axis from logits: sum p (log p − log q). */
export const klDivergence = (pLogits: Node, qLogits: Node): Node => {
  const logP = logSoftmax(pLogits);
  return sum(mul(exp(logP), sub(logP, logSoftmax(qLogits))), -1);
};

export { log, takeLast };

/** [b, l, h k] -> [b, h, l, k], and back. */
const intoHeads = (x: Node, heads: number): Node =>
  transpose(reshape(x, [x.dim(0), x.dim(1), heads, (x.dim(2) as number) / heads]), [0, 2, 1, 3]);
const outOfHeads = (x: Node): Node =>
  reshape(transpose(x, [0, 2, 1, 3]), [x.dim(0), x.dim(2), (x.dim(1) as number) * (x.dim(3) as number)]);

const attentionOp = defineOp({
  name: 'attention',
  infer: ([q, k, v], { heads }) => {
    const widths = [q!, k!, v!].map((x) => x.dim(-1));
    if (
      [q!, k!, v!].some((x) => x.rank !== 3) ||
      widths.some((width) => typeof width !== 'number' || width % Number(heads) !== 0)
    )
      throw new ShapeError(`${heads} heads do not divide ${[q!, k!, v!].map(({ shape }) => showShape(shape)).join(', ')}`);
    if (widths[0] !== widths[1] || k!.dim(1) !== v!.dim(1))
      throw new ShapeError(
        `queries, keys and values do not fit: ${[q!, k!, v!].map(({ shape }) => showShape(shape)).join(', ')}`,
      );
    return { dtype: q!.dtype, shape: [q!.dim(0), q!.dim(1), v!.dim(2)] };
  },
  onnx: (e, inputs, node) => {
    const { heads, scale } = node.attributes as { heads: number; scale: number };
    if (e.has('MultiHeadAttention'))
      return e.node('MultiHeadAttention', inputs, { num_heads: heads, scale: float(scale) }, 'com.microsoft');
    const [q, k, v] = inputs.map((x, i) => {
      const [b, l, d] = node.inputs[i]!.shape as [Dim, Dim, number];
      return e.node('Transpose', [e.reshape(x, [b, l, heads, d / heads])], { perm: i === 1 ? [0, 2, 3, 1] : [0, 2, 1, 3] });
    }) as [string, string, string];
    const scores = e.node('Mul', [e.node('MatMul', [q, k]), e.constant(f32([scale], []))]);
    const seen = e.node('MatMul', [e.node('Softmax', [scores], { axis: -1 }), v]);
    return e.reshape(e.node('Transpose', [seen], { perm: [0, 2, 1, 3] }), node.shape);
  },
  // P = softmax(s Q K^T), Y = P V: dV = P^T dY, dS = P (dP − sum(dP P)) with dP = dY V^T, dQ = s dS K, dK = s dS^T Q
  vjp: (dy, y) => {
    const { heads, scale } = y.attributes as { heads: number; scale: number };
    const [q, k, v, g] = [...y.inputs, dy].map((x) => intoHeads(x!, heads)) as [Node, Node, Node, Node];
    const shares = softmax(mul(matmul(q, k, false, true), scale));
    const change = matmul(g, v, false, true);
    const scores = mul(mul(shares, sub(change, sum(mul(change, shares), -1, true))), scale);
    const [dq, dk, dv] = [matmul(scores, k), matmul(scores, q, true), matmul(shares, g, true)];
    return [outOfHeads(dq), outOfHeads(dk), outOfHeads(dv)];
  },
});
/**
 * softmax(q k^T scale) v of each head, where every position sees all: q [b, l, h k], k [b, m, h k], v [b, m, h e] -> [b, l, h e]. Scores are
 * computed run by run where the device can, so that long inputs need no memory for all of them.
 */
export const attention = (q: Node, k: Node, v: Node, heads: number, scale: number): Node =>
  apply(attentionOp, [q, k, v], { heads, scale });
