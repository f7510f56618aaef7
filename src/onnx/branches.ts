/** Several programs as one ONNX model: each is a branch that runs when it is asked for, and all read the same weights. */

import type { Dim } from '../graph/dim.ts';
import { type DType, f32, i64, sizeOf, type Tensor } from '../graph/dtype.ts';
import { type Node, topological } from '../graph/node.ts';
import { onnxType } from '../graph/ops/elementwise.ts';
import type { Device } from './device.ts';
import { type EmitOptions, type Emitted, kindOf, Lowering, leaves, type Weight, type WeightSource } from './emit.ts';
import { GraphEmitter } from './graph-emitter.ts';
import { halfNodes } from './precision.ts';
import { encodeModel, type GraphProto, type NodeProto, tensorBytes, type ValueProto } from './proto.ts';
import { WeightEmitter } from './weights.ts';

/** One of the programs. */
export interface Branch {
  /** no other branch has it */
  readonly id: number;
  readonly outputs: Readonly<Record<string, Node>>;
  readonly weights: WeightSource;
}

/** An input or output of a branch in the whole model. */
export const nameIn = (id: number, name: string): string => `${id}:${name}`;
/** The input bool [] that says whether a branch runs. */
export const runsName = (id: number): string => `runs:${id}`;

/** Whether two programs mean the same weight by a name. Blocks come from one model, where a name has one meaning. */
function isSame(a: Weight, b: Weight): boolean {
  if (a === b) return true;
  if ('parts' in a || 'parts' in b) return 'parts' in a && 'parts' in b && a.bits === b.bits && a.block === b.block;
  if ('file' in a || 'file' in b) return 'file' in a && 'file' in b && a.file === b.file && a.offset === b.offset;
  return a.dtype === b.dtype && a.shape.join() === b.shape.join() && Buffer.compare(tensorBytes(a), tensorBytes(b)) === 0;
}

/** The weights of all branches; where two mean different ones by a name, the later has a name of its own. */
class Weights {
  readonly bound = new Map<string, Weight>();

  nameOf(name: string, weight: Weight): string {
    for (let own = name; ; own += "'") {
      const known = this.bound.get(own);
      if (known !== undefined && !isSame(known, weight)) continue;
      if (known === undefined) this.bound.set(own, weight);
      return own;
    }
  }
}

/** Inputs of more numbers than this are given any size while their branch does not run. */
const SMALL = 1024;

/** A tensor that stands for an input or output of a branch that does not run. */
export function placeholder({ dtype, shape }: { dtype: DType; shape: readonly Dim[] }): Tensor {
  const sizes = shape.map((d) => (typeof d === 'number' && !isLarge(shape) ? d : 1));
  const n = sizeOf(sizes);
  if (dtype === 'int64') return i64(new BigInt64Array(n), sizes);
  if (dtype === 'bool') return { dtype, shape: sizes, data: new Uint8Array(n) } as Tensor;
  if (dtype === 'float32') return f32(new Float32Array(n), sizes);
  throw new Error(`a program's input or output is ${dtype}`);
}

const isLarge = (shape: readonly Dim[]): boolean =>
  shape.every((d) => typeof d === 'number') && sizeOf(shape as readonly number[]) > SMALL;

/** Of any size. */
const loose = (name: string, shape: readonly Dim[]): Dim[] => shape.map((_, axis) => `${name}:${axis}`);

/** Inputs and outputs are named by `nameIn`; beside them stand the inputs of `runsName`. What a branch that does not run gives means nothing. */
export function emitBranches(branches: readonly Branch[], device: Device, options: EmitOptions = {}): Emitted {
  const all = new Weights();
  const parts = branches.map(({ id, outputs, weights }) => {
    const order = topological(Object.values(outputs));
    const { inputs, bound } = leaves(order, weights);
    const names = new Map([...bound].map(([name, weight]) => [name, all.nameOf(name, weight)]));
    const halves = device.half ? halfNodes(order, (name) => kindOf(bound.get(name))) : new Set<Node>();
    return { id, outputs, order, inputs, names, halves };
  });
  const emitter = new GraphEmitter(device, new Map());
  const stored = new WeightEmitter(emitter, all.bound, options);
  const inputs: Emitted['inputs'] = new Map();
  const outputs: Emitted['outputs'] = new Map();
  const given: ValueProto[] = [];
  const ifs: NodeProto[] = [];
  for (const { id, order, names, halves, ...part } of parts) {
    const scope = emitter.begin();
    for (const [name, { dtype, shape }] of part.inputs) {
      const own = nameIn(id, name);
      inputs.set(own, { dtype, shape });
      const large = isLarge(shape);
      given.push({ name: own, type: onnxType[dtype], shape: large ? loose(own, shape) : shape });
      emitter.declare(own, scope, large ? [] : shape);
      names.set(name, large ? emitter.reshape(own, shape) : own);
    }
    const lowering = new Lowering(emitter, stored, halves, device.float16, (name) => names.get(name)!);
    lowering.lower(order);
    const results = Object.entries(part.outputs).map(([name, node]) => {
      const own = nameIn(id, name);
      outputs.set(own, { dtype: node.dtype, shape: node.shape });
      return { own: `out:${own}`, type: onnxType[node.dtype], node };
    });
    const graph = (nodes: NodeProto[], valueFor: (node: Node) => string): GraphProto => ({
      nodes,
      inputs: [],
      outputs: results.map(({ node, type }) => {
        const name = emitter.fresh('result');
        nodes.push({ op: 'Identity', domain: '', inputs: [valueFor(node)], outputs: [name], attributes: {} });
        return { name, type, shape: loose(name, node.shape) };
      }),
    });
    const otherwise = ({ dtype, rank }: Node): string =>
      emitter.constant(placeholder({ dtype, shape: new Array<Dim>(rank).fill(1) }));
    const runs = runsName(id);
    inputs.set(runs, { dtype: 'bool', shape: [] });
    given.push({ name: runs, type: onnxType.bool, shape: [] });
    ifs.push({
      op: 'If',
      domain: '',
      inputs: [runs],
      outputs: results.map(({ own }) => own),
      attributes: { then_branch: graph(scope.nodes, (node) => lowering.value(node)), else_branch: graph([], otherwise) },
    });
  }
  const bytes = encodeModel({
    opsets: { '': 21, 'com.microsoft': 1 },
    nodes: [...emitter.nodes, ...ifs],
    initializers: emitter.initializers,
    inputs: given,
    outputs: [...outputs].map(([own, { dtype, shape }]) => ({
      name: `out:${own}`,
      type: onnxType[dtype],
      shape: loose(own, shape),
    })),
  });
  return { bytes, folder: stored.folder, checks: stored.checks, inputs, outputs };
}
