/** A graph as text, one line per node: `%12 = matmul(%3, %8) float32[b, l, 64]`. */

import { showShape } from './dim.ts';
import { type Node, topological } from './node.ts';

/** The nodes that the outputs depend on, one line each: `%12 = matmul(%3, %8) float32[b, l, 64]`. */
export function print(outputs: readonly Node[]): string {
  const numbers = new Map<Node, number>();
  const lines = topological(outputs).map((node, i) => {
    numbers.set(node, i);
    const inputs = node.inputs.map((x) => `%${numbers.get(x)}`).join(', ');
    const name = node.attributes.name === undefined ? '' : ` "${node.attributes.name}"`;
    return `%${i} = ${node.op.name}${name}(${inputs}) ${node.dtype}${showShape(node.shape)}`;
  });
  return [...lines, `return ${outputs.map((x) => `%${numbers.get(x)}`).join(', ')}`].join('\n');
}
