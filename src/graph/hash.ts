/** The hash of a graph: equal graphs have equal hashes, so that a program can be known by what it computes. */

import { createHash } from 'node:crypto';
import type { Tensor } from './dtype.ts';
import { type AttributeValue, inputOp, type Node, parameterOp, type Subgraph, topological } from './node.ts';

/** Hashes of large constants; a constant is not changed once it is in a graph. */
const contents = new WeakMap<Tensor, string>();

function contentOf(value: Tensor): string {
  const bytes = new Uint8Array(value.data.buffer, value.data.byteOffset, value.data.byteLength);
  if (bytes.length <= 64) return bytes.join();
  let hash = contents.get(value);
  if (hash === undefined) {
    hash = createHash('sha256').update(bytes).digest('base64');
    contents.set(value, hash);
  }
  return hash;
}

// Text is written with quotes: a name may hold any of the marks between the parts.
function show(value: AttributeValue): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value !== 'object') return Object.is(value, -0) ? '-0' : String(value);
  if ('outputs' in value) return bodyText(value);
  if ('data' in value) return `${value.dtype}[${value.shape.join()}]${contentOf(value)}`;
  return `[${value.map(show).join()}]`;
}

/** The nodes that values depend on, one after the other, and the values' places among them. */
function textOf(outputs: readonly Node[]): string {
  const places = new Map<Node, number>();
  let text = '';
  for (const node of topological(outputs)) {
    places.set(node, places.size);
    text += `${node.op.name}(`;
    for (const x of node.inputs) text += `${places.get(x)},`;
    for (const name in node.attributes) {
      const value = node.attributes[name];
      if (value !== undefined) text += `${name}=${show(value)};`;
    }
    // An op from outside may infer more than its inputs and attributes say.
    text += node.op === inputOp || node.op === parameterOp ? ')' : `)${node.dtype}[${node.shape.join()}]`;
  }
  return `${text}=>${outputs.map((node) => places.get(node)).join()}`;
}

/** What a loop reads from outside stands among its node's inputs; here it is written once more, as part of the turn. */
const bodyText = ({ inputs, outputs }: Subgraph): string => `{${textOf([...inputs, ...outputs])}}`;

/**
 * A hash of everything that named outputs compute: ops, attributes, element types, shapes, the content of constants, and the names of inputs,
 * parameters and outputs. Weights that a program is bound to are not part of it.
 */
export function graphHash(outputs: Readonly<Record<string, Node>>): string {
  const names = JSON.stringify(Object.keys(outputs));
  return createHash('sha256')
    .update(`${names}${textOf(Object.values(outputs))}`)
    .digest('base64url');
}
