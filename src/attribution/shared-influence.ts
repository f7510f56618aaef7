/**
 * Visual attribution (VisEdit Eq. 7) of noise ε that is added to the attention module's input at one token after the other, the same draws for all:
 * what is linear in ε is computed once per draw instead of once per token and draw. With β = σ(s'_n − Λ) and o₋ of influence.ts, β⁰ without noise,
 * and V the value without its bias, head by head:
 *   s'_n  = s_n + g_n ε,  g_n = ∂s_n / ∂x_n
 *   ã − a = Σ_h W_O^h δ_h,  δ_h = (β − β⁰)(v_n − o₋) + β V ε
 * Of ã − a the cosine needs the part along a, and the square of the rest: a quadratic form of δ with G = W_O P W_Oᵀ, where P takes a out. No vector of
 * the hidden width is made for a token and a draw.
 */

import { f32, i64, type Tensor } from '../graph/dtype.ts';
import {
  abs,
  add,
  cast,
  constant,
  type Dim,
  div,
  expand,
  gradient,
  input,
  less,
  matmul,
  maximum,
  mul,
  mulDim,
  type Node,
  oneHot,
  range,
  reshape,
  sigmoid,
  softmax,
  sqrt,
  square,
  sub,
  sum,
  transpose,
} from '../graph/index.ts';
import type { Rewrite } from '../models/rewrite.ts';
import type { Vlm } from '../models/vlm.ts';
import { Weights } from '../nn/weights.ts';
import { axesOf, pick, readAt } from './influence.ts';

/** What does not depend on the draws, for chosen tokens of one sequence. */
function readingGraph({ decoder }: Vlm, layer: number, rewrite: Rewrite | undefined): Record<string, Node> {
  const { heads: h, headWidth: k, hidden: d } = decoder;
  const w = new Weights(rewrite?.replace);
  const x = input('state', [1, 'l', d]);
  const tokens = input('tokens', ['t'], 'int64');
  const positions = input('positions', axesOf(decoder, [1, 'l']), 'int64');
  const read = readAt(decoder, layer, w, x, positions, tokens, input('ends', [1], 'int64'), input('visible', [1, 'l']));
  const { q, scores, value, othersOut, othersLog } = read;
  const perToken = (y: Node): Node => reshape(transpose(y, [2, 0, 1, 3]), ['t', h, y.dim(3)]);
  const atTokens = (y: Node): Node => transpose(pick(reshape(y, [h, 'l', y.dim(3)]), tokens), [1, 0, 2]); // [t, h, .]
  const clean = decoder.output(layer, reshape(matmul(softmax(scores), value), [1, h * k]), w);
  const length = sqrt(sum(square(clean), -1, true)); // [1, 1]
  const unit = div(clean, add(length, 1e-12));
  const identity = oneHot(range(h * k), h * k);
  const weight = sub(decoder.output(layer, identity, w), decoder.output(layer, mul(identity, 0), w)); // W_O [h k, d]
  const along = matmul(weight, unit, false, true); // [h k, 1]
  const rest = sub(weight, mul(along, unit));
  return {
    query: reshape(q, [h, k]),
    scores: atTokens(transpose(scores, [0, 1, 3, 2])), // [t, h, 1]
    others: perToken(othersLog), // [t, h, 1]
    apart: sub(atTokens(value), perToken(othersOut)), // v_n − o₋ [t, h, k]
    gram: matmul(rest, rest, false, true),
    ...{ along, length },
  };
}

/** C [t, s] of draws [s, d]. */
function drawsGraph({ decoder }: Vlm, layer: number, rewrite: Rewrite | undefined): Record<string, Node> {
  const { heads: h, headWidth: k, hidden: d } = decoder;
  const w = new Weights(rewrite?.replace);
  const [t, s] = ['t', 's'] as const;
  const noise = input('noise', [s, d]);
  const headsFirst = (name: string, width: number): Node => transpose(input(name, [t, h, width]), [1, 0, 2]);
  const [scores, others, apart] = [headsFirst('scores', 1), headsFirst('others', 1), headsFirst('apart', k)];
  const moved = add(scores, scoreShift(decoder, layer, w, noise)); // s' [h, t, s]
  const share = sigmoid(sub(moved, others)); // β
  const change = sub(share, sigmoid(sub(scores, others))); // β − β⁰

  // V ε [h, s, k]: no position turns a value
  const nowhere = (n: Dim): Node => expand(constant(i64([0], [1])), axesOf(decoder, [n, 1]));
  const valuesOf = (y: Node, n: Dim): Node => decoder.project(layer, reshape(y, [n, 1, d]), nowhere(n), w).value;
  const values = sub(valuesOf(noise, s), valuesOf(constant(f32(new Float32Array(d), [1, d])), 1)); // [s, h, 1, k]
  const drawn = reshape(transpose(values, [1, 0, 2, 3]), [h, s, k]);

  const gram = reshape(input('gram', [h * k, h * k]), [h, k, h * k]);
  const byGram = (y: Node): Node => reshape(matmul(y, gram), [h, y.dim(1), h, k]); // [h', n, h, k]
  /** y_hᵀ G y_h' [h, h', n] */
  const withItself = (y: Node): Node =>
    transpose(sum(mul(byGram(y), reshape(transpose(y, [1, 0, 2]), [1, y.dim(1), h, k])), -1), [2, 0, 1]);
  const mixed = matmul(reshape(apart, [h, 1, t, k]), transpose(byGram(drawn), [2, 0, 3, 1])); // [h, h', t, s]
  const over = (y: Node): Node => reshape(y, [1, h, t, s]);
  const first = sum(add(mul(over(change), reshape(withItself(apart), [h, h, t, 1])), mul(mul(over(share), mixed), 2)), 1); // [h, t, s]
  const second = sum(mul(over(share), reshape(withItself(drawn), [h, h, 1, s])), 1);
  const across = maximum(sum(add(mul(change, first), mul(share, second)), 0), 0); // [t, s]

  const along = reshape(input('along', [h * k, 1]), [h, k, 1]);
  const ofDraws = reshape(matmul(drawn, along), [h, 1, s]);
  const moveAlong = sum(add(mul(change, matmul(apart, along)), mul(share, ofDraws)), 0); // [t, s]
  return { contribution: mul(turned(add(input('length', [1, 1]), moveAlong), across), 0.5) };
}

/** By how much the score of each token moves with each draw, [h, t, s]. */
function scoreShift(decoder: Vlm['decoder'], layer: number, w: Weights, noise: Node): Node {
  const { heads: h, headWidth: k, hidden: d } = decoder;
  const s = noise.dim(0);
  const [x, q] = [input('rows', ['t', d]), input('query', [h, k])];
  const places = input('places', axesOf(decoder, ['t', 1]), 'int64');
  /** each token's position for `n` rows before or after the axis of tokens */
  const repeated = (n: Dim, before: boolean): Node => {
    const lead = places.shape.slice(0, -2);
    const rows = before ? [n, 't'] : ['t', n];
    const one = before ? [1, 't'] : ['t', 1];
    return reshape(expand(reshape(places, [...lead, ...one]), [...lead, ...rows]), [...lead, mulDim('t', n), 1]);
  };
  if (decoder.normsKeys === true) {
    const keys = (y: Node, n: Dim): Node =>
      reshape(decoder.project(layer, reshape(y, [mulDim('t', n), 1, d]), repeated(n, false), w).key, ['t', n, h, k]);
    const rows = reshape(x, ['t', 1, d]);
    const apart = sub(keys(add(rows, reshape(noise, [1, s, d])), s), keys(rows, 1));
    return transpose(sum(mul(apart, q), -1), [2, 0, 1]);
  }
  // The score of head h depends on its own copy of the tokens only, so that one gradient is that of each head.
  const copies = reshape(expand(reshape(x, [1, 't', d]), [h, 't', d]), [mulDim(h, 't'), 1, d]);
  const keys = reshape(decoder.project(layer, copies, repeated(h, true), w).key, [h, 't', h, k]);
  const ownHead = reshape(oneHot(range(h), h), [h, 1, h, 1]);
  const [slopes] = gradient(sum(mul(mul(keys, q), ownHead)), [copies]);
  return matmul(reshape(slopes!, [h, 't', d]), noise, false, true);
}

/** 1 − cos of a vector with one that has `p` along it, and the square of the rest; digits are kept where the two are nearly equal. */
function turned(p: Node, rest: Node): Node {
  const length = sqrt(add(square(p), rest));
  const near = div(rest, add(mul(length, add(length, abs(p))), 1e-30));
  const back = cast(less(p, 0), 'float32');
  return add(near, mul(back, sub(2, mul(near, 2))));
}

/** Floats of the largest intermediate values of one run: more tokens than fit are computed in several runs. */
const RUN_FLOATS = 48e6;

/** Where noise is added to one token after the other, of one sequence. */
export interface Reading {
  /** the attention module's input [l, d] */
  readonly state: Tensor<'float32'>;
  /** [1, l] or [axes, 1, l] */
  readonly positions: Tensor;
  readonly tokens: readonly number[];
  /** the query position N */
  readonly end: number;
  /** additive bias [1, l] of its row */
  readonly visible: Tensor<'float32'>;
}

/** C of draws that all tokens share: noise [s, d] -> [t, s]. */
export async function sharedInfluence(
  vlm: Vlm,
  layer: number,
  { state, positions, tokens, end, visible }: Reading,
  rewrite?: Rewrite,
): Promise<(noise: Tensor<'float32'>) => Promise<Tensor<'float32'>>> {
  const replace = rewrite !== undefined && rewrite.replace.size > 0 ? rewrite : undefined;
  const [l, d] = state.shape as [number, number];
  const reading = await vlm.program(readingGraph, layer, replace);
  const { scores, others, apart, ...whole } = await reading.run({
    ...rewrite?.feeds,
    ...{ state: f32(state.data, [1, l, d]), positions, visible },
    ...{ tokens: i64(tokens, [tokens.length]), ends: i64([end], [1]) },
  });
  const program = await vlm.program(drawsGraph, layer, replace);
  const { heads: h, headWidth: k, normsKeys } = vlm.decoder;
  const perDraw = 3 * h * h + (normsKeys === true ? 2 * (d + h * k) : 0);
  const places = positions.data as BigInt64Array;
  const axes = positions.shape.slice(0, -2);
  return async (noise) => {
    const s = noise.shape[0]!;
    const out = new Float32Array(tokens.length * s);
    const perRun = Math.max(1, Math.floor(RUN_FLOATS / (s * perDraw + 2 * h * (d + h * k))));
    for (let at = 0; at < tokens.length; at += perRun) {
      const chosen = tokens.slice(at, at + perRun);
      const count = chosen.length;
      const part = ({ data, shape: [, ...rest] }: Tensor): Tensor<'float32'> => {
        const width = data.length / tokens.length;
        return f32((data as Float32Array).subarray(at * width, (at + count) * width), [count, ...rest]);
      };
      const rows = new Float32Array(count * d);
      chosen.forEach((token, i) => {
        rows.set(state.data.subarray(token * d, (token + 1) * d), i * d);
      });
      const placed = Array.from({ length: places.length / l }, (_, axis) => chosen.map((token) => places[axis * l + token]!));
      const { contribution } = await program.run({
        ...rewrite?.feeds,
        ...whole,
        ...{ noise, rows: f32(rows, [count, d]), scores: part(scores!), others: part(others!), apart: part(apart!) },
        places: i64(BigInt64Array.from(placed.flat()), [...axes, count, 1]),
      });
      out.set(contribution!.data as Float32Array, at * s);
    }
    return f32(out, [tokens.length, s]);
  };
}
