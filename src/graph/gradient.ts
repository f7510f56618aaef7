/**
 * Reverse-mode differentiation in the graph's own vocabulary. The walker owns broadcasting (cotangents are summed back to the
 * input's shape), accumulation, and pruning (only nodes on a path to a target are visited); a rule in an op record is one formula.
 */

import { type Dim, showShape } from './dim.ts';
import { f32 } from './dtype.ts';
import { constant, type Node, nameOf, ShapeError, topological } from './node.ts';
import { add } from './ops/elementwise.ts';
import { sum } from './ops/linear.ts';
import { expand, reshape } from './ops/shape.ts';

/** Sums a cotangent over the axes that broadcasting added or stretched. */
function sumTo(x: Node, shape: readonly Dim[]): Node {
  if (showShape(x.shape) === showShape(shape)) return x;
  const extra = x.rank - shape.length;
  const axes = x.shape.flatMap((d, i) => (i < extra || (shape[i - extra] === 1 && d !== 1) ? [i] : []));
  const reduced = axes.length > 0 ? sum(x, axes, true) : x;
  return showShape(reduced.shape) === showShape(shape) ? reduced : reshape(reduced, shape);
}

/**
 * Gradients of a scalar with respect to `targets`, in their order and shapes.
 * @throws ShapeError when the loss is no scalar; Error that names a target which the loss does not depend on
 */
export function gradient(loss: Node, targets: readonly Node[]): Node[] {
  if (loss.rank !== 0)
    throw new ShapeError(`gradient needs a scalar loss, got ${showShape(loss.shape)}; sum or average it first`);
  const order = topological([loss]);
  const needed = new Set<Node>(targets);
  for (const node of order) if (node.op.vjp !== null && node.inputs.some((x) => needed.has(x))) needed.add(node);
  const cotangents = new Map<Node, Node>([[loss, constant(f32([1], []))]]);
  for (const node of [...order].reverse()) {
    const dy = cotangents.get(node);
    if (dy === undefined || node.op.vjp === null || !node.inputs.some((x) => needed.has(x))) continue;
    const full = showShape(dy.shape) === showShape(node.shape) ? dy : expand(dy, node.shape);
    node.op.vjp(full, node).forEach((dx, i) => {
      const x = node.inputs[i]!;
      if (dx === undefined || !needed.has(x)) return;
      const summed = sumTo(dx, x.shape);
      const before = cotangents.get(x);
      cotangents.set(x, before === undefined ? summed : add(before, summed));
    });
  }
  return targets.map((target) => {
    const dx = cotangents.get(target);
    if (dx === undefined)
      throw new Error(`the loss does not depend on ${target.attributes.name === undefined ? target : nameOf(target)}`);
    return dx;
  });
}
