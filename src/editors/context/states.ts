/**
 * States of samples between two parts of the frozen decoder, which trainings keep: what stands before a layer, and what the layers from there on
 * answer without an edit.
 */

import { i64, type Tensor } from '../../graph/dtype.ts';
import type { RecordQuery } from '../../input/records.ts';
import { targetRows } from '../../models/answer.ts';
import { usualTokens } from '../../models/architecture.ts';
import { type BatchShape, batchShape, padRows, positionFeeds, rowsOf, sightFeeds } from '../../models/batch.ts';
import { type DeepRows, deepFeeds, deepRows } from '../../models/deep.ts';
import type { Sequence } from '../../models/sequence.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { Pictures } from './pictures.ts';

export interface Sample {
  sequence: Sequence;
  /** [length × d], at the layer that it was made for */
  hidden: Float32Array;
  /** what is added from there on */
  deep?: DeepRows;
}

/** The site that holds what stands before a layer. */
export const stateSite = (layer: number): string => (layer === 0 ? 'decoder.in' : `layers.${layer - 1}.out`);

/** States of samples side by side: hidden [b, l, d], positions and causal bias, as programs over such states read them. */
export function padStates(vlm: Vlm, samples: readonly Sample[]): { batch: BatchShape; feeds: Record<string, Tensor> } {
  const batch = batchShape(samples.map(({ sequence }) => sequence));
  const { hidden, positionAxes: axes } = vlm.decoder;
  const split = batch.image && typeof vlm.prefixDim(batch.prefix) !== 'number';
  return {
    batch,
    feeds: {
      hidden: padRows(
        batch,
        samples.map((sample) => sample.hidden),
        hidden,
      ),
      ...deepFeeds(
        vlm.decoder,
        batch,
        samples.map(({ deep }) => deep),
      ),
      positions: positionFeeds(batch, axes),
      ...sightFeeds(vlm.decoder, batch),
      ...(split
        ? { 'positions.prefix': positionFeeds(batch, axes, 'prefix'), 'positions.text': positionFeeds(batch, axes, 'text') }
        : {}),
    },
  };
}

/** Queries that all have a picture, or all have none. */
const sequencesOf = (vlm: Vlm, queries: readonly RecordQuery[], pictures: Pictures): Sequence[] =>
  queries.map(({ prompt, image, target }) =>
    vlm.layout({ prompt, image: image === null ? undefined : pictures.get(image)! }, target),
  );

/** States before layer `from`. */
export async function statesBelow(
  vlm: Vlm,
  queries: readonly RecordQuery[],
  from: number,
  pictures: Pictures,
): Promise<Sample[]> {
  const batch = await vlm.batch(sequencesOf(vlm, queries, pictures));
  const site = stateSite(from);
  const out = (await vlm.run({ from: 0, to: from, read: [site] }, batch))[site]!.data as Float32Array;
  return batch.sequences.map((sequence, n) => ({
    sequence,
    hidden: rowsOf(batch, n, out, vlm.decoder.hidden),
    deep: deepRows(vlm.decoder, batch, n, from),
  }));
}

/** Unedited logits [k × n] where each query's answer is predicted, from the states before layer `from`. */
export async function answersAbove(vlm: Vlm, samples: readonly Sample[], from: number): Promise<Float32Array[]> {
  const { batch, feeds } = padStates(vlm, samples);
  const rows = targetRows(batch);
  const plan = { from, to: vlm.decoder.layers, read: ['logits'], rows: true, entered: from === 0 };
  const { logits } = await vlm.run(plan, { ...batch, feeds }, { rows: i64(rows, [rows.length]) });
  const n = vlm.decoder.vocabulary;
  let at = 0;
  return batch.sequences.map(({ targetIds }) => {
    const start = at;
    at += targetIds.length * n;
    return (logits!.data as Float32Array).slice(start, at);
  });
}

/** Bytes of the states of so many samples with a picture, about: for deciding whether those of all records can be kept. */
export function stateBytes(vlm: Vlm, samples: number): number {
  const words = 32;
  return 4 * samples * (usualTokens(vlm.architecture) + words) * vlm.decoder.hidden;
}
