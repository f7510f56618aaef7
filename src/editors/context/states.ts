/**
 * States of samples between two parts of the frozen decoder, which trainings keep: what stands before a layer, and what the layers from there on
 * answer without an edit.
 */

import { f32, i64, type Tensor } from '../../graph/dtype.ts';
import type { Query } from '../../input/records.ts';
import { targetRows } from '../../models/answer.ts';
import type { Sequence } from '../../models/sequence.ts';
import { type Batch, causalBias, type Vlm } from '../../models/vlm.ts';
import type { VisualTokens } from './pictures.ts';

export interface Sample {
  sequence: Sequence;
  /** [length × d], at the layer that it was made for */
  hidden: Float32Array;
}

/** Right-padded hidden states of samples: [b, l, d], positions and causal bias. */
export function padHidden(
  samples: readonly Sample[],
  d: number,
): { hidden: Tensor<'float32'>; positions: Tensor; bias: Tensor<'float32'>; length: number } {
  const length = Math.max(...samples.map((s) => s.sequence.ids.length));
  const data = new Float32Array(samples.length * length * d);
  const positions = new BigInt64Array(samples.length * length);
  samples.forEach((s, n) => {
    data.set(s.hidden, n * length * d);
    for (let i = 0; i < length; i++) positions[n * length + i] = BigInt(i);
  });
  return {
    hidden: f32(data, [samples.length, length, d]),
    positions: i64(positions, [samples.length, length]),
    bias: causalBias(samples.length, length),
    length,
  };
}

/** Queries that all have a picture, or all have none. */
function batchOf(vlm: Vlm, queries: readonly Query[], tokens: VisualTokens): Batch {
  return vlm.batchVisual(
    queries.map(({ prompt, image, target }) => vlm.layout(prompt, image !== null, target)),
    queries.map(({ image }) => (image === null ? undefined : tokens.get(image)!)),
  );
}

/** States before layer `from`. */
export async function statesBelow(vlm: Vlm, queries: readonly Query[], from: number, tokens: VisualTokens): Promise<Sample[]> {
  const batch = batchOf(vlm, queries, tokens);
  const site = from === 0 ? 'decoder.in' : `layers.${from - 1}.out`;
  const out = (await vlm.run({ from: 0, to: from, outputs: [site] }, batch))[site]!.data as Float32Array;
  const d = vlm.decoder.hidden;
  return batch.sequences.map((sequence, n) => {
    const at = n * batch.length * d;
    return { sequence, hidden: out.slice(at, at + sequence.ids.length * d) };
  });
}

/** Unedited logits [k × n] where each query's answer is predicted, from the states before layer `from`. */
export async function answersAbove(
  vlm: Vlm,
  queries: readonly Query[],
  samples: readonly Sample[],
  from: number,
  tokens: VisualTokens,
): Promise<Float32Array[]> {
  const batch = batchOf(vlm, queries, tokens);
  const rows = targetRows(batch);
  const segment = { from, to: vlm.decoder.layers, outputs: ['logits'], rows: true };
  const { hidden } = padHidden(samples, vlm.decoder.hidden);
  const { logits } = await vlm.run(segment, batch, { hidden, rows: i64(rows, [rows.length]) });
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
  const { visualTokens, decoder } = vlm.architecture;
  const words = 32;
  return 4 * samples * (visualTokens + words) * decoder.hidden;
}
