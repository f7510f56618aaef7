/**
 * Where to insert an editor that rewrites visual tokens after a layer, with the evidence. Of questions about two pictures with different answers, the visual
 * tokens' states after each layer are taken from one run and put into the other (activation patching):
 *   carried[l] = (p(restored) − p(corrupted)) / (p(clean) − p(corrupted)) of the other picture's answer.
 * As long as much of the answer comes with them, an editor there can still change it. The layer is the last one after which they carry `carriedShare` of
 * the most: later, the words have read the picture; earlier, an edit changes more than the answer.
 */

import type { FigurePanel } from '../figures/drawings.ts';
import type { Asked, RgbImage } from '../input/segments.ts';
import { readInput } from '../models/answer.ts';
import { visualPlaces } from '../models/sequence.ts';
import type { Vlm } from '../models/vlm.ts';
import { averageModuleContribution } from './dataset-average.ts';
import { highShare } from './insert-layer.ts';
import { nextToken } from './next-token.ts';
import { restore } from './tools/trace.ts';

/** Share of the most that visual tokens carry which the chosen layer must keep. */
export const carriedShare = 0.8;

/** Where to edit, and why. */
export interface EditPlan {
  readonly layer: number;
  /** layers behind it whose attention contributes highly: those that read what the editor writes */
  readonly traced: readonly number[];
  readonly evidence: {
    /** mean share of the other picture's answer that comes with the visual tokens' states, by layer */
    readonly carried: readonly number[];
    /** mean contribution of attention to the answer, by layer */
    readonly attention: readonly number[];
    /** pairs of pictures whose answers differ enough to be counted */
    readonly pairs: number;
  };
}

/** The evidence as a drawing. */
export function planPanel(model: string, { layer, evidence: { carried, attention } }: EditPlan): FigurePanel {
  const x = carried.map((_, i) => i);
  return {
    kind: 'line-chart',
    data: {
      ...{ title: `Where to edit ${model}`, xTitle: 'Layer', yTitle: 'Share' },
      series: [
        { label: 'Carried by the visual tokens', x, y: carried },
        { label: 'Contribution of attention', x, y: attention },
      ],
      marks: [{ x: layer, label: 'insert here' }],
    },
  };
}

/** A question about a picture, which may be read when it is needed. */
export interface PlanInput {
  readonly prompt: string;
  readonly image: RgbImage | (() => Promise<RgbImage>);
}

/** The layer and the traced layers that measurements lead to. */
export function choosePlan(carried: readonly number[], attention: readonly number[]): { layer: number; traced: number[] } {
  const last = carried.length - 1;
  const least = carriedShare * Math.max(...carried);
  // The last layer has none behind it that could read what is written.
  const layer = Math.max(
    0,
    carried.findLastIndex((share, i) => i < last && share >= least),
  );
  const threshold = highShare * Math.max(...attention);
  const high = attention.flatMap((value, i) => (value >= threshold && i > layer && i < last ? [i] : []));
  return { layer, traced: high.length > 0 ? high : [Math.min(layer + 1, last)] };
}

/**
 * Measures and chooses.
 * @param inputs questions about pictures; each is asked about the picture of the next one, too
 * @throws Error when fewer than two are given, or no two pictures give different answers
 */
export async function planEdit(
  vlm: Vlm,
  inputs: readonly PlanInput[],
  { signal, onProgress }: { signal?: AbortSignal; onProgress?: (done: number) => void } = {},
): Promise<EditPlan> {
  if (inputs.length < 2) throw new Error('a plan compares pictures; give at least two questions about pictures');
  const pictureOf = async ({ image }: PlanInput): Promise<RgbImage> => (typeof image === 'function' ? image() : image);
  const { layers } = vlm.decoder;
  const sums = new Array<number>(layers).fill(0);
  let pairs = 0;
  for (const [i, input] of inputs.entries()) {
    signal?.throwIfAborted();
    const asked = (image: RgbImage): Asked => ({ prompt: input.prompt, image });
    const own = await readInput(vlm, asked(await pictureOf(input)));
    const other = await readInput(vlm, asked(await pictureOf(inputs[(i + 1) % inputs.length]!)));
    const said = await nextToken(vlm, other.batch);
    const before = await nextToken(vlm, own.batch);
    const gap = said.probability(said.predicted) - before.probability(said.predicted);
    if (gap >= leastGap && own.batch.length === other.batch.length) {
      const places = visualPlaces(own.batch.sequences[0]!);
      const part = { name: 'picture', places, kind: 'picture' as const };
      const found = await restore(vlm, other, own, said.predicted, { kinds: ['out'], parts: [part] });
      found.restored[0]![0]!.forEach((probability, layer) => {
        sums[layer]! += (probability - found.corrupted) / (found.clean - found.corrupted);
      });
      pairs++;
    }
    onProgress?.(i + 1);
  }
  if (pairs === 0)
    throw new Error('no two of the pictures give clearly different answers to the same question; give more, or other, records');
  const carried = sums.map((sum) => sum / pairs);
  const { contribution } = await averageModuleContribution(vlm, inputs);
  return { ...choosePlan(carried, contribution.attn), evidence: { carried, attention: contribution.attn, pairs } };
}

/** Pairs whose answers differ less than this in probability say nothing. */
const leastGap = 0.3;
