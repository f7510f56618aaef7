/**
 * What the heads of one layer's attention do at one query position N: the probabilities p_h over all positions, and each head's own part of the
 * module's output, a_h = W_O^h Σ_n p_h[n] v_h[n], so that Σ_h a_h and the output's bias are the module's output.
 */

import { f32, i64, type Tensor } from '../graph/dtype.ts';
import { add, gather, input, matmul, mul, type Node, reshape, softmax, sub, transpose } from '../graph/index.ts';
import type { Reading } from '../models/answer.ts';
import { placeInputs } from '../models/forward.ts';
import type { Rewrite } from '../models/rewrite.ts';
import { biasOf } from '../models/sight.ts';
import type { Vlm } from '../models/vlm.ts';
import { Weights } from '../nn/weights.ts';

/** Heads of one layer at one query position. */
export interface HeadParts {
  readonly layer: number;
  /** [heads, length] */
  readonly probabilities: Tensor<'float32'>;
  /** [heads, hidden]; their sum is the output of the module, as far as no bias is in it */
  readonly parts: Tensor<'float32'>;
}

function headPartsGraph({ decoder }: Vlm, layer: number, rewrite: Rewrite | undefined): Record<string, Node> {
  const { heads: h, headWidth: k, hidden: d } = decoder;
  const w = new Weights(rewrite?.replace);
  const x = input('state', [1, 'l', d]);
  const at = input('at', [1], 'int64');
  const { positions, bias } = placeInputs(decoder, undefined, 1);
  const row = (y: Node): Node => transpose(gather(transpose(y, [2, 0, 1, 3]), at), [1, 2, 0, 3]); // [1, ., 1, .]
  const { query, key, value } = decoder.project(layer, x, positions, w);
  const scores = add(matmul(mul(row(query), decoder.scale), key, false, true), row(biasOf(decoder, layer, bias)));
  const probabilities = softmax(scores); // [1, h, 1, l]
  const mixed = reshape(matmul(probabilities, value), [h, k]);
  // One row for each head, with the others left out.
  const alone = reshape(mul(reshape(mixed, [1, h, k]), input('one', [h, h, 1])), [h, h * k]);
  const nothing = mul(alone, 0);
  return { probabilities, parts: sub(decoder.output(layer, alone, w), decoder.output(layer, nothing, w)) };
}

/** Heads of several layers; the layers before the last of them run once. */
export async function headParts(
  vlm: Vlm,
  { batch, rewrite }: Reading,
  layers: readonly number[],
  position: number,
): Promise<HeadParts[]> {
  const { heads: h, hidden: d } = vlm.decoder;
  const names = layers.flatMap((layer) => [`layers.${layer}.attn.in`, `layers.${layer}.attn.out`]);
  const states = await vlm.run({ from: 0, to: Math.max(...layers) + 1, read: names }, batch, {}, rewrite);
  const replace = rewrite !== undefined && rewrite.replace.size > 0 ? rewrite : undefined;
  const one = f32(
    Float32Array.from({ length: h * h }, (_, i) => Number(Math.floor(i / h) === i % h)),
    [h, h, 1],
  );
  const out: HeadParts[] = [];
  for (const layer of layers) {
    const program = await vlm.program(headPartsGraph, layer, replace);
    const state = states[`layers.${layer}.attn.in`]!;
    const found = await program.run({ ...batch.feeds, ...rewrite?.feeds, state, one, at: i64([position], [1]) });
    const parts = (found.parts!.data as Float32Array).slice();
    if (vlm.decoder.afterAttention !== undefined) {
      const added = (states[`layers.${layer}.attn.out`]!.data as Float32Array).subarray(position * d, (position + 1) * d);
      shareOut(parts, added, h, d);
    }
    const probabilities = found.probabilities!.data as Float32Array;
    out.push({ layer, probabilities: f32(probabilities, [h, probabilities.length / h]), parts: f32(parts, [h, d]) });
  }
  return out;
}

/** Where a norm stands behind the module, its factor of each element at this position is that of every head's part. */
function shareOut(parts: Float32Array, added: Float32Array, heads: number, width: number): void {
  for (let j = 0; j < width; j++) {
    let sum = 0;
    for (let i = 0; i < heads; i++) sum += parts[i * width + j]!;
    const factor = Math.abs(sum) < 1e-12 ? 0 : added[j]! / sum;
    for (let i = 0; i < heads; i++) parts[i * width + j]! *= factor;
  }
}
