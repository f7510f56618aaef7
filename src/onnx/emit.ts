/** Symbolic graph -> ONNX. Symbols are read from the shapes of the inputs that declare them; weights become external data where they lie in a file. */

import { type Dim, showShape } from '../graph/dim.ts';
import { type DType, i64, type Tensor } from '../graph/dtype.ts';
import { inputOp, type LoweredInputs, type Node, nameOf, parameterOp, topological } from '../graph/node.ts';
import { chooseOp, chosenOp } from '../graph/ops/choose.ts';
import { onnxType } from '../graph/ops/elementwise.ts';
import { bodyInputOp, type LoopBody, loopOp, loopResultOp } from '../graph/ops/loop.ts';
import { type Device, devices } from './device.ts';
import { GraphEmitter, type Scope } from './graph-emitter.ts';
import { halfNodes, type WeightKind } from './precision.ts';
import { encodeModel, type GraphProto, type NodeProto, type ValueProto } from './proto.ts';
import {
  type BlockWeight,
  checkShape,
  type EmitOptions,
  WeightEmitter,
  type WeightLocation,
  type WeightSource,
} from './weights.ts';

export type { BlockWeight, EmitOptions, WeightLocation, WeightSource };

export interface Emitted {
  bytes: Uint8Array;
  /** innermost folder of all external data, if any */
  folder: string | undefined;
  /** of every file of external data; throws when it was changed */
  checks: ReadonlySet<() => void>;
  /** input names with their declared dtype and shape, in the order of the graph */
  inputs: Map<string, { dtype: DType; shape: readonly Dim[] }>;
  outputs: Map<string, { dtype: DType; shape: readonly Dim[] }>;
}

export type Weight = WeightLocation | Tensor | BlockWeight;
type Symbols = Map<string, { value: string; axis: number }>;

/** Weights are kept in half precision where they are stored so, in bfloat16 or in whole numbers. */
export const kindOf = (weight: Weight | undefined): WeightKind =>
  weight === undefined ? 'given' : 'parts' in weight || weight.dtype !== 'float32' ? 'half' : 'float';

const isLeaf = (node: Node): boolean => node.op === inputOp || node.op === parameterOp;

/** Nodes, and the values of them that others read. */
interface Part {
  readonly nodes: NodeProto[];
  readonly outputs: string[];
}

/** Masks hold numbers below what half precision can; scores are far from these. */
const HALF_LIMITS = [-32768, 32768] as const;

/** Lowers nodes one after the other, each value in the type that its use asks for. */
export class Lowering {
  readonly #values = new Map<Node, string>();
  readonly #emitter: GraphEmitter;
  readonly #weights: WeightEmitter;
  readonly #halves: ReadonlySet<Node>;
  readonly #float16: boolean;
  readonly #nameOf: (leaf: Node) => string;

  /** @param named what an input or a weight is called in the written program */
  constructor(
    emitter: GraphEmitter,
    weights: WeightEmitter,
    halves: ReadonlySet<Node>,
    float16: boolean,
    named: (name: string) => string = (name) => name,
  ) {
    this.#nameOf = (leaf) => named(nameOf(leaf));
    this.#float16 = float16;
    this.#emitter = emitter;
    this.#weights = weights;
    this.#halves = halves;
  }

  /** The name of a node's value, as declared or in half precision. */
  value(node: Node, half = false): string {
    const wanted = half && node.dtype === 'float32';
    if (isLeaf(node)) {
      if (wanted && this.#weights.has(this.#nameOf(node))) return this.#weights.half(this.#nameOf(node), node);
      const own = this.#weights.value(this.#nameOf(node), node);
      return wanted ? this.#emitter.node('Cast', [own], { to: onnxType.float16 }) : own;
    }
    const own = this.#values.get(node)!;
    if (node.dtype !== 'float32' || wanted === this.#halves.has(node)) return own;
    return this.#emitter.node('Cast', [own], { to: wanted ? onnxType.float16 : onnxType.float32 });
  }

  /** An operand in half precision that broadcasts, such as a mask, within what half precision holds. */
  #operand(node: Node, x: Node): string {
    const smaller = node.op.half === 'elementwise' && showShape(x.shape) !== showShape(node.shape);
    if (
      !smaller ||
      x.dtype !== 'float32' ||
      this.#halves.has(x) ||
      this.#weights.has(x.op === parameterOp ? this.#nameOf(x) : '')
    )
      return this.value(x, true);
    const [least, most] = HALF_LIMITS.map((limit) =>
      this.#emitter.constant({ dtype: 'float32', shape: [], data: Float32Array.of(limit) }),
    );
    return this.#emitter.node('Cast', [this.#emitter.node('Clip', [this.value(x), least!, most!])], { to: onnxType.float16 });
  }

  lower(order: readonly Node[]): void {
    for (const node of order) {
      if (isLeaf(node)) this.#weights.check(this.#nameOf(node), node);
      else if (node.op === loopOp) this.#loop(node);
      else if (node.op === chooseOp) this.#results.set(node, this.#choose(node));
      else if (node.op === loopResultOp || node.op === chosenOp) {
        const name = this.#results.get(node.inputs[0]!)![node.attributes.index as number]!;
        this.#values.set(node, name);
        this.#emitter.declare(name, this.#emitter.scopeOf([name]), node.shape);
      } else if (node.op !== bodyInputOp) this.#values.set(node, this.#lowered(node));
    }
  }
  readonly #results = new Map<Node, string[]>();

  #lowered(node: Node): string {
    const half = this.#halves.has(node);
    const given = (x: Node): string => (half ? this.#operand(node, x) : this.value(x));
    const inputs: LoweredInputs = {
      value: (i) => given(node.inputs[i]!),
      stored: (i) => {
        const x = node.inputs[i]!;
        const form = isLeaf(x) ? this.#weights.stored(this.#nameOf(x), x, half) : undefined;
        return form?.form === 'half' && !this.#float16 ? undefined : form;
      },
    };
    return node.op.onnxStored?.(this.#emitter, inputs, node) ?? node.op.onnx(this.#emitter, node.inputs.map(given), node);
  }

  #choose(node: Node): string[] {
    const emitter = this.#emitter;
    const width = node.attributes.width as number;
    const [which, ...values] = node.inputs as [Node, ...Node[]];
    const index = this.value(which);
    const names = values.map((x) => this.value(x));
    const lists = Array.from({ length: values.length / width }, (_, i) => names.slice(i * width, (i + 1) * width));
    const is = lists.map((_, i) => emitter.node('Equal', [index, emitter.constant(i64([i], []))]));
    const outputsOf = (): string[] => values.slice(0, width).map(() => emitter.fresh('chosen'));
    const listAt = (i: number): Part => {
      const outputs = outputsOf();
      const nodes = lists[i]!.map(
        (name, at): NodeProto => ({ op: 'Identity', domain: '', inputs: [name], outputs: [outputs[at]!], attributes: {} }),
      );
      return { nodes, outputs };
    };
    /** The list at `i` or, where it is not the chosen one, one of those behind it. */
    const from = (i: number): Part => {
      if (i === lists.length - 1) return listAt(i);
      const outputs = outputsOf();
      const attributes = { then_branch: graphOf(listAt(i)), else_branch: graphOf(from(i + 1)) };
      return { nodes: [{ op: 'If', domain: '', inputs: [is[i]!], outputs, attributes }], outputs };
    };
    const graphOf = ({ nodes, outputs }: Part): GraphProto => ({
      nodes,
      inputs: [],
      outputs: outputs.map((name, at) => {
        const { dtype, shape } = values[at]!;
        return { name, type: onnxType[dtype], shape: shape.map((_, axis) => `${name}:${axis}`) };
      }),
    });
    const { nodes, outputs } = from(0);
    for (const one of nodes) emitter.write(one, emitter.scopeOf([index, ...names]));
    return outputs;
  }

  #loop(node: Node): void {
    const emitter = this.#emitter;
    const { carried, each, index, inputs, more, nodes } = node.attributes.body as LoopBody;
    const [turns, first, ...rest] = node.inputs as [Node, Node, ...Node[]];
    const starts = carried.map(({ value }, i) => this.value(rest[i]!, this.#halves.has(value)));
    const before = [this.value(turns), this.value(first), ...starts];
    const outside = rest.slice(carried.length).filter((x) => this.#values.has(x));
    const depth = emitter.scopeOf([...before, ...outside.map((x) => this.#values.get(x)!)]);
    const scope: Scope = { nodes: [], depth: depth.depth + 1 };
    const names = new Map(inputs.map((x) => [x, emitter.fresh(String(x.attributes.name))]));
    for (const [x, name] of names) {
      this.#values.set(x, name);
      emitter.declare(name, scope, x.shape);
    }
    this.lower(nodes);
    const given = (x: Node, hint: string): ValueProto => ({ name: hint, type: this.#typeOf(x), shape: x.shape });
    const outputs = [more, ...carried.map(({ next }) => next), ...each].map((x, i) => {
      // A value of the loop's own for every output: it may be a value from outside, or be given twice.
      const to = emitter.fresh('turn');
      const half = i > 0 && this.#halves.has(i <= carried.length ? carried[i - 1]!.value : x);
      emitter.write({ op: 'Identity', domain: '', inputs: [this.value(x, half)], outputs: [to], attributes: {} }, scope);
      return { name: to, type: half ? onnxType.float16 : onnxType[x.dtype], shape: x.shape };
    });
    const condition = emitter.fresh('more');
    const body = {
      nodes: scope.nodes,
      inputs: [
        given(index, names.get(index)!),
        { name: condition, type: onnxType.bool, shape: [] },
        ...carried.map(({ value }) => given(value, names.get(value)!)),
      ],
      outputs,
    };
    const results = [...carried, ...each].map(() => emitter.fresh('loop'));
    const written: NodeProto = { op: 'Loop', domain: '', inputs: before, outputs: results, attributes: { body } };
    emitter.write(written, depth);
    this.#results.set(node, results);
  }

  #typeOf(node: Node): number {
    return onnxType[this.#halves.has(node) ? 'float16' : node.dtype];
  }
}

/** The inputs that a graph asks for, the weights that are bound, and where symbols are read. */
export function leaves(
  order: readonly Node[],
  weights: WeightSource,
): { inputs: Emitted['inputs']; bound: Map<string, Weight>; symbols: Symbols } {
  const inputs: Emitted['inputs'] = new Map();
  const symbols: Symbols = new Map();
  const bound = new Map<string, Weight>();
  for (const node of order) {
    if (!isLeaf(node)) continue;
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
  return { inputs, bound, symbols };
}

/**
 * Inputs and outputs of the program that named outputs become.
 * @throws Error when a weight has another shape than a node declares
 */
export function interfaceOf(outputs: Readonly<Record<string, Node>>, weights: WeightSource): Pick<Emitted, 'inputs' | 'outputs'> {
  const order = topological(Object.values(outputs));
  const { inputs, bound } = leaves(order, weights);
  for (const node of order) if (isLeaf(node)) checkShape(nameOf(node), bound.get(nameOf(node)), node);
  return { inputs, outputs: new Map(Object.entries(outputs).map(([name, { dtype, shape }]) => [name, { dtype, shape }])) };
}

export function emit(
  outputs: ReadonlyMap<string, Node>,
  weights: WeightSource,
  options: EmitOptions = {},
  device: Device = devices.cpu,
): Emitted {
  const order = topological([...outputs.values()]);
  const { inputs, bound, symbols } = leaves(order, weights);
  const emitter = new GraphEmitter(device, symbols);
  const stored = new WeightEmitter(emitter, bound, options);
  const halves = device.half ? halfNodes(order, (name) => kindOf(bound.get(name))) : new Set<Node>();
  const lowering = new Lowering(emitter, stored, halves, device.float16);
  lowering.lower(order);
  const declared: Emitted['outputs'] = new Map();
  for (const [name, node] of outputs) {
    // A name of its own for every output: two outputs may be one value, and an output may be an input.
    const own: NodeProto = {
      op: 'Identity',
      domain: '',
      inputs: [lowering.value(node)],
      outputs: [`out:${name}`],
      attributes: {},
    };
    emitter.write(own, emitter.root);
    declared.set(name, { dtype: node.dtype, shape: node.shape });
  }
  const bytes = encodeModel({
    opsets: { '': 21, 'com.microsoft': 1 },
    nodes: emitter.nodes,
    initializers: emitter.initializers,
    inputs: [...inputs].map(([name, { dtype, shape }]) => ({ name, type: onnxType[dtype], shape })),
    outputs: [...declared].map(([name, { dtype, shape }]) => ({ name: `out:${name}`, type: onnxType[dtype], shape })),
  });
  return { bytes, folder: stored.folder, checks: stored.checks, inputs, outputs: declared };
}
