/**
 * Visual representation attribution in closed form (VisEdit Eq. 7): C(n) = ½ (1 − cos(ã[N], a[N])), where ã is the attention module's output at a query
 * position N after noise on token n.
 *
 * Only the key and value of token n change and the query at N does not. Per head, with scores s over all tokens, split the softmax into token n and the
 * others: o₋ = softmax(s₋) v₋ and Λ = log Σ exp s₋ do not depend on the noise, and
 *   ã_head = σ(Λ − s'_n) o₋ + σ(s'_n − Λ) v'_n,
 * a mean of two vectors, so nothing cancels when one token holds nearly all the attention. Each draw costs one row through the K, V and output
 * projections in place of a run of the module; the part over all tokens is computed once per token, not per draw.
 */

import { f32, type Tensor } from '../graph/dtype.ts';
import {
  add,
  type Dim,
  div,
  exp,
  expand,
  gather,
  input,
  log,
  matmul,
  mul,
  mulDim,
  type Node,
  oneHot,
  reduceMax,
  reshape,
  sigmoid,
  softmax,
  sqrt,
  square,
  sub,
  sum,
  transpose,
} from '../graph/index.ts';
import type { Decoder } from '../models/architecture.ts';
import { MASKED } from '../models/batch.ts';
import { walk } from '../models/forward.ts';
import { biasInput } from '../models/sight.ts';
import { Sites } from '../models/sites.ts';
import type { Weights } from '../nn/weights.ts';

/** The shape of positions [b, l], or [axes, b, l]. */
export const axesOf = ({ positionAxes = 1 }: Decoder, shape: readonly Dim[]): Dim[] =>
  positionAxes === 1 ? [...shape] : [positionAxes, ...shape];

/** Positions of chosen tokens of y [b, l] or [axes, b, l], each once for every draw: [b t s, 1] or [axes, b t s, 1]. */
function drawPositions(y: Node, tokens: Node, s: Dim): Node {
  const last = y.rank - 1;
  const lead = y.shape.slice(0, last);
  const order = Array.from({ length: last }, (_, i) => i);
  const chosen = transpose(gather(transpose(y, [last, ...order]), tokens), [...order.map((i) => i + 1), 0]);
  const t = tokens.dim(0);
  const repeated = expand(reshape(chosen, [...lead, t, 1]), [...lead, t, s]);
  const rows = mulDim(lead.at(-1)!, t, s);
  return reshape(repeated, last === 1 ? [rows, 1] : [lead[0]!, rows, 1]);
}

/** Rows [t] of the second axis of y [b, l, ...]. */
export function pick(y: Node, tokens: Node): Node {
  const rest = y.shape.slice(2).map((_, i) => i + 2);
  return transpose(gather(transpose(y, [1, 0, ...rest]), tokens), [1, 0, ...rest]);
}

/** The attention module's input for residual streams h [b, l, d]: the layer's own norm, read at its site; the rest of the layer is never compiled. */
export function attentionInput(decoder: Decoder, layer: number, w: Weights, h: Node): Node {
  const sites = new Sites();
  const [b, l] = h.shape as [Dim, Dim];
  const unused = { positions: input('positions', axesOf(decoder, [b, l]), 'int64'), bias: biasInput(decoder, b, l) };
  walk(decoder, layer, layer + 1, h, { weights: w, sites, ...unused });
  return sites.get(`layers.${layer}.attn.in`);
}

/** What the query at N reads, and what it would read without each of some tokens. */
interface ReadAt {
  /** [b, h, 1, k], scaled */
  readonly q: Node;
  /** over all tokens [b, h, 1, l] */
  readonly scores: Node;
  /** of all tokens [b, h, l, k] */
  readonly value: Node;
  /** o₋ [b, h, t, k] */
  readonly othersOut: Node;
  /** Λ [b, h, t, 1] */
  readonly othersLog: Node;
}

/** @param ends int64 [b], flat position b * l + N of the query @param visible additive bias [b, l] of the row N */
export function readAt(
  decoder: Decoder,
  layer: number,
  w: Weights,
  x: Node,
  positions: Node,
  tokens: Node,
  ends: Node,
  visible: Node,
): ReadAt {
  const { heads: h, headWidth: k } = decoder;
  const [b, l] = x.shape as [Dim, Dim];
  const t = tokens.dim(0);
  const { query, key, value } = decoder.project(layer, x, positions, w);
  const rows = reshape(transpose(query, [0, 2, 1, 3]), [mulDim(b, l), mulDim(h, k)]);
  const q = mul(reshape(gather(rows, ends), [b, h, 1, k]), decoder.scale);
  const scores = add(matmul(q, key, false, true), reshape(visible, [b, 1, 1, l]));
  const others = add(scores, reshape(mul(oneHot(tokens, l), MASKED), [1, 1, t, l])); // [b, h, t, l]
  const top = reduceMax(others, -1);
  const weights = exp(sub(others, top));
  const total = sum(weights, -1, true);
  const othersOut = div(matmul(weights, value), total);
  return { q, scores, value, othersOut, othersLog: reshape(add(top, log(total)), [b, h, t, 1]) };
}

/**
 * 1 − cos for chosen tokens of one layer, [b, t, s].
 * @param x input of the attention module [b, l, d]
 * @param tokens int64 [t], positions of the perturbed tokens (the same for the batch)
 * @param noise added at the token [b, t, s, d]
 * @param ends int64 [b], flat position b * l + N of the query
 * @param visible additive bias [b, l] of the row N: 0 at positions up to N
 * @param hidden h[l-1] [b, l, d] where the noise goes in before the norm; absent: the noise is added to x
 * @param compared what of the attention module's output is compared; default: the output itself
 */
export function influence(
  decoder: Decoder,
  layer: number,
  w: Weights,
  x: Node,
  positions: Node,
  tokens: Node,
  noise: Node,
  ends: Node,
  visible: Node,
  hidden?: Node,
  compared = (output: Node): Node => output,
): Node {
  const { heads: h, headWidth: k, hidden: d } = decoder;
  const b = x.dim(0);
  const t = tokens.dim(0);
  const s = noise.dim(2);
  const ts = mulDim(t, s);
  const { q, scores, value, othersOut, othersLog } = readAt(decoder, layer, w, x, positions, tokens, ends, visible);

  // perturbed tokens are sequences of one token at its position: one sequence of them all may be longer than the model takes
  const rowCount = mulDim(b, ts);
  const moved = reshape(add(reshape(pick(hidden ?? x, tokens), [b, t, 1, d]), noise), [rowCount, 1, d]);
  const perturbed = hidden === undefined ? moved : attentionInput(decoder, layer, w, moved);
  const at = drawPositions(positions, tokens, s);
  const own = decoder.project(layer, perturbed, at, w); // [b t s, h, 1, k]
  const perHead = (y: Node): Node => transpose(reshape(y, [b, ts, h, k]), [0, 2, 1, 3]);
  const ownScores = reshape(matmul(q, perHead(own.key), false, true), [b, h, t, s]);
  const s2 = add(ownScores, reshape(pick(visible, tokens), [b, 1, t, 1])); // s'_n

  const share = (y: Node): Node => reshape(sigmoid(y), [b, h, t, s, 1]);
  const ownOut = reshape(perHead(own.value), [b, h, t, s, k]);
  const mixed = add(mul(share(sub(othersLog, s2)), reshape(othersOut, [b, h, t, 1, k])), mul(share(sub(s2, othersLog)), ownOut));
  const dirty = decoder.output(layer, reshape(transpose(mixed, [0, 2, 3, 1, 4]), [b, ts, mulDim(h, k)]), w);
  const clean = decoder.output(layer, reshape(transpose(matmul(softmax(scores), value), [0, 2, 1, 3]), [b, 1, mulDim(h, k)]), w);
  return reshape(distance(compared(dirty), compared(clean)), [b, t, s]);
}

/** 1 − cos(a, b) as ½ |a/|a| − b/|b||², which keeps its digits where the two are nearly equal. */
function distance(a: Node, b: Node): Node {
  const unit = (y: Node): Node => div(y, add(sqrt(sum(square(y), -1, true)), 1e-12));
  return mul(sum(square(sub(unit(a), unit(b))), -1), 0.5);
}

/** Additive bias [b, l] of the query rows: 0 at the last positions up to each end, as many as the window has. */
export function visibleUpTo(ends: readonly number[], length: number, window = Number.POSITIVE_INFINITY): Tensor<'float32'> {
  const data = new Float32Array(ends.length * length);
  ends.forEach((end, n) => {
    data.fill(MASKED, n * length, n * length + Math.max(0, end + 1 - window));
    data.fill(MASKED, n * length + end + 1, (n + 1) * length);
  });
  return f32(data, [ends.length, length]);
}
