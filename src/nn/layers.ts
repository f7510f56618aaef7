/** Linear maps and multi-head attention: compositions that every architecture shares. */

import { addDim, type Dim } from '../graph/dim.ts';
import { add, concat, matmul, mul, type Node, type Operand, reshape, slice, softmax, transpose } from '../graph/index.ts';
import type { Weights } from './weights.ts';

/** x W^T (+ b): x [..., in], weight `${name}.weight` [out, in]; under a change by factors x W^T + (x right^T) left^T (+ b). */
export function linear(w: Weights, name: string, x: Node, inWidth: number, outWidth: number, bias = true): Node {
  const own = matmul(x, w.get(`${name}.weight`, [outWidth, inWidth]), false, true);
  const change = w.lowRank.get(`${name}.weight`);
  const y = change === undefined ? own : add(own, matmul(matmul(x, change.right, false, true), change.left, false, true));
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

/**
 * softmax(q k^T scale + bias) v over [b, h, l, k]; the additive bias broadcasts to [b, h, l, l].
 * @param blocks ends of runs of positions, the last one l, where no position sees one after its run: half of a long causal
 *   attention is above the diagonal, and each run leaves out what comes after it
 */
export function attend(query: Node, key: Node, value: Node, scale: Operand, bias?: Node, blocks: readonly Dim[] = []): Node {
  const q = mul(query, scale);
  if (blocks.length < 2) return attendAll(q, key, value, bias);
  const parts = blocks.map((end, i) => {
    const start = blocks[i - 1] ?? 0;
    const seen = (x: Node): Node => slice(x, 2, 0, end);
    const part = bias === undefined ? undefined : slice(slice(bias, 2, start, end), 3, 0, end);
    return attendAll(slice(q, 2, start, end), seen(key), seen(value), part);
  });
  return concat(parts, 2);
}

/**
 * `attend` over keys and values in runs that follow each other, the bias [b, 1, l, all of them] over all: the same sum, and long runs of earlier
 * tokens are read where they are instead of being copied beside the new ones.
 */
export function attendRuns(query: Node, runs: readonly { key: Node; value: Node }[], scale: Operand, bias: Node): Node {
  const q = mul(query, scale);
  const scores = concat(
    runs.map(({ key }) => matmul(q, key, false, true)),
    3,
  );
  const shares = softmax(add(scores, bias));
  let start: Dim = 0;
  const parts = runs.map(({ key, value }) => {
    const end: Dim = addDim(start, key.dim(2));
    const part = matmul(slice(shares, 3, start, end), value);
    start = end;
    return part;
  });
  return parts.reduce((a, b) => add(a, b));
}

function attendAll(query: Node, key: Node, value: Node, bias: Node | undefined): Node {
  const scores = matmul(query, key, false, true);
  return matmul(softmax(bias === undefined ? scores : add(scores, bias)), value);
}

/** Runs of a causal sequence of known length, for `attend`: about `run` positions each; none when it is short. */
export function causalBlocks(length: number, run = 144): number[] {
  const count = Math.floor(length / run);
  return count < 2 ? [] : Array.from({ length: count }, (_, i) => Math.round(((i + 1) * length) / count));
}
