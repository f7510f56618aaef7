/**
 * SERAC's scope classifier, of the kind that embeds edit and query apart (Mitchell et al. 2022): E is a trained two-layer perceptron over keys of
 * the frozen backbone (context/representation.ts), and a query x is in the scope of an edit z with probability
 *   p(x, z) = σ(softplus(β) − softplus(α) ‖E(x) − E(z)‖²),
 * so that the edit's own request is always in scope. The paper has exp(−‖E(x) − E(z)‖²), which has no threshold of its own.
 */

import {
  add,
  cast,
  f32,
  greater,
  input,
  matmul,
  mul,
  type Node,
  relu,
  softplus,
  square,
  sub,
  sum,
  type Tensor,
  transpose,
} from '../../graph/index.ts';
import { linear } from '../../nn/layers.ts';
import type { Weights } from '../../nn/weights.ts';
import type { Feeds } from '../../runtime/program.ts';

export interface ScopeShape {
  /** of a backbone key, 3 d */
  readonly input: number;
  readonly width: number;
  /** of E(x) */
  readonly output: number;
}

export function scopeShapes({ input: n, width, output }: ScopeShape): Map<string, readonly number[]> {
  return new Map([
    ['scope.hidden.weight', [width, n]],
    ['scope.hidden.bias', [width]],
    ['scope.out.weight', [output, width]],
    ['scope.out.bias', [output]],
    ['scope.alpha', [1, 1]],
    ['scope.beta', [1, 1]],
  ]);
}

/** Keys [r, n] -> E [r, k]. The parts of a key have length 1: this brings their numbers to about 1. */
export function embedKeys(w: Weights, shape: ScopeShape, keys: Node): Node {
  const x = mul(keys, Math.sqrt(shape.input / 3));
  return linear(w, 'scope.out', relu(linear(w, 'scope.hidden', x, shape.input, shape.width)), shape.width, shape.output);
}

/** Logits of p(x, z) for every query and edit [q, e]; ‖a − b‖² = ‖a‖² + ‖b‖² − 2 a·b. */
function logitsOf(w: Weights, queries: Node, edits: Node): Node {
  const norms = (x: Node): Node => sum(square(x), 1, true);
  const lengths = add(norms(queries), transpose(norms(edits), [1, 0]));
  const distances = sub(lengths, mul(matmul(queries, edits, false, true), 2));
  return sub(softplus(w.get('scope.beta', [1, 1])), mul(softplus(w.get('scope.alpha', [1, 1])), distances));
}

/** The logit of one pair of embeddings. */
export function scopeLogit(query: ArrayLike<number>, edit: ArrayLike<number>, alpha: number, beta: number): number {
  let distance = 0;
  for (let i = 0; i < query.length; i++) distance += (query[i]! - edit[i]!) ** 2;
  const plus = (x: number): number => Math.log1p(Math.exp(-Math.abs(x))) + Math.max(x, 0);
  return plus(beta) - plus(alpha) * distance;
}

/**
 * Inputs: scope.edits [e, n], scope.queries [q, n], and for every pair scope.labels (1: in scope) and scope.weights [q, e], which sum to 1.
 * `scope`: mean of −log p of the right decision; `scopeRight`: share of right decisions.
 */
export function scopeLoss(w: Weights, shape: ScopeShape): { scope: Node; scopeRight: Node } {
  const embed = (name: string, rows: string): Node => embedKeys(w, shape, input(name, [rows, shape.input]));
  const logits = logitsOf(w, embed('scope.queries', 'q'), embed('scope.edits', 'e'));
  const labels = input('scope.labels', ['q', 'e']);
  const weights = input('scope.weights', ['q', 'e']);
  const said = cast(greater(logits, 0), 'float32');
  const both = mul(labels, said);
  return {
    scope: sum(mul(weights, sub(softplus(logits), mul(labels, logits)))),
    // Right: both say yes, or neither does.
    scopeRight: sum(mul(weights, add(sub(sub(1, labels), said), mul(both, 2)))),
  };
}

/** What the classifier learns of one record: keys of its request, of queries in its scope and of queries out of it. */
export interface ScopeSample {
  readonly request: Float32Array;
  readonly inScope: readonly Float32Array[];
  readonly outOfScope: readonly Float32Array[];
}

/**
 * In scope weighs a half, out of scope the other half: the records' own out-of-scope queries and, with `others`, for half of it all queries of the
 * other records of the batch.
 */
export function scopeFeeds(samples: readonly ScopeSample[], others: boolean): Feeds {
  const queries = samples.flatMap(({ inScope, outOfScope }, edit) => [
    ...inScope.map((key) => ({ key, edit, label: 1 })),
    ...outOfScope.map((key) => ({ key, edit, label: 0 })),
  ]);
  const e = samples.length;
  const positives = queries.filter(({ label }) => label === 1).length;
  const share = others && e > 1 ? 0.25 : 0;
  const each = {
    inScope: 0.5 / positives,
    outOfScope: (0.5 - share) / (queries.length - positives),
    others: share === 0 ? 0 : share / (queries.length * (e - 1)),
  };
  const labels = new Float32Array(queries.length * e);
  const weights = new Float32Array(queries.length * e);
  queries.forEach((query, q) => {
    for (let edit = 0; edit < e; edit++) {
      const mine = query.edit === edit;
      labels[q * e + edit] = mine ? query.label : 0;
      weights[q * e + edit] = !mine ? each.others : query.label === 1 ? each.inScope : each.outOfScope;
    }
  });
  return {
    'scope.edits': keyRows(samples.map(({ request }) => request)),
    'scope.queries': keyRows(queries.map(({ key }) => key)),
    'scope.labels': f32(labels, [queries.length, e]),
    'scope.weights': f32(weights, [queries.length, e]),
  };
}

/** [r, n] */
export function keyRows(keys: readonly Float32Array[]): Tensor<'float32'> {
  const n = keys[0]!.length;
  const data = new Float32Array(keys.length * n);
  keys.forEach((key, i) => {
    data.set(key, i * n);
  });
  return f32(data, [keys.length, n]);
}
