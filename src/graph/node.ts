/**
 * The symbolic graph. A node is an op applied to nodes, with its dtype and shape inferred when it is built, so that a shape
 * error names the op and both shapes at the line that made it. Nodes are immutable values; a model is a function that returns them.
 */

import { type Dim, showShape } from './dim.ts';
import type { DType, Tensor } from './dtype.ts';
import { f32 } from './dtype.ts';

/** What an op may be given beside its inputs. */
export type AttributeValue = number | string | boolean | readonly number[] | readonly Dim[] | Tensor | Subgraph;
/** A graph within a node: values that it is given, and what it computes of them. */
export interface Subgraph {
  readonly inputs: readonly Node[];
  readonly outputs: readonly Node[];
}

/** Attributes of a node, by name. */
export type Attributes = Readonly<Record<string, AttributeValue | undefined>>;

/** Element type and shape of a value. */
export interface Signature {
  dtype: DType;
  shape: readonly Dim[];
}

/** An attribute of an ONNX operator with its type: whole numbers are ints, and floats are written `float(x)`. */
export type OnnxAttribute = number | string | readonly number[] | { readonly float: number };
/** A float attribute of an ONNX operator. */
export const float = (x: number): OnnxAttribute => ({ float: x });

/** What a lowering may ask of the ONNX emitter; every value is the name of an ONNX value. */
export interface Emitter {
  /** @throws Error when an attribute that is not written as a float is not a whole number */
  node(op: string, inputs: readonly string[], attributes?: Record<string, OnnxAttribute | undefined>, domain?: string): string;
  constant(value: Tensor): string;
  /** the dimensions as a 1-D int64 tensor */
  shape(dims: readonly Dim[]): string;
  /** whether the device has a kernel for an ONNX operator */
  has(op: string): boolean;
  /** x as these dimensions, where one unknown one is inferred */
  reshape(x: string, dims: readonly Dim[]): string;
}

/** A weight as it is stored, where that is not the floats that its node declares; every value is the name of an ONNX value. */
export type StoredWeight =
  /** a shorter float type, unchanged */
  | { readonly form: 'half'; readonly value: string }
  /** whole numbers in blocks along the last axis, each block with a scale and a zero point: the layout of MatMulNBits */
  | {
      readonly form: 'blocks';
      readonly bits: number;
      readonly block: number;
      readonly data: string;
      readonly scales: string;
      readonly zeros: string;
    };

/** The inputs of a lowering that may read a weight in its stored form. */
export interface LoweredInputs {
  /** input i as the floats (or integers) that its node declares */
  value(i: number): string;
  /** input i as it is stored; undefined when it is not a weight or is stored as declared */
  stored(i: number): StoredWeight | undefined;
}

/** Everything that is known of an op. */
export interface OpRecord {
  readonly name: string;
  infer(inputs: readonly Node[], attributes: Attributes): Signature;
  onnx(emitter: Emitter, inputs: readonly string[], node: Node): string;
  /** a lowering that reads a weight in its stored form, or undefined where this use needs it as floats */
  onnxStored?(emitter: Emitter, inputs: LoweredInputs, node: Node): string | undefined;
  /**
   * How it is computed on a device with half-precision products (src/onnx/precision.ts); left out: in float32. `product`: in half precision with a
   * frozen half-precision weight; `elementwise`: as its inputs of the output's shape; `moves`: as all of its inputs; `rows`: as its first input.
   */
  readonly half?: 'product' | 'elementwise' | 'moves' | 'rows';
  /** cotangents of the inputs given the output's (`dy`), or null: the op is not differentiable by decision */
  readonly vjp: null | ((dy: Node, node: Node) => (Node | undefined)[]);
}

let nextId = 0;
/** Names of the enclosing scopes while a graph is built; errors show them. */
const scopes: string[] = [];

/** A value of the graph: an op applied to nodes, with its element type and shape. Immutable. */
export class Node {
  readonly id = nextId++;
  readonly op: OpRecord;
  readonly inputs: readonly Node[];
  readonly attributes: Attributes;
  readonly dtype: DType;
  readonly shape: readonly Dim[];

  constructor(op: OpRecord, inputs: readonly Node[], attributes: Attributes, signature: Signature) {
    this.op = op;
    this.inputs = inputs;
    this.attributes = attributes;
    this.dtype = signature.dtype;
    this.shape = signature.shape;
  }

  get rank(): number {
    return this.shape.length;
  }

  /** The dimension at an axis; negative axes count from the end. */
  dim(axis: number): Dim {
    const d = this.shape[axis < 0 ? axis + this.rank : axis];
    if (d === undefined) throw new ShapeError(`axis ${axis} is outside ${showShape(this.shape)}`);
    return d;
  }

  toString(): string {
    return `${this.op.name}#${this.id}: ${this.dtype}${showShape(this.shape)}`;
  }
}

/** Shapes or element types that do not fit; the message shows them all and where in the graph they met. */
export class ShapeError extends Error {
  override name = 'ShapeError';
}

/** Every op that exists, by name: the gradient and lowering tests walk this table. */
export const opTable = new Map<string, OpRecord>();

/**
 * Declares an op. See docs/extending/op.md.
 * @throws Error when there is one of this name
 */
export function defineOp(record: OpRecord): OpRecord {
  if (opTable.has(record.name)) throw new Error(`op ${record.name} is defined twice`);
  opTable.set(record.name, record);
  return record;
}

/**
 * A node of an op.
 * @throws ShapeError that names op, scope and the shapes of all inputs
 */
export function apply(op: OpRecord, inputs: readonly Node[], attributes: Attributes = {}): Node {
  let signature: Signature;
  try {
    signature = op.infer(inputs, attributes);
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error;
    const where = scopes.length > 0 ? ` at ${scopes.join('/')}` : '';
    throw new ShapeError(
      `${op.name}${where}: ${error.message} (inputs: ${inputs.map((x) => `${x.dtype}${showShape(x.shape)}`).join(', ')})`,
    );
  }
  return new Node(op, inputs, attributes, signature);
}

/** Builds part of a graph under a name that shape errors show. */
export function scope<T>(name: string, build: () => T): T {
  scopes.push(name);
  try {
    return build();
  } finally {
    scopes.pop();
  }
}

const declared = (inputs: readonly Node[], a: Attributes): Signature => {
  if (inputs.length > 0) throw new Error('a leaf takes no inputs');
  return { dtype: a.dtype as DType, shape: a.shape as readonly Dim[] };
};
const leaf = (): string => {
  throw new Error('leaves are bound by the compiler');
};

/** A value given at every run. */
export const inputOp = defineOp({ name: 'input', infer: declared, onnx: leaf, vjp: null });
/** A named weight: bound at compile time to a checkpoint, or given at every run while it is trained. */
export const parameterOp = defineOp({ name: 'parameter', infer: declared, onnx: leaf, vjp: null });
/** A value that belongs to the graph. */
const constantOp = defineOp({
  name: 'constant',
  infer: (_, a) => ({ dtype: (a.value as Tensor).dtype, shape: (a.value as Tensor).shape }),
  onnx: (e, _, node) => e.constant(node.attributes.value as Tensor),
  vjp: null,
});

/** A named value of the given shape, fed at every run. */
export function input(name: string, shape: readonly Dim[], dtype: DType = 'float32'): Node {
  return apply(inputOp, [], { name, shape, dtype });
}

/** A named weight of the given shape. */
export function parameter(name: string, shape: readonly number[], dtype: DType = 'float32'): Node {
  return apply(parameterOp, [], { name, shape, dtype });
}

/** A tensor, or a scalar, as a node. */
export function constant(value: Tensor | number): Node {
  return apply(constantOp, [], { value: typeof value === 'number' ? f32([value], []) : value });
}

/** The name of an input or parameter. */
export function nameOf(node: Node): string {
  return node.attributes.name as string;
}

/** All nodes that the outputs depend on, inputs before their users. */
export function topological(outputs: readonly Node[]): Node[] {
  const order: Node[] = [];
  const state = new Map<Node, 1 | 2>();
  // An explicit stack: graphs of deep models are deeper than the call stack.
  const stack: [Node, number][] = outputs.map((n): [Node, number] => [n, 0]).reverse();
  while (stack.length > 0) {
    const top = stack[stack.length - 1]!;
    const [node, next] = top;
    if (state.get(node) === 2) {
      stack.pop();
      continue;
    }
    if (next < node.inputs.length) {
      top[1]++;
      const child = node.inputs[next]!;
      if (state.get(child) !== 2) stack.push([child, 0]);
      continue;
    }
    state.set(node, 2);
    order.push(node);
    stack.pop();
  }
  return order;
}
