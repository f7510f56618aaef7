/**
 * The edit's loss, −log p(target | image, prompt) averaged over the target's tokens, as a graph over the states before the first layer that an
 * editor changes. What lies below is frozen: it runs once per input.
 */

import {
  crossEntropy,
  f32,
  gather,
  i64,
  input,
  mul,
  mulDim,
  type Node,
  pad,
  reshape,
  sum,
  type Tensor,
} from '../../graph/index.ts';
import type { Query } from '../../models/answer.ts';
import { Sites } from '../../models/sites.ts';
import { splitLayer, splitStates } from '../../models/split.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { Weights } from '../../nn/weights.ts';
import { padHidden, type Sample } from '../context/states.ts';

/** States before layer `from` of one input with its target. */
export async function stateBefore(vlm: Vlm, { prompt, image, target }: Query, from: number): Promise<Sample> {
  const sequence = vlm.layout(prompt, image !== undefined, target);
  const batch = await vlm.batch([sequence], [image]);
  const site = from === 0 ? 'decoder.in' : `layers.${from - 1}.out`;
  const out = await vlm.run({ from: 0, to: from, outputs: [site] }, batch);
  return { sequence, hidden: out[site]!.data as Float32Array };
}

/**
 * Logits at `rows` [r, n] of inputs with pictures: states `hidden` [b, l, d] through layers `from` and up. Inputs of the program: hidden,
 * positions [b, l], bias [b, 1, l, l], rows [r].
 * @param sites of the words, which come after the picture
 */
export function tailLogits(vlm: Vlm, from: number, weights: Weights, sites = new Sites()): Node {
  const { decoder, visualTokens } = vlm.architecture;
  const hidden = input('hidden', ['b', 'l', decoder.hidden]);
  const length = vlm.visualStart + visualTokens;
  const positions = input('positions', ['b', 'l'], 'int64');
  const bias = input('bias', ['b', 1, 'l', 'l']);
  let x = splitStates(hidden, length);
  for (let i = from; i < decoder.layers; i++) x = splitLayer(decoder, i, x, { weights, sites, positions, bias, length });
  const flat = reshape(pad(x.text, 1, length, 0), [mulDim('b', 'l'), decoder.hidden]);
  return decoder.head(gather(flat, input('rows', ['r'], 'int64')), weights);
}

/** Sum over inputs of each one's mean cross-entropy; inputs of the program: labels [r], rowWeights [r]. */
export function targetLoss(logits: Node): Node {
  return sum(mul(crossEntropy(logits, input('labels', ['r'], 'int64')), input('rowWeights', ['r'])));
}

/** Feeds of rows, labels and weights for inputs padded to `length`. */
export function targetFeeds(samples: readonly Pick<Sample, 'sequence'>[], length: number): Record<string, Tensor> {
  const of = samples.flatMap(({ sequence: { targetIds, promptEnd } }, n) =>
    targetIds.map((id, i) => ({ id, row: n * length + promptEnd + i, weight: 1 / targetIds.length })),
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
  const { hidden, positions, bias, length } = padHidden(samples, vlm.decoder.hidden);
  return { hidden, positions, bias, ...targetFeeds(samples, length) };
}
