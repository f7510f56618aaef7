/** Graphs put together: the inputs of one become values of another. */

import { showShape } from './dim.ts';
import { apply, inputOp, type Node, nameOf, parameterOp, ShapeError, topological } from './node.ts';
import { loopOp } from './ops/loop.ts';

/**
 * Named outputs with some of their inputs and weights replaced by nodes; what does not depend on these stays the same node.
 * @param given nodes by the names of inputs and weights, with their types and shapes
 * @throws ShapeError when a node has another type or shape than its input; Error when a turn of a loop would read one
 */
export function bind(outputs: Readonly<Record<string, Node>>, given: ReadonlyMap<string, Node>): Record<string, Node> {
  const bound = new Map<Node, Node>();
  for (const node of topological(Object.values(outputs))) {
    const value = node.op === inputOp || node.op === parameterOp ? given.get(nameOf(node)) : undefined;
    if (value !== undefined) {
      if (value.dtype !== node.dtype || showShape(value.shape) !== showShape(node.shape))
        throw new ShapeError(
          `input ${nameOf(node)} is ${node.dtype}${showShape(node.shape)}, and is bound to ${value.dtype}${showShape(value.shape)}`,
        );
      bound.set(node, value);
      continue;
    }
    if (!node.inputs.some((x) => bound.has(x))) continue;
    if (node.op === loopOp) throw new Error('a loop reads the inputs that it was built with; bind them before it is built');
    bound.set(
      node,
      apply(
        node.op,
        node.inputs.map((x) => bound.get(x) ?? x),
        node.attributes,
      ),
    );
  }
  return Object.fromEntries(Object.entries(outputs).map(([name, node]) => [name, bound.get(node) ?? node]));
}
