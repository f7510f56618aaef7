/**
 * VEAD's training objective (VisEdit Eq. 17-24) as one graph over the hidden states at the insert layer, which no training changes:
 *   ℓ = ℓ_rel + ℓ_gen + ℓ_loc + λ (ℓ_im↑ + ℓ_im↓ + ℓ_ima)
 * Rows of the batch come in groups of e edits: reliability, text generality, modal generality, image locality. The first two are about the same
 * picture.
 */

import {
  add,
  concat,
  crossEntropy,
  div,
  gather,
  input,
  klDivergence,
  log,
  matmul,
  mean,
  mul,
  mulDim,
  type Node,
  reshape,
  sigmoid,
  slice,
  softmax,
  sub,
  sum,
  takeLast,
} from '../../graph/index.ts';
import { deepInputs } from '../../models/deep.ts';
import { placeInputs, splitStates, textInPlace, walkSplit } from '../../models/forward.ts';
import { Sites } from '../../models/sites.ts';
import { readVisual, spanInputs, writeVisual } from '../../models/spans.ts';
import type { Vlm } from '../../models/vlm.ts';
import { Weights } from '../../nn/weights.ts';
import { asRows, picturesOnce } from '../gradients/meta-objective.ts';
import { type AdapterParts, type AdapterShape, allGates, visualEditAdapter } from './adapter.ts';

/** Which terms of the objective count, and how much. */
export interface LossWeights {
  rel: number;
  gen: number;
  loc: number;
  /** λ of each influence-mapper loss; 0 removes it (Table 3) */
  up: number;
  down: number;
  attribution: number;
  /** beyond the paper: ℓ_im↓ over all pictures of the batch's other edits, of which the mapper's dot products are cheap; 0 removes it */
  others: number;
}

export const paperLosses: LossWeights = { rel: 1, gen: 1, loc: 1, up: 0.1, down: 0.1, attribution: 0.1, others: 0 };

/** Groups of rows, in their order. */
export const groups = ['reliability', 'textGenerality', 'modalGenerality', 'modalLocality'] as const;

export interface Objective {
  loss: Node;
  metrics: Record<string, Node>;
  weights: Weights;
}

/**
 * Inputs: hidden [4e, l, d], positions [4e, l], bias [4e, 1, l, l]; those of `deepInputs`; those of `spanInputs` over the pictures' part of 3e rows; signal [e, n, d], signalBias [e, n], signalEnds [e];
 * rows/labels [r] and parts [3, r] (weights of each row in ℓ_rel, ℓ_gen text, ℓ_gen modal); locRows [k], before [k, vocabulary], locWeights [k];
 * share [], of the edits of the whole batch that these are (1 where a batch comes whole);
 * ends [edits, d], the last prompt tokens of the whole batch's edits, and others [e, edits], how much each picture of an edit counts under each of them;
 * choice [e] (flat group row whose gates feed ℓ_im↑ and ℓ_ima), sampled [e, t] visual positions, target [e, t] = c normalised (Eq. 23).
 */
export function objective(vlm: Vlm, layer: number, shape: AdapterShape, losses: LossWeights, parts: AdapterParts): Objective {
  const { decoder, usualPrefix: prefix } = vlm;
  const d = decoder.hidden;
  const adapter = new Weights();
  const frozen = new Weights();
  const b = mulDim(groups.length, 'e');
  const { length: l, positions, bias } = placeInputs(decoder, prefix, b);
  const hidden = splitStates(input('hidden', [b, l, d]), prefix);
  const signal = {
    signal: input('signal', ['e', 'n', d]),
    bias: input('signalBias', ['e', 'n']),
    ends: input('signalEnds', ['e'], 'int64'),
  };

  // Reliability and text generality ask about one picture, which comes before the words: its part is computed once for both.
  const pictures = picturesOnce(hidden.prefix);
  const spans = spanInputs(mulDim(groups.length - 1, 'e'), prefix);
  const spread = (x: Node): Node => concat([x, x, x], 0);
  const {
    output,
    gate: perPicture,
    mapped,
  } = visualEditAdapter(adapter, shape, readVisual(pictures, spans), signal, parts, spread);
  const gate = asRows(perPicture);
  const x = walkSplit(
    decoder,
    layer + 1,
    decoder.layers,
    { prefix: writeVisual(pictures, output, spans), text: hidden.text },
    {
      ...{ weights: frozen, sites: new Sites(), positions, bias, length: prefix, deep: deepInputs(decoder, b, l) },
      ...{ blocks: vlm.runsOf(prefix), spread: asRows, chosen: picturesOnce },
    },
  );
  // Answers are read after the picture.
  const flat = reshape(textInPlace(x, prefix), [mulDim(b, l), d]);

  // ℓ_rel, ℓ_gen (18, 19): cross-entropy of the target, averaged over the target tokens of a sample's batch
  const ce = crossEntropy(decoder.head(gather(flat, input('rows', ['r'], 'int64')), frozen), input('labels', ['r'], 'int64'));
  const terms = reshape(matmul(input('parts', [3, 'r']), reshape(ce, ['r', 1])), [3]);
  const [rel, textGen, modalGen] = [0, 1, 2].map((i) => reshape(slice(terms, 0, i, i + 1), [])) as [Node, Node, Node];
  // ℓ_loc (20): KL(before ‖ after); the text term is zero by construction
  const after = decoder.head(gather(flat, input('locRows', ['k'], 'int64')), frozen);
  const loc = sum(mul(klDivergence(input('before', ['k', decoder.vocabulary]), after), input('locWeights', ['k'])));

  // the gates of rel/gen and of locality samples at N_s sampled visual positions
  const sampled = input('sampled', ['e', 't'], 'int64');
  const right = takeLast(gather(gate, input('choice', ['e'], 'int64')), sampled);
  const wrong = takeLast(slice(gate, 0, mulDim(3, 'e'), b), sampled);
  const target = input('target', ['e', 't']);
  // Means over edits: a part of a batch has its share in those of the whole.
  const share = input('share', []);
  const gates = mapperLosses(right, wrong, target);
  const [up, down, ima] = [gates.up, gates.down, gates.ima].map((x) => mul(x, share)) as [Node, Node, Node];
  // (22) over every picture of an edit, three of them, and all other edits of the batch
  const apart = (): Node => {
    const gates = allGates(adapter, shape, mapped, input('ends', ['edits', d]));
    const shut = div(sum(mul(logShut(gates), spans.mask), 1), sum(spans.mask, 1));
    return mul(sum(mul(shut, spread(input('others', ['e', 'edits'])))), -1 / 3);
  };
  const others = losses.others > 0 && parts.influenceMapper ? apart() : undefined;
  const opened = (x: Node): Node => mul(mean(sigmoid(x)), share);

  const weighted: [Node, number][] = [
    [rel, losses.rel],
    [textGen, losses.gen],
    [modalGen, losses.gen],
    [loc, losses.loc],
  ];
  if (parts.influenceMapper) weighted.push([up, losses.up], [down, losses.down], [ima, losses.attribution]);
  if (others !== undefined) weighted.push([others, losses.others]);
  const used = weighted.filter(([, weight]) => weight !== 0).map(([term, weight]) => (weight === 1 ? term : mul(term, weight)));
  if (used.length === 0) throw new Error('every term of the objective is switched off');
  return {
    loss: used.reduce((a, c) => add(a, c)),
    // Without the mapper there are no gates to report, and no weights to compute them from.
    metrics: {
      ...{ rel, textGen, modalGen, loc },
      ...(parts.influenceMapper ? { up, down, ima, gateRight: opened(right), gateWrong: opened(wrong) } : {}),
      ...(others === undefined ? {} : { others }),
    },
    weights: adapter,
  };
}

const small = 1e-8;

/** log(1 − σ(gate)) */
const logShut = (gates: Node): Node => log(add(sub(1, sigmoid(gates)), small));

/**
 * The influence mapper's losses (21, 22, 24) from its gates before their sigmoid.
 * @param right gates of rel/gen samples at N_s [e, t] @param wrong those of locality samples @param target c normalised [e, t]
 */
export function mapperLosses(right: Node, wrong: Node, target: Node): { up: Node; down: Node; ima: Node } {
  return {
    up: mul(mean(log(add(sigmoid(right), small))), -1), // (21)
    down: mul(mean(logShut(wrong)), -1), // (22)
    ima: mul(mean(sum(mul(target, log(add(softmax(right), small))), 1)), -1), // (24)
  };
}
