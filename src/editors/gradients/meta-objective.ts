/**
 * What hyper-network editors (MEND, KE) are trained on: the losses of models that were edited, each by its own edit, as a graph over the frozen
 * states before the first changed layer. Inputs with a picture come in groups of e edits: reliability, text generality, modal generality, image
 * locality; the first two are about one picture, which runs once for both. Text-only inputs (text locality) run apart.
 */

import {
  add,
  concat,
  crossEntropy,
  type Dim,
  gather,
  input,
  klDivergence,
  logSoftmax,
  matmul,
  mean,
  mul,
  mulDim,
  type Node,
  reshape,
  slice,
  sum,
} from '../../graph/index.ts';
import { deepInputs } from '../../models/deep.ts';
import { placeInputs, splitStates, textInPlace, walk, walkSplit } from '../../models/forward.ts';
import { Sites } from '../../models/sites.ts';
import type { Vlm } from '../../models/vlm.ts';
import { type LowRank, Weights } from '../../nn/weights.ts';

/** Groups of inputs with a picture, in their order. */
export const pictureGroups = ['reliability', 'textGenerality', 'modalGenerality', 'modalLocality'] as const;

/** −log p(target) of each group, averaged over the target tokens of the batch. */
export interface TargetTerms {
  reliability: Node;
  textGenerality: Node;
  modalGenerality: Node;
}

export interface MetaTerms extends TargetTerms {
  /** KL(before ‖ after), averaged over the answer tokens of the batch */
  modalLocality: Node;
  textLocality: Node;
  /** −log p with targets that leave a share to all other tokens */
  smoothed(smoothing: number): TargetTerms;
}

/**
 * Of rows in groups of e edits, the first two of which are about one picture: one row of each picture.
 * @param axis of the rows
 */
export const picturesOnce = (x: Node, axis = 0): Node =>
  concat([slice(x, axis, 0, 'e'), slice(x, axis, mulDim(2, 'e'), x.dim(axis))], axis);

/** The rows of all groups out of one row of each picture. */
export const asRows = (x: Node): Node => concat([slice(x, 0, 0, 'e'), x], 0);

/**
 * Inputs: image.{hidden [4e, l, d], positions, bias, rows [r], labels [r], parts [3, r], locRows [k], before [k, n], locWeights [k]} and
 * text.{hidden [e, m, d], positions, bias, rows [j], before [j, n], locWeights [j]}.
 * @param changes of weights by name: factors of each edit, left [e, out, t] and right [e, t, in]
 */
export function metaTerms(vlm: Vlm, from: number, changes: ReadonlyMap<string, LowRank>): MetaTerms {
  const { decoder, usualPrefix: prefix } = vlm;
  const d = decoder.hidden;
  const b = mulDim(pictureGroups.length, 'e');
  // The factors are repeated for the groups of rows that read them: they are small, the matrices are not.
  const under = (groups: number): Weights => {
    const spread = (x: Node): Node =>
      concat(
        Array.from({ length: groups }, () => x),
        0,
      );
    return new Weights(
      new Map(),
      new Map([...changes].map(([name, { left, right }]) => [name, { left: spread(left), right: spread(right) }])),
    );
  };
  const frozen = new Weights();

  const { length: l, positions, bias } = placeInputs(decoder, prefix, b, 'image.');
  const states = splitStates(input('image.hidden', [b, l, d]), prefix);
  const x = walkSplit(
    decoder,
    from,
    decoder.layers,
    { prefix: picturesOnce(states.prefix), text: states.text },
    {
      weights: under(4),
      prefixWeights: under(3),
      sites: new Sites(),
      ...{ positions, bias, length: prefix, blocks: vlm.runsOf(prefix), deep: deepInputs(decoder, b, l, 'image.') },
      spread: asRows,
      chosen: picturesOnce,
    },
  );
  const logits = (states: Node, rows: Node): Node => {
    const [n, l] = states.shape as [Dim, Dim];
    return decoder.head(gather(reshape(states, [mulDim(n, l), d]), rows), frozen);
  };
  const words = textInPlace(x, prefix);
  const answers = logits(words, input('image.rows', ['r'], 'int64'));
  const labels = input('image.labels', ['r'], 'int64');
  const parts = input('image.parts', [3, 'r']);
  const perGroup = (loss: Node): TargetTerms => {
    const terms = reshape(matmul(parts, reshape(loss, ['r', 1])), [3]);
    const of = (i: number): Node => reshape(slice(terms, 0, i, i + 1), []);
    return { reliability: of(0), textGenerality: of(1), modalGenerality: of(2) };
  };
  const ce = crossEntropy(answers, labels);
  const kl = (kind: string, k: string, after: Node): Node => {
    const before = input(`${kind}.before`, [k, decoder.vocabulary]);
    return sum(mul(klDivergence(before, after), input(`${kind}.locWeights`, [k])));
  };
  const modalLocality = kl('image', 'k', logits(words, input('image.locRows', ['k'], 'int64')));

  const text = placeInputs(decoder, undefined, 'e', 'text.', 'm');
  const y = walk(decoder, from, decoder.layers, input('text.hidden', ['e', 'm', d]), {
    weights: under(1),
    sites: new Sites(),
    positions: text.positions,
    bias: text.bias,
  });
  const textLocality = kl('text', 'j', logits(y, input('text.rows', ['j'], 'int64')));
  const uniform = mul(mean(logSoftmax(answers), -1), -1);
  return {
    ...perGroup(ce),
    modalLocality,
    textLocality,
    smoothed: (smoothing) => perGroup(add(mul(ce, 1 - smoothing), mul(uniform, smoothing))),
  };
}
