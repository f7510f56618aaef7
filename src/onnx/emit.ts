/** Symbolic graph -> ONNX. Symbols are read from the shapes of the inputs that declare them; weights become external data where they lie in a file. */

import { type Dim, dimTerms, showShape } from '../graph/dim.ts';
import { type DType, i64, type Tensor } from '../graph/dtype.ts';
import {
  type Emitter,
  inputOp,
  type LoweredInputs,
  type Node,
  nameOf,
  type OnnxAttribute,
  parameterOp,
  topological,
} from '../graph/node.ts';
import { onnxType } from '../graph/ops/elementwise.ts';
import { encodeModel, type InitializerProto, type NodeProto, tensorBytes } from './proto.ts';
import { type BlockWeight, type EmitOptions, WeightEmitter, type WeightLocation, type WeightSource } from './weights.ts';

export type { BlockWeight, EmitOptions, WeightLocation, WeightSource };

export interface Emitted {
  bytes: Uint8Array;
  /** innermost folder of all external data, if any */
  folder: string | undefined;
  /** input names with their declared dtype and shape, in the order of the graph */
  inputs: Map<string, { dtype: DType; shape: readonly Dim[] }>;
  outputs: Map<string, { dtype: DType; shape: readonly Dim[] }>;
}

class GraphEmitter implements Emitter {
  readonly nodes: NodeProto[] = [];
  readonly initializers: InitializerProto[] = [];
  readonly #constants = new Map<string, string>();
  readonly #shapes = new Map<string, string>();
  readonly #memo = new Map<string, string>();
  readonly #symbols: Map<string, { value: string; axis: number }>;
  #count = 0;

  constructor(symbols: Map<string, { value: string; axis: number }>) {
    this.#symbols = symbols;
  }

  fresh(hint: string): string {
    return `${hint}_${this.#count++}`;
  }

  node(op: string, inputs: readonly string[], attributes: Record<string, OnnxAttribute | undefined> = {}, domain = ''): string {
    // Equal nodes are emitted once: gradients ask for the same sub-expression in several rules.
    const key = `${op}|${inputs.join(',')}|${JSON.stringify(attributes)}`;
    const known = this.#memo.get(key);
    if (known !== undefined) return known;
    const output = this.freshNode(op, inputs, attributes, domain);
    this.#memo.set(key, output);
    return output;
  }

  /** A node of its own, even where an equal one exists. */
  freshNode(op: string, inputs: readonly string[], attributes: NodeProto['attributes'] = {}, domain = ''): string {
    const output = this.fresh(op);
    this.nodes.push({ op, domain, inputs, outputs: [output], attributes });
    return output;
  }

  constant(value: Tensor): string {
    const bytes = tensorBytes(value);
    const key = bytes.length <= 64 ? `${value.dtype}${showShape(value.shape)}${bytes.join()}` : undefined;
    const known = key === undefined ? undefined : this.#constants.get(key);
    if (known !== undefined) return known;
    const name = this.fresh('constant');
    this.initializers.push({ name, type: onnxType[value.dtype], shape: value.shape, data: bytes });
    if (key !== undefined) this.#constants.set(key, name);
    return name;
  }

  shape(dims: readonly Dim[]): string {
    if (dims.every((d) => typeof d === 'number')) return this.constant(i64(dims as number[], [dims.length]));
    const key = showShape(dims);
    const known = this.#shapes.get(key);
    if (known !== undefined) return known;
    const parts = dims.map((d) => this.#dim(d));
    const value = parts.length === 1 ? parts[0]! : this.node('Concat', parts, { axis: 0 });
    this.#shapes.set(key, value);
    return value;
  }

  reshape(x: string, dims: readonly Dim[]): string {
    const unknown = dims.filter((d) => typeof d !== 'number').length;
    const inferred = unknown === 1 && !dims.includes(0);
    const target = inferred
      ? this.constant(
          i64(
            dims.map((d) => (typeof d === 'number' ? d : -1)),
            [dims.length],
          ),
        )
      : this.shape(dims);
    // A length may be 0 at run time, which would otherwise mean the input's.
    return this.node('Reshape', [x, target], inferred ? {} : { allowzero: 1 });
  }

  #dim(d: Dim): string {
    if (typeof d === 'number') return this.constant(i64([d], [1]));
    let total: string | undefined;
    for (const { coefficient, symbols } of dimTerms(d)) {
      let value: string | undefined;
      for (const s of symbols) {
        const source = this.#symbols.get(s);
        if (source === undefined)
          throw new Error(`dimension ${d}: no input has ${s} as one of its dimensions, so it has no value at run time`);
        const read = this.node('Shape', [source.value], { start: source.axis, end: source.axis + 1 });
        value = value === undefined ? read : this.node('Mul', [value, read]);
      }
      if (value === undefined) value = this.constant(i64([coefficient], [1]));
      else if (coefficient !== 1) value = this.node('Mul', [value, this.constant(i64([coefficient], [1]))]);
      total = total === undefined ? value : this.node('Add', [total, value]);
    }
    return total!;
  }
}

export function emit(outputs: ReadonlyMap<string, Node>, weights: WeightSource, options: EmitOptions = {}): Emitted {
  const order = topological([...outputs.values()]);
  const inputs: Emitted['inputs'] = new Map();
  const symbols = new Map<string, { value: string; axis: number }>();
  const bound = new Map<string, WeightLocation | Tensor | BlockWeight>();
  for (const node of order) {
    if (node.op !== inputOp && node.op !== parameterOp) continue;
    const name = nameOf(node);
    const source = node.op === parameterOp ? weights(name) : undefined;
    if (source !== undefined) {
      bound.set(name, source);
      continue;
    }
    const before = inputs.get(name);
    if (before !== undefined && showShape(before.shape) !== showShape(node.shape)) {
      throw new Error(`input ${name} is declared as ${showShape(before.shape)} and as ${showShape(node.shape)}`);
    }
    inputs.set(name, { dtype: node.dtype, shape: node.shape });
    node.shape.forEach((d, axis) => {
      if (typeof d === 'string' && /^\w+$/.test(d) && !symbols.has(d)) symbols.set(d, { value: name, axis });
    });
  }
  const emitter = new GraphEmitter(symbols);
  const stored = new WeightEmitter(emitter, bound, options);
  const values = new Map<Node, string>();
  const isLeaf = (node: Node): boolean => node.op === inputOp || node.op === parameterOp;
  const lowered = (node: Node): string => (isLeaf(node) ? stored.value(nameOf(node), node) : values.get(node)!);
  for (const node of order) {
    if (isLeaf(node)) {
      stored.check(nameOf(node), node);
      continue;
    }
    const inputs: LoweredInputs = {
      value: (i) => lowered(node.inputs[i]!),
      stored: (i) => {
        const x = node.inputs[i]!;
        return isLeaf(x) ? stored.stored(nameOf(x), x) : undefined;
      },
    };
    values.set(node, node.op.onnxStored?.(emitter, inputs, node) ?? node.op.onnx(emitter, node.inputs.map(lowered), node));
  }
  const declared: Emitted['outputs'] = new Map();
  for (const [name, node] of outputs) {
    // A name of its own for every output: two outputs may be one value, and an output may be an input.
    emitter.nodes.push({ op: 'Identity', domain: '', inputs: [lowered(node)], outputs: [`out:${name}`], attributes: {} });
    declared.set(name, { dtype: node.dtype, shape: node.shape });
  }
  const bytes = encodeModel({
    opsets: { '': 21, 'com.microsoft': 1 },
    nodes: emitter.nodes,
    initializers: emitter.initializers,
    inputs: [...inputs].map(([name, { dtype, shape }]) => ({ name, type: onnxType[dtype], shape })),
    outputs: [...declared].map(([name, { dtype, shape }]) => ({ name: `out:${name}`, type: onnxType[dtype], shape })),
  });
  return { bytes, folder: stored.folder, inputs, outputs: declared };
}
