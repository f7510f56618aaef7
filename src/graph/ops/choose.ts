/** One of several lists of values, by a number that is known when the program runs: the others are neither read nor copied. */

import type { Dim } from '../dim.ts';
import type { DType } from '../dtype.ts';
import { apply, defineOp, type Node, type Signature } from '../node.ts';

const unbound = (): string => {
  throw new Error('choices are bound by the compiler');
};

/** All values of the chosen list; `chosen` takes one. Inputs: the number of the list, int64 [], and the lists one after the other. */
export const chooseOp = defineOp({
  name: 'choose',
  infer: () => ({ dtype: 'float32', shape: [] }),
  onnx: unbound,
  vjp: null,
});

/** One value of the chosen list. */
export const chosenOp = defineOp({
  name: 'chosen',
  infer: (_, a) => ({ dtype: a.dtype as DType, shape: a.shape as readonly Dim[] }),
  onnx: unbound,
  vjp: null,
});

/**
 * The values of list `which`.
 * @param as type and shape of each value; symbols among its axes are read from the value that is chosen
 */
export function choose(which: Node, lists: readonly (readonly Node[])[], as: readonly Signature[]): Node[] {
  const all = apply(chooseOp, [which, ...lists.flat()], { width: as.length });
  return as.map(({ dtype, shape }, index) => apply(chosenOp, [all], { index, dtype, shape }));
}
