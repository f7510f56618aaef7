/**
 * The edit's loss, −log p(target | image, prompt) averaged over the target's tokens, as a graph over the states before the first layer that an
 * editor changes. What lies below is frozen: it runs once per input.
 */

import {
  crossEntropy,
  type Dim,
  f32,
  gather,
  i64,
  input,
  mul,
  mulDim,
  type Node,
  reshape,
  sum,
  type Tensor,
} from '../../graph/index.ts';
import type { Query } from '../../models/answer.ts';
import { type BatchShape, rowOf } from '../../models/batch.ts';
import { deepInputs, deepRows } from '../../models/deep.ts';
import { placeInputs, splitStates, textInPlace, walkSplit } from '../../models/forward.ts';
import { Sites } from '../../models/sites.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { Weights } from '../../nn/weights.ts';
import { padStates, type Sample, stateSite } from '../context/states.ts';

/** States before layer `from` of one input with its target. */
export async function stateBefore(vlm: Vlm, { target, ...asked }: Query, from: number): Promise<Sample> {
  const sequence = vlm.layout(asked, target);
  const site = stateSite(from);
  const batch = await vlm.batch([sequence]);
  const out = await vlm.run({ from: 0, to: from, read: [site] }, batch);
  return { sequence, hidden: out[site]!.data as Float32Array, deep: deepRows(vlm.decoder, batch, 0, from) };
}

/**
 * Logits at `rows` [r, n] of inputs with pictures: states `hidden` [b, l, d] through layers `from` and up. Inputs of the program: hidden,
 * positions [b, l], bias [b, 1, l, l], rows [r], and those of `deepInputs`.
 * @param prefix `vlm.prefixDim` of the inputs @param sites of the words, which come after the pictures
 */
export function tailLogits(vlm: Vlm, from: number, prefix: Dim, weights: Weights, sites = new Sites()): Node {
  const { decoder } = vlm;
  const { length: l, positions, bias } = placeInputs(decoder, prefix);
  const hidden = splitStates(input('hidden', ['b', l, decoder.hidden]), prefix);
  const x = walkSplit(decoder, from, decoder.layers, hidden, {
    ...{ weights, sites, positions, bias, length: prefix, deep: deepInputs(decoder, 'b', l) },
    blocks: vlm.runsOf(prefix),
  });
  const flat = reshape(textInPlace(x, prefix), [mulDim('b', l), decoder.hidden]);
  return decoder.head(gather(flat, input('rows', ['r'], 'int64')), weights);
}

/** Sum over inputs of each one's mean cross-entropy; inputs of the program: labels [r], rowWeights [r]. */
export function targetLoss(logits: Node): Node {
  return sum(mul(crossEntropy(logits, input('labels', ['r'], 'int64')), input('rowWeights', ['r'])));
}

/** Feeds of rows, labels and weights for inputs side by side. */
export function targetFeeds(batch: BatchShape): Record<string, Tensor> {
  const of = batch.sequences.flatMap(({ targetIds, promptEnd }, n) =>
    targetIds.map((id, i) => ({ id, row: rowOf(batch, n, promptEnd + i), weight: 1 / targetIds.length })),
  );
  return {
    rows: i64(
      of.map((x) => x.row),
      [of.length],
    ),
    labels: i64(
      of.map((x) => x.id),
      [of.length],
    ),
    rowWeights: f32(
      of.map((x) => x.weight),
      [of.length],
    ),
  };
}

/** Feeds of `tailLogits` and `targetLoss`. */
export function tailFeeds(vlm: Vlm, samples: readonly Sample[]): Record<string, Tensor> {
  const { batch, feeds } = padStates(vlm, samples);
  return { ...feeds, ...targetFeeds(batch) };
}
