/** How many floating-point operations the products of a graph take, two for each product of numbers: what a processor's peak is compared with. */
import { bindDim, type Node, topological } from '../src/graph/index.ts';

/** @param symbols lengths of the axes that are not numbers */
export function operations(outputs: Readonly<Record<string, Node>>, symbols: Readonly<Record<string, number>>): number {
  const bound = new Map(Object.entries(symbols));
  const length = (node: Node, axis: number): number => bindDim(node.dim(axis), bound);
  const size = (node: Node): number => node.shape.reduce<number>((product, dim) => product * bindDim(dim, bound), 1);
  let total = 0;
  for (const node of topological(Object.values(outputs))) {
    const [a, b] = node.inputs as [Node, Node];
    if (node.op.name === 'matmul') total += 2 * size(node) * length(a, node.attributes.transA ? -2 : -1);
    // scores of all pairs, and their sums of values
    if (node.op.name === 'attention') total += 4 * size(a) * length(b, 1);
  }
  return total;
}
