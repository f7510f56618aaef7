/** Linear maps and multi-head attention: compositions that every architecture shares. */

import type { Dim } from '../graph/dim.ts';
import { type Node, type Operand, add, matmul, mul, reshape, softmax, transpose } from '../graph/index.ts';
import type { Weights } from './weights.ts';

/** x W^T (+ b): x [..., in], weight `${name}.weight` [out, in]. */
export function linear(w: Weights, name: string, x: Node, inWidth: number, outWidth: number, bias = true): Node {
  const y = matmul(x, w.get(`${name}.weight`, [outWidth, inWidth]), false, true);
  return bias ? add(y, w.get(`${name}.bias`, [outWidth])) : y;
}

/** [b, l, h k] -> [b, h, l, k] */
export function splitHeads(x: Node, heads: number): Node {
  const [b, l, d] = x.shape as [Dim, Dim, number];
  return transpose(reshape(x, [b, l, heads, d / heads]), [0, 2, 1, 3]);
}

/** [b, h, l, k] -> [b, l, h k] */
export function mergeHeads(x: Node): Node {
  const [b, h, l, k] = x.shape as [Dim, number, Dim, number];
  return reshape(transpose(x, [0, 2, 1, 3]), [b, l, h * k]);
}

/** softmax(q k^T scale + bias) v over [b, h, l, k]; the additive bias broadcasts to [b, h, l, l]. */
export function attend(query: Node, key: Node, value: Node, scale: Operand, bias?: Node): Node {
  const scores = matmul(mul(query, scale), key, false, true);
  return matmul(softmax(bias === undefined ? scores : add(scores, bias)), value);
}
