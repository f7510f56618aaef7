/** A loop that runs inside one program: values carried from turn to turn never leave the device. */

import { type Dim, dimTerms, showShape } from '../dim.ts';
import type { DType } from '../dtype.ts';
import { apply, constant, defineOp, inputOp, type Node, parameterOp, ShapeError, type Subgraph, topological } from '../node.ts';
import { chosenOp } from './choose.ts';

/** What a loop computes at every turn. */
export interface LoopBody extends Subgraph {
  readonly index: Node;
  readonly carried: readonly { readonly value: Node; readonly next: Node; readonly trained: boolean }[];
  /** bool []: whether another turn follows */
  readonly more: Node;
  /** values of every turn, kept one after the other */
  readonly each: readonly Node[];
  /** what depends on the turn, inputs before their users; everything else is computed once, outside */
  readonly nodes: readonly Node[];
}

const unbound = (): string => {
  throw new Error('loops are bound by the compiler');
};

/** A value that a turn is given: a carried value, or the number of the turn. */
export const bodyInputOp = defineOp({
  name: 'bodyInput',
  infer: (_, a) => ({ dtype: a.dtype as DType, shape: a.shape as readonly Dim[] }),
  onnx: unbound,
  vjp: null,
});

/** All results of a loop; `loopResult` takes one. Not differentiable, by decision: what is trained is unrolled. */
export const loopOp = defineOp({
  name: 'loop',
  infer: () => ({ dtype: 'float32', shape: [] }),
  onnx: unbound,
  vjp: null,
});

/** One result of a loop. */
export const loopResultOp = defineOp({
  name: 'loopResult',
  infer: (_, a) => ({ dtype: a.dtype as DType, shape: a.shape as readonly Dim[] }),
  onnx: unbound,
  vjp: null,
});

/** A carried value of a loop. */
export interface Carried {
  readonly start: Node;
  /** its shape within a turn, where turns change it: an axis that grows is a symbol of its own there; default: the start's */
  readonly shape?: readonly Dim[];
  /** its shape after the last turn, with a new symbol for an axis that grew; default: the shape within a turn */
  readonly end?: readonly Dim[];
  /** it is a weight that the loop trains, or belongs to one */
  readonly trained?: boolean;
}

/** What a turn makes of the carried values. */
export interface Turn {
  /** the carried values of the next turn, by name */
  readonly next: Readonly<Record<string, Node>>;
  /** bool []: whether another turn follows; default: until the turns are used up */
  readonly more?: Node;
  /** values of every turn, by name; the results hold them one after the other */
  readonly each?: Readonly<Record<string, Node>>;
}

/**
 * Runs `turn` up to `turns` times over carried values, all within one program.
 * @param turns int64 []: the most turns
 * @param symbol a name for the number of turns that ran: the first axis of what `each` collects
 * @param first bool []: whether there is a first turn; default: yes
 * @returns the carried values after the last turn, and what `each` collected [turns that ran, ...]; without a turn, its symbolic axes are 0 too
 * @throws ShapeError when a carried value changes its type, or its number of axes
 */
export function loop(
  { turns, symbol, first: begins }: { turns: Node; symbol: string; first?: Node },
  carried: Readonly<Record<string, Carried>>,
  turn: (values: Record<string, Node>, index: Node) => Turn,
): { last: Record<string, Node>; each: Record<string, Node> } {
  const names = Object.keys(carried);
  const given = (name: string, dtype: DType, shape: readonly Dim[]): Node => apply(bodyInputOp, [], { name, dtype, shape });
  const index = given('turn', 'int64', []);
  const values = Object.fromEntries(
    names.map((name) => [name, given(name, carried[name]!.start.dtype, carried[name]!.shape ?? carried[name]!.start.shape)]),
  );
  const { next, more = yes(), each = {} } = turn(values, index);
  for (const name of names) {
    const [before, after] = [values[name]!, next[name]];
    if (after === undefined) throw new ShapeError(`loop: a turn gives no next ${name}`);
    const fits = after.rank === before.rank && after.dtype === before.dtype;
    const same = carried[name]!.shape !== undefined || showShape(after.shape) === showShape(before.shape);
    if (!fits || !same)
      throw new ShapeError(
        `loop: ${name} is ${before.dtype}${showShape(before.shape)} before a turn and ${after.dtype}${showShape(after.shape)} after it`,
      );
  }
  const placeholders = [index, ...names.map((name) => values[name]!)];
  const outputs = [more, ...names.map((name) => next[name]!), ...Object.values(each)];
  const grown = new Set(names.flatMap((name) => symbolsOf(values[name]!.shape)));
  for (const name of names) for (const symbol of symbolsOf(carried[name]!.start.shape)) grown.delete(symbol);
  const all = topological(outputs);
  // Sizes of what is chosen anew in every turn come first: others are made of them.
  const chosen = all.filter((node) => node.op === chosenOp);
  for (const node of chosen) for (const symbol of symbolsOf(node.shape)) grown.add(symbol);
  const first = new Set(chosen.length === 0 ? [] : topological(chosen));
  const dependent = new Set<Node>(placeholders);
  const nodes = [...first, ...all.filter((node) => !first.has(node))].filter((node) => {
    // A size that changes from turn to turn is a value of the turn too.
    const sized = node.op !== inputOp && node.op !== parameterOp && sizesOf(node).some((symbol) => grown.has(symbol));
    if (sized || node.inputs.some((x) => dependent.has(x))) dependent.add(node);
    return dependent.has(node);
  });
  // What a turn reads from outside is an input of the loop, so that a walk over the graph finds it.
  const outside = new Set([...nodes.flatMap((node) => node.inputs), ...outputs].filter((x) => !dependent.has(x)));
  const body: LoopBody = {
    inputs: placeholders,
    outputs,
    index,
    carried: names.map((name) => ({ value: values[name]!, next: next[name]!, trained: carried[name]!.trained === true })),
    more,
    each: Object.values(each),
    nodes,
  };
  const starts = names.map((name) => carried[name]!.start);
  const results = apply(loopOp, [turns, begins ?? yes(), ...starts, ...outside], { body });
  const result = (at: number, dtype: DType, shape: readonly Dim[]): Node =>
    apply(loopResultOp, [results], { index: at, dtype, shape });
  return {
    last: Object.fromEntries(
      names.map((name, i) => [name, result(i, values[name]!.dtype, carried[name]!.end ?? values[name]!.shape)]),
    ),
    each: Object.fromEntries(
      Object.entries(each).map(([name, x], i) => [name, result(names.length + i, x.dtype, [symbol, ...x.shape])]),
    ),
  };
}

const symbolsOf = (dims: readonly Dim[]): string[] =>
  dims.flatMap((d) => (typeof d === 'number' ? [] : dimTerms(d).flatMap(({ symbols }) => symbols)));

/** Symbols of a node's shape, and of the sizes among its attributes. */
function sizesOf({ shape, attributes }: Node): string[] {
  const given = ['start', 'end', 'before', 'after', 'depth'].map((name) => attributes[name]);
  return symbolsOf([...shape, ...given.filter((one): one is string => typeof one === 'string')]);
}

const yes = (): Node => constant({ dtype: 'bool', shape: [], data: Uint8Array.of(1) });
