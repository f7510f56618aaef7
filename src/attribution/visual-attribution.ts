/**
 * Visual representation attribution (VisEdit Eq. 6-8): C(n) = ½ (1 − cos(ã[N], a[N])), where ã is the attention module's output at a query
 * position N after noise ε on visual token n.
 *
 * Closed form: only the key and value of token n change and the query at N does not, so per head, with s' the row of scores in which s'_n
 * replaces s_n and p' = softmax(s'):  ã_head = p' v + p'_n (v'_n − v_n).  `Nv × draws` rows through K, V and the output projection replace
 * as many runs of the module, and nothing cancels when one token holds nearly all the attention.
 */

import { f32, i64, type Tensor } from '../graph/dtype.ts';
import {
  add, cosineDistance, type Dim, expand, gather, input, matmul, mul, mulDim, type Node, reshape, softmax, sub, sum, transpose, where, equal,
} from '../graph/index.ts';
import { Weights } from '../nn/weights.ts';
import type { Decoder } from '../models/architecture.ts';
import type { Batch, Rewrite, Vlm } from '../models/vlm.ts';
import type { Random } from '../random.ts';

/**
 * 1 − cos for chosen tokens of one layer, [b, t, s].
 * @param x input of the attention module [b, l, d]
 * @param tokens int64 [t], positions of the perturbed tokens (the same for the batch)
 * @param noise added to x at the token [b, t, s, d]
 * @param ends int64 [b], flat position b * l + N of the query
 * @param visible additive bias [b, l] of the row N: 0 at positions up to N
 */
export function influence(decoder: Decoder, layer: number, w: Weights, x: Node, positions: Node, tokens: Node, noise: Node, ends: Node, visible: Node): Node {
  const { heads: h, headWidth: k, hidden: d } = decoder;
  const [b, l] = x.shape as [Dim, Dim];
  const t = tokens.dim(0);
  const s = noise.dim(2);
  const { query, key, value } = decoder.project(layer, x, positions, w);
  // the query at N: [b, h, 1, k]
  const rows = reshape(transpose(query, [0, 2, 1, 3]), [mulDim(b, l), mulDim(h, k)]);
  const q = mul(reshape(gather(rows, ends), [b, h, 1, k]), decoder.scale);
  const scores = add(matmul(q, key, false, true), reshape(visible, [b, 1, 1, l])); // [b, h, 1, l]
  // perturbed tokens as a sequence of their own: [b, t s, d], each at its token's position
  const pick = (y: Node): Node => transpose(gather(transpose(y, [1, 0, 2]), tokens), [1, 0, 2]);
  const moved = add(reshape(pick(x), [b, t, 1, d]), noise);
  const flat = reshape(moved, [b, mulDim(t, s), d]);
  const at = transpose(gather(transpose(positions, [1, 0]), tokens), [1, 0]); // [b, t]
  const where2 = reshape(expand(reshape(at, [b, t, 1]), [b, t, s]), [b, mulDim(t, s)]);
  const { key: k2, value: v2 } = decoder.project(layer, flat, where2, w); // [b, h, t s, k]
  const s2 = reshape(matmul(q, k2, false, true), [b, h, t, s, 1]);
  const here = equal(reshape(tokens, [t, 1, 1]), reshape(input('columns', [l], 'int64'), [1, 1, l])); // [t, 1, l]
  const replaced = where(here, s2, reshape(scores, [b, h, 1, 1, l])); // [b, h, t, s, l]
  const p = softmax(reshape(replaced, [b, h, mulDim(t, s), l]));
  const pn = sum(mul(reshape(p, [b, h, t, s, l]), castTo(here, l, t)), -1, true); // [b, h, t, s, 1]
  const v = transpose(gather(transpose(value, [2, 0, 1, 3]), tokens), [1, 2, 0, 3]); // [b, h, t, k]
  const change = mul(pn, sub(reshape(v2, [b, h, t, s, k]), reshape(v, [b, h, t, 1, k])));
  const mixed = add(reshape(matmul(p, value), [b, h, t, s, k]), change);
  const merge = (y: Node, shape: Dim[]): Node => decoder.output(layer, reshape(y, shape), w);
  const dirty = merge(transpose(mixed, [0, 2, 3, 1, 4]), [b, mulDim(t, s), mulDim(h, k)]);
  const clean = merge(transpose(matmul(softmax(scores), value), [0, 2, 1, 3]), [b, 1, mulDim(h, k)]);
  return reshape(cosineDistance(dirty, expand(clean, dirty.shape)), [b, t, s]);
}

const castTo = (here: Node, l: Dim, t: Dim): Node => where(reshape(here, [t, 1, l]), 1, 0);

export interface VisualAttributionOptions {
  layer: number;
  draws?: number;
  /**
   * standard deviation of the noise. `paper`: 3 times that of all elements of the visual hidden states (Eq. 6);
   * a number: that value (the authors' code uses 0.7)
   */
  sigma?: number | 'paper';
  random: Random;
  /** sequence positions that look: default each sequence's last prompt position */
  ends?: readonly number[];
  rewrite?: Rewrite;
}

/** Standard deviation of all elements of the rows [start, end) of [l, d]. */
export function deviation(x: Float32Array): number {
  let total = 0;
  let squares = 0;
  for (const v of x) {
    total += v;
    squares += v * v;
  }
  const mean = total / x.length;
  return Math.sqrt(Math.max(0, squares / x.length - mean * mean));
}

function influenceProgram(vlm: Vlm, layer: number) {
  return vlm.program(`influence|${layer}`, () => {
    const d = vlm.decoder.hidden;
    const x = input('x', ['b', 'l', d]);
    const distance = influence(
      vlm.decoder, layer, new Weights(), x, input('positions', ['b', 'l'], 'int64'), input('tokens', ['t'], 'int64'),
      input('noise', ['b', 't', 's', d]), input('ends', ['b'], 'int64'), input('visible', ['b', 'l']),
    );
    return { contribution: mul(distance, 0.5) };
  });
}

/** Additive bias [b, l] of the query rows: 0 at positions up to each end. */
export function visibleUpTo(ends: readonly number[], length: number): Tensor<'float32'> {
  const data = new Float32Array(ends.length * length);
  ends.forEach((end, n) => {
    data.fill(-1e9, n * length + end + 1, (n + 1) * length);
  });
  return f32(data, [ends.length, length]);
}

/**
 * C of one layer for the rows of noise given, [t, s] of one sequence; the raw form that conformance compares.
 * @param attentionInput [l, d] @param noise [t, s, d] or [s, d] shared by all tokens
 */
export async function contributionOf(
  vlm: Vlm,
  layer: number,
  attentionInput: Tensor<'float32'>,
  tokens: readonly number[],
  noise: Tensor<'float32'>,
  end: number,
): Promise<Tensor<'float32'>> {
  const [l, d] = attentionInput.shape as [number, number];
  const shared = noise.shape.length === 2;
  const s = noise.shape[shared ? 0 : 1]!;
  const program = await influenceProgram(vlm, layer);
  const out = new Float32Array(tokens.length * s);
  const rowsPerRun = Math.max(1, Math.floor(4e6 / (s * l * vlm.decoder.heads)));
  const columns = i64(Array.from({ length: l }, (_, i) => i), [l]);
  for (let at = 0; at < tokens.length; at += rowsPerRun) {
    const part = tokens.slice(at, at + rowsPerRun);
    const data = new Float32Array(part.length * s * d);
    part.forEach((_, i) => {
      data.set(shared ? noise.data : noise.data.subarray((at + i) * s * d, (at + i + 1) * s * d), i * s * d);
    });
    const result = await program.run({
      x: f32(attentionInput.data, [1, l, d]),
      positions: i64(Array.from({ length: l }, (_, i) => i), [1, l]),
      tokens: i64(part, [part.length]),
      noise: f32(data, [1, part.length, s, d]),
      ends: i64([end], [1]),
      visible: visibleUpTo([end], l),
      columns,
    });
    out.set(result.contribution!.data as Float32Array, at * s);
  }
  return f32(out, [tokens.length, s]);
}

/** Mean contribution of every visual token of one sequence at one layer, in [0, 1]: [v] values. */
export async function visualAttribution(vlm: Vlm, batch: Batch, options: VisualAttributionOptions): Promise<{ values: number[]; sigma: number }> {
  const { layer, draws = 10, sigma = 'paper', random, rewrite } = options;
  const sequence = batch.sequences[0]!;
  if (batch.sequences.length !== 1) throw new Error('visual attribution takes one input at a time');
  if (sequence.visualSpan === undefined) throw new Error('visual attribution needs a picture');
  if (!Number.isInteger(layer) || layer < 0 || layer >= vlm.decoder.layers) {
    throw new Error(`layer ${layer} is out of range: this model has layers 0 to ${vlm.decoder.layers - 1}`);
  }
  const end = options.ends?.[0] ?? sequence.promptEnd;
  const site = `layers.${layer}.attn.in`;
  const out = await vlm.run({ from: 0, to: layer + 1, outputs: [site] }, batch, {}, rewrite);
  const l = batch.length;
  const d = vlm.decoder.hidden;
  const x = f32(out[site]!.data as Float32Array, [l, d]);
  const [start, stop] = sequence.visualSpan;
  const deviationOf = deviation(x.data.subarray(start * d, stop * d));
  const scale = sigma === 'paper' ? 3 * deviationOf : sigma;
  const tokens = Array.from({ length: stop - start }, (_, i) => start + i);
  const c = await contributionOf(vlm, layer, x, tokens, f32(random.normals(tokens.length * draws * d, scale), [tokens.length, draws, d]), end);
  const values = tokens.map((_, i) => {
    let total = 0;
    for (let s = 0; s < draws; s++) total += c.data[i * draws + s]!;
    return total / draws;
  });
  return { values, sigma: scale };
}
