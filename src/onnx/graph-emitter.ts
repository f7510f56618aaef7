/** Writes ONNX nodes: equal nodes once, each in the outermost graph that has its inputs, so that a loop computes nothing twice that no turn changes. */

import { type Dim, dimTerms, showShape } from '../graph/dim.ts';
import { i64, type Tensor } from '../graph/dtype.ts';
import type { Emitter, OnnxAttribute } from '../graph/node.ts';
import { onnxType } from '../graph/ops/elementwise.ts';
import type { Device } from './device.ts';
import { type InitializerProto, type NodeProto, tensorBytes } from './proto.ts';

/** The nodes of one graph: of the program, or of a turn of a loop within it. */
export interface Scope {
  readonly nodes: NodeProto[];
  /** 0 is the program's */
  readonly depth: number;
}

export class GraphEmitter implements Emitter {
  readonly initializers: InitializerProto[] = [];
  readonly root: Scope = { nodes: [], depth: 0 };
  readonly #device: Device;
  /** where symbols are read at run time */
  #symbols: Map<string, { value: string; axis: number }>;
  /** the graph that computes a value; values that are not here are the program's */
  readonly #scopes = new Map<string, Scope>();
  readonly #constants = new Map<string, string>();
  readonly #shapes = new Map<string, string>();
  readonly #memo = new Map<string, string>();
  #branch = this.root;
  #count = 0;

  constructor(device: Device, symbols: Map<string, { value: string; axis: number }>) {
    this.#device = device;
    this.#symbols = symbols;
  }

  get nodes(): NodeProto[] {
    return this.root.nodes;
  }

  has(op: string): boolean {
    return !this.#device.lacks.has(op);
  }

  fresh(hint: string): string {
    return `${hint}_${this.#count++}`;
  }

  /** Begins a graph beside others within the program, with symbols of its own. */
  begin(): Scope {
    this.#symbols = new Map();
    this.#shapes.clear();
    for (const [key, value] of this.#memo) if (this.#scopes.has(value)) this.#memo.delete(key);
    this.#branch = { nodes: [], depth: this.root.depth + 1 };
    return this.#branch;
  }

  /** Says which graph gives a value, and reads the symbols of its shape there. */
  declare(value: string, scope: Scope, shape: readonly Dim[]): void {
    if (scope !== this.root) this.#scopes.set(value, scope);
    shape.forEach((d, axis) => {
      if (typeof d === 'string' && /^\w+$/.test(d) && !this.#symbols.has(d)) this.#symbols.set(d, { value, axis });
    });
  }

  /** The innermost of the graphs that give these values. */
  scopeOf(values: readonly string[]): Scope {
    let scope = this.root;
    for (const value of values) {
      const own = this.#scopes.get(value);
      if (own !== undefined && own.depth > scope.depth) scope = own;
    }
    return scope;
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
    const scope = this.scopeOf(inputs);
    // Of weights alone, the engine computes everything else once, when the program is opened.
    const own = op === 'DequantizeLinear' && scope === this.root ? this.#branch : scope;
    this.write({ op, domain, inputs, outputs: [output], attributes }, own);
    return output;
  }

  write(node: NodeProto, scope: Scope): void {
    scope.nodes.push(node);
    if (scope !== this.root) for (const output of node.outputs) this.#scopes.set(output, scope);
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
