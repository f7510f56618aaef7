/**
 * Module output attribution (VisEdit Eq. 2-5): how much each layer's attention and MLP output at the last position speaks for a key token.
 *   Cp = softmax(W_V norm(r))[o],  Cv = logit(r)[o] / M,  M = max over layers and both kinds of |logit[o]|,
 *   C = sign(Cv) sqrt(|Cv| Cp)
 * The same map of every layer's residual stream is the logit lens.
 */

import { i64, type Tensor } from '../graph/dtype.ts';
import { concat, gather, input, logSoftmax, mulDim, type Node, reshape } from '../graph/index.ts';
import { type Batch, rowOf } from '../models/batch.ts';
import { argMaxOf } from '../models/generate.ts';
import { type RankedToken, rankedTokens } from '../models/ranked-tokens.ts';
import type { Rewrite } from '../models/rewrite.ts';
import type { Vlm } from '../models/vlm.ts';
import { Weights } from '../nn/weights.ts';

/** What the modules of one input say of its key token: one number per layer, [layers] each (Eq. 2-5). */
export interface ModuleContribution {
  tokenId: number;
  /** probability of the key token per layer */
  prob: { attn: number[]; mlp: number[]; layer: number[] };
  logit: { attn: number[]; mlp: number[]; layer: number[] };
  contribution: { attn: number[]; mlp: number[] };
  /** the most probable tokens after each layer (logit lens), and the place of the key token among all: 0 is the most probable */
  lens: { tokens: RankedToken[]; rank: number }[];
}

function lensGraph({ decoder }: Vlm, names: readonly string[]): Record<string, Node> {
  const rows = input('rows', ['r'], 'int64');
  const d = decoder.hidden;
  const parts = names.map((name) => gather(reshape(input(name, ['b', 'l', d]), [mulDim('b', 'l'), d]), rows));
  const each = parts.map((p) => reshape(p, [1, 'r', d]));
  const logits = decoder.head(reshape(concat(each, 0), [mulDim(names.length, 'r'), d]), new Weights());
  return { logits, logProbs: logSoftmax(logits) };
}

/** Outputs of every module at the last position of every sequence, through the final norm and the vocabulary matrix. */
async function lens(
  vlm: Vlm,
  batch: Batch,
  rewrite: Rewrite | undefined,
): Promise<{ logits: Tensor<'float32'>; logProbs: Tensor<'float32'> }> {
  const { decoder } = vlm;
  const names = ['attn.out', 'mlp.out', 'out'].flatMap((kind) =>
    Array.from({ length: decoder.layers }, (_, i) => `layers.${i}.${kind}`),
  );
  const out = await vlm.run({ from: 0, to: decoder.layers, read: names }, batch, {}, rewrite);
  const program = await vlm.program(lensGraph, names);
  const rows = batch.sequences.map((s, n) => rowOf(batch, n, s.promptEnd));
  const result = await program.run({ ...out, rows: i64(rows, [rows.length]) });
  return { logits: result.logits as Tensor<'float32'>, logProbs: result.logProbs as Tensor<'float32'> };
}

/**
 * Contributions of every module at each sequence's last prompt position (Eq. 2-5).
 * @param keys key token per sequence; undefined: the predicted token
 * @param top tokens of the lens at each layer
 */
export async function moduleContribution(
  vlm: Vlm,
  batch: Batch,
  keys: readonly (number | undefined)[] = [],
  rewrite?: Rewrite,
  top = 0,
): Promise<ModuleContribution[]> {
  const { layers, vocabulary } = vlm.decoder;
  const { logits, logProbs } = await lens(vlm, batch, rewrite);
  const b = batch.sequences.length;
  return batch.sequences.map((_, n) => {
    const row = (kind: number, layer: number): number => ((kind * layers + layer) * b + n) * vocabulary;
    const last = row(2, layers - 1);
    const tokenId = keys[n] ?? argMaxOf(logits.data.subarray(last, last + vocabulary));
    const read = (data: Float32Array, kind: number): number[] =>
      Array.from({ length: layers }, (_, i) => data[row(kind, i) + tokenId]!);
    const logit = { attn: read(logits.data, 0), mlp: read(logits.data, 1), layer: read(logits.data, 2) };
    const p = (kind: number): number[] => read(logProbs.data, kind).map(Math.exp);
    const prob = { attn: p(0), mlp: p(1), layer: p(2) };
    const largest = Math.max(...logit.attn.map(Math.abs), ...logit.mlp.map(Math.abs));
    const combine = (v: number[], q: number[]): number[] =>
      v.map((x, i) => Math.sign(x) * (largest === 0 ? 0 : Math.sqrt((Math.abs(x) / largest) * q[i]!)));
    const scoresAfter = (layer: number): Float32Array => logits.data.subarray(row(2, layer), row(2, layer) + vocabulary);
    return {
      tokenId,
      prob,
      logit,
      contribution: { attn: combine(logit.attn, prob.attn), mlp: combine(logit.mlp, prob.mlp) },
      lens: Array.from({ length: layers }, (_, i) => {
        const scores = scoresAfter(i);
        return { tokens: rankedTokens(scores, top), rank: scores.reduce((above, x) => above + Number(x > scores[tokenId]!), 0) };
      }),
    };
  });
}
