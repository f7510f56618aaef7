/** Element-wise ops with NumPy broadcasting. The walker in gradient.ts sums cotangents back to the inputs' shapes. */

import { type Dim, showShape } from '../dim.ts';
import { type DType, f32 } from '../dtype.ts';
import { apply, constant, defineOp, float, type Node, type OpRecord, ShapeError } from '../node.ts';

/**
 * Broadcast of two shapes.
 * @throws ShapeError that shows both when they do not fit
 */
export function broadcast(a: readonly Dim[], b: readonly Dim[]): Dim[] {
  const rank = Math.max(a.length, b.length);
  const out: Dim[] = [];
  for (let i = 0; i < rank; i++) {
    const x = a[i - rank + a.length] ?? 1;
    const y = b[i - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1)
      throw new ShapeError(`${showShape(a)} and ${showShape(b)} do not broadcast: ${x} against ${y}`);
    out.push(x === 1 ? y : x);
  }
  return out;
}

function sameType(inputs: readonly Node[]): DType {
  const [first, ...rest] = inputs;
  for (const x of rest)
    if (x.dtype !== first!.dtype) throw new ShapeError(`element types differ: ${first!.dtype} and ${x.dtype}; add a cast`);
  return first!.dtype;
}

/** A node, or a number that stands for a float32 scalar. */
export type Operand = Node | number;
/** An operand as a node. */
export const lift = (x: Operand): Node => (typeof x === 'number' ? constant(x) : x);

function binary(name: string, op: string, vjp: (dy: Node, a: Node, b: Node, y: Node) => [Node, Node], half?: OpRecord['half']) {
  const record = defineOp({
    name,
    ...(half === undefined ? {} : { half }),
    infer: ([a, b]) => ({ dtype: sameType([a!, b!]), shape: broadcast(a!.shape, b!.shape) }),
    onnx: (e, inputs) => e.node(op, inputs),
    vjp: (dy, y) => vjp(dy, y.inputs[0]!, y.inputs[1]!, y),
  });
  return (a: Operand, b: Operand): Node => apply(record, [lift(a), lift(b)]);
}

function unary(
  name: string,
  lower: string | ((e: Parameters<Node['op']['onnx']>[0], x: string) => string),
  vjp: (dy: Node, x: Node, y: Node) => Node,
  half?: OpRecord['half'],
) {
  const record = defineOp({
    name,
    ...(half === undefined ? {} : { half }),
    infer: ([x]) => ({ dtype: x!.dtype, shape: x!.shape }),
    onnx: (e, [x]) => (typeof lower === 'string' ? e.node(lower, [x!]) : lower(e, x!)),
    vjp: (dy, y) => [vjp(dy, y.inputs[0]!, y)],
  });
  return (x: Node): Node => apply(record, [x]);
}

/** a + b, element by element, with broadcasting: d(a + b) = da + db */
export const add = binary('add', 'Add', (dy) => [dy, dy], 'elementwise');
/** a − b, element by element, with broadcasting: d(a - b) = da - db */
export const sub = binary('sub', 'Sub', (dy) => [dy, neg(dy)], 'elementwise');
/** a b, element by element, with broadcasting: d(a b) = b da + a db */
export const mul = binary('mul', 'Mul', (dy, a, b) => [mul(dy, b), mul(dy, a)], 'elementwise');
/** a / b, element by element, with broadcasting: d(a / b) = da / b - a / b^2 db */
export const div = binary('div', 'Div', (dy, _a, b, y) => [div(dy, b), neg(div(mul(dy, y), b))]);

/** −x of every element: d(-x) = -dx */
export const neg = unary('neg', 'Neg', (dy) => neg(dy), 'elementwise');
/** e^x of every element: d(e^x) = e^x dx */
export const exp = unary('exp', 'Exp', (dy, _x, y) => mul(dy, y));
/** Natural logarithm of every element: d(log x) = dx / x */
export const log = unary('log', 'Log', (dy, x) => div(dy, x));
/** Square root of every element: d(sqrt x) = dx / (2 sqrt x) */
export const sqrt = unary('sqrt', 'Sqrt', (dy, _x, y) => div(mul(dy, 0.5), y));
/** x² of every element: d(x^2) = 2 x dx */
export const square = unary(
  'square',
  (e, x) => e.node('Mul', [x, x]),
  (dy, x) => mul(dy, mul(x, 2)),
);
/** Hyperbolic tangent of every element: d(tanh x) = (1 - tanh^2 x) dx */
export const tanh = unary('tanh', 'Tanh', (dy, _x, y) => mul(dy, sub(1, square(y))));
/** s(x) = 1 / (1 + e^−x) of every element: d(s(x)) = s (1 - s) dx */
export const sigmoid = unary('sigmoid', 'Sigmoid', (dy, _x, y) => mul(dy, mul(y, sub(1, y))), 'elementwise');
/** log(1 + e^x) of every element: d(log(1 + e^x)) = s(x) dx */
export const softplus = unary('softplus', 'Softplus', (dy, x) => mul(dy, sigmoid(x)));
/** max(x, 0) of every element: d(max(x, 0)) = [x > 0] dx */
export const relu = unary('relu', 'Relu', (dy, x) => mul(dy, cast(greater(x, 0), 'float32')), 'elementwise');
/** |x| of every element: d(|x|) = sign(x) dx */
export const abs = unary('abs', 'Abs', (dy, x) => mul(dy, sign(x)));
/** Error function of every element: d(erf x) = 2/sqrt(pi) e^(-x^2) dx */
export const erf = unary('erf', 'Erf', (dy, x) => mul(dy, mul(exp(neg(square(x))), 2 / Math.sqrt(Math.PI))));
/** Sine of every element: d(sin x) = cos x dx */
export const sin = unary('sin', 'Sin', (dy, x) => mul(dy, cos(x)));
/** Cosine of every element: d(cos x) = -sin x dx */
export const cos = unary('cos', 'Cos', (dy, x) => neg(mul(dy, sin(x))));
/** gelu(x) = x P(x) of every element, P the normal distribution function: d = (P(x) + x p(x)) dx */
export const gelu = unary(
  'gelu',
  (e, x) => e.node('Gelu', [x], { approximate: 'none' }),
  (dy, x) => {
    const distribution = mul(add(erf(mul(x, Math.SQRT1_2)), 1), 0.5);
    const density = mul(exp(mul(square(x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
    return mul(dy, add(distribution, mul(x, density)));
  },
  'elementwise',
);
const SQRT_2_PI = Math.sqrt(2 / Math.PI);
/** x/2 (1 + t) of every element, t = tanh(√(2/π) (x + 0.044715 x³)): d = ((1 + t)/2 + x/2 (1 − t²) √(2/π) (1 + 3 · 0.044715 x²)) dx */
export const geluTanh = unary(
  'geluTanh',
  (e, x) => e.node('Gelu', [x], { approximate: 'tanh' }),
  (dy, x) => {
    const t = tanh(mul(mul(x, add(mul(square(x), 0.044715), 1)), SQRT_2_PI));
    const inner = mul(add(mul(square(x), 3 * 0.044715), 1), SQRT_2_PI);
    return mul(dy, mul(add(add(t, 1), mul(mul(x, sub(1, square(t))), inner)), 0.5));
  },
  'elementwise',
);
/** silu(x) = x s(x) of every element: d = s (1 + x (1 − s)) dx */
export const silu = unary(
  'silu',
  (e, x) => e.node('QuickGelu', [x], { alpha: float(1) }, 'com.microsoft'),
  (dy, x, y) => {
    const s = sigmoid(x);
    return mul(dy, add(s, mul(y, sub(1, s))));
  },
  'elementwise',
);
/** quickGelu(x) = x s(1.702 x) of every element: d = (s + 1.702 y (1 − s)) dx */
export const quickGelu = unary(
  'quickGelu',
  (e, x) => e.node('QuickGelu', [x], { alpha: float(1.702) }, 'com.microsoft'),
  (dy, x, y) => {
    const s = sigmoid(mul(x, 1.702));
    return mul(dy, add(s, mul(mul(y, 1.702), sub(1, s))));
  },
  'elementwise',
);

const signOp = defineOp({
  name: 'sign',
  infer: ([x]) => ({ dtype: x!.dtype, shape: x!.shape }),
  onnx: (e, [x]) => e.node('Sign', [x!]),
  vjp: null,
});
/** −1, 0 or 1 by the sign of every element; not differentiable. */
export const sign = (x: Node): Node => apply(signOp, [x]);

function comparison(name: string, op: string) {
  const record = defineOp({
    name,
    infer: ([a, b]) => {
      sameType([a!, b!]);
      return { dtype: 'bool', shape: broadcast(a!.shape, b!.shape) };
    },
    onnx: (e, inputs) => e.node(op, inputs),
    vjp: null,
  });
  return (a: Operand, b: Operand): Node => apply(record, [lift(a), lift(b)]);
}
/** a > b element by element, with broadcasting, as bool. */
export const greater = comparison('greater', 'Greater');
/** a < b element by element, with broadcasting, as bool. */
export const less = comparison('less', 'Less');
/** a = b element by element, with broadcasting, as bool. */
export const equal = comparison('equal', 'Equal');

/** The larger of both, element by element, with broadcasting; a cotangent goes to the larger input. */
export const maximum = binary('maximum', 'Max', (dy, a, b) => {
  const first = cast(greater(a, b), 'float32');
  return [mul(dy, first), mul(dy, sub(1, first))];
});

const whereOp = defineOp({
  name: 'where',
  infer: ([c, a, b]) => {
    if (c!.dtype !== 'bool') throw new ShapeError(`the condition must be bool, got ${c!.dtype}`);
    return { dtype: sameType([a!, b!]), shape: broadcast(c!.shape, broadcast(a!.shape, b!.shape)) };
  },
  onnx: (e, inputs) => e.node('Where', inputs),
  // d(c ? a : b) = c ? da : db
  vjp: (dy, y) => {
    const chosen = cast(y.inputs[0]!, 'float32');
    return [undefined, mul(dy, chosen), mul(dy, sub(1, chosen))];
  },
});
/** a where the condition (bool) holds, else b, element by element, with broadcasting. */
export const where = (condition: Node, a: Operand, b: Operand): Node => apply(whereOp, [condition, lift(a), lift(b)]);

/** ONNX TensorProto.DataType */
export const onnxType: Record<DType, number> = { float32: 1, uint8: 2, int8: 3, int32: 6, int64: 7, bool: 9, float16: 10 };

const castOp = defineOp({
  name: 'cast',
  infer: ([x], a) => ({ dtype: a.to as DType, shape: x!.shape }),
  onnx: (e, [x], node) => e.node('Cast', [x!], { to: onnxType[node.dtype] }),
  vjp: (dy, y) => [
    y.inputs[0]!.dtype === 'float32' || y.inputs[0]!.dtype === 'float16' ? cast(dy, y.inputs[0]!.dtype) : undefined,
  ],
});
/** The same elements in another type; gradients pass between floats. */
export const cast = (x: Node, to: DType): Node => (x.dtype === to ? x : apply(castOp, [x], { to }));

/** A value that gradients do not pass. */
const stopOp = defineOp({
  name: 'stopGradient',
  half: 'moves',
  infer: ([x]) => ({ dtype: x!.dtype, shape: x!.shape }),
  onnx: (e, [x]) => e.node('Identity', [x!]),
  vjp: null,
});
/** x itself, with its shape; gradients do not pass. */
export const stopGradient = (x: Node): Node => apply(stopOp, [x]);

/** A constant float32 vector [n]. */
export const vector = (values: readonly number[]): Node => constant(f32(values, [values.length]));
