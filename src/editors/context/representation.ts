/**
 * What a query is about, in the frozen backbone's own representation, for retrieval and for scope: three vectors of width d, the mean of the
 * picture's visual tokens, the mean of the words' states at the output of one decoder layer, and that layer's state at the prompt's end, where
 * words and picture have met. As a key each vector is taken from the mean of the training requests and has length 1 (0 where there is no picture);
 * the similarity of two keys is the mean of the three cosines.
 */

import { f32, type Tensor } from '../../graph/dtype.ts';
import { decodeImage } from '../../input/image/decode.ts';
import type { EditRecord, RecordQuery } from '../../input/records.ts';
import type { Asked } from '../../input/segments.ts';
import { batchRows } from '../../models/answer.ts';
import { joined, rowOf } from '../../models/batch.ts';
import { visualWidth } from '../../models/deep.ts';
import { beginLength, prefixOf } from '../../models/sequence.ts';
import type { Vlm } from '../../models/vlm.ts';

/** Vectors of a key, each of length 1: the mean of their cosines is the product of two keys over their number. */
export const parts = 3;

/** The layer that is read when none is chosen: in the middle, where published models have met words and picture. */
export const middleLayer = (vlm: Vlm): number => Math.max(0, Math.ceil(vlm.decoder.layers / 2) - 1);

/**
 * Descriptions [3 d] as they are, in the order of the queries.
 * @param alone only queries of one length run together: padding moves the last bits, and what is kept must not depend on what stands beside it
 */
export async function describe(vlm: Vlm, queries: readonly Asked[], layer: number, alone = false): Promise<Float32Array[]> {
  const d = vlm.decoder.hidden;
  const site = `layers.${layer}.out`;
  const sequences = queries.map((query) => vlm.layout(query));
  const out = new Array<Float32Array>(queries.length);
  const shapes = new Map<string, number[]>();
  sequences.forEach((sequence, i) => {
    const shape = alone ? `${prefixOf(sequence)} ${sequence.ids.length}` : '';
    shapes.set(shape, [...(shapes.get(shape) ?? []), i]);
  });
  const batches = [...shapes.values()].flatMap((own) =>
    batchRows(
      own.map((i) => sequences[i]!),
      Math.min(32, vlm.batchLimit),
    ).map((rows) => rows.map((row) => own[row]!)),
  );
  for (const rows of batches) {
    const batch = await vlm.batch(rows.map((i) => sequences[i]!));
    const hidden = (await vlm.run({ from: 0, to: layer + 1, read: [site] }, batch))[site]!.data as Float32Array;
    for (const [n, i] of rows.entries()) {
      const { promptEnd, pictures } = sequences[i]!;
      const at = (position: number): number => rowOf(batch, n, position) * d;
      const description = new Float32Array(parts * d);
      if (pictures.length > 0) {
        const seen = joined(await Promise.all(pictures.map((picture) => picture.see())));
        description.set(meanRow(seen.data, visualWidth(vlm.decoder)).subarray(0, d));
      }
      const words = pictures.length > 0 ? prefixOf(sequences[i]!) : beginLength(vlm);
      description.set(meanRow(hidden.subarray(at(Math.min(words, promptEnd)), at(promptEnd + 1)), d), d);
      description.set(hidden.subarray(at(promptEnd), at(promptEnd + 1)), 2 * d);
      out[i] = description;
    }
  }
  return out;
}

/** A record's query with its picture in memory. */
export async function openQuery({ prompt, image }: Pick<RecordQuery, 'prompt' | 'image'>): Promise<Asked> {
  return { prompt, image: image === null ? undefined : await decodeImage(image) };
}

function meanRow(rows: Float32Array, d: number): Float32Array {
  const mean = new Float32Array(d);
  const count = rows.length / d;
  for (let at = 0; at < rows.length; at += d) for (let i = 0; i < d; i++) mean[i]! += rows[at + i]! / count;
  return mean;
}

/** What keys are taken from, [3 d]. */
export function centerOf(descriptions: readonly Float32Array[]): Tensor<'float32'> {
  const width = descriptions[0]!.length;
  const all = new Float32Array(descriptions.length * width);
  descriptions.forEach((description, i) => {
    all.set(description, i * width);
  });
  return f32(meanRow(all, width), [width]);
}

/** The key [3 d] of a description. */
export function keyOf(description: Float32Array, center: Tensor<'float32'>): Float32Array {
  const d = description.length / parts;
  const key = new Float32Array(description.length);
  for (let p = 0; p < parts; p++) {
    const part = description.subarray(p * d, (p + 1) * d);
    if (part.every((x) => x === 0)) continue;
    const moved = part.map((x, i) => x - center.data[p * d + i]!);
    const norm = Math.sqrt(moved.reduce((sum, x) => sum + x * x, 0));
    if (norm > 0) for (let i = 0; i < d; i++) key[p * d + i] = moved[i]! / norm;
  }
  return key;
}

/** @param alone see `describe` */
export async function keysOf(
  vlm: Vlm,
  queries: readonly Asked[],
  layer: number,
  center: Tensor<'float32'>,
  alone = false,
): Promise<Float32Array[]> {
  return (await describe(vlm, queries, layer, alone)).map((description) => keyOf(description, center));
}

/** Mean of the cosines, −1 to 1. */
export function similarity(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum / parts;
}

/** Descriptions of requests, none of which depends on the others. */
export async function describeRequests(vlm: Vlm, records: readonly EditRecord[], layer: number): Promise<Float32Array[]> {
  return describe(vlm, await Promise.all(records.map(({ request }) => openQuery(request))), layer, true);
}

/**
 * The threshold that tells two sets of similarities apart best, by both sets' shares on the right side: midway between two of them.
 * @param weight of the first set's share beside that of the second
 */
export function fitThreshold(inScope: readonly number[], outOfScope: readonly number[], weight = 1): number {
  const all = [
    ...inScope.map((score) => ({ score, gain: weight / inScope.length })),
    ...outOfScope.map((score) => ({ score, gain: -1 / outOfScope.length })),
  ].sort((a, b) => b.score - a.score);
  let right = 0;
  let most = Number.NEGATIVE_INFINITY;
  let threshold = 0;
  all.forEach(({ score, gain }, i) => {
    right += gain;
    const following = all[i + 1]?.score;
    if (following === score || right <= most) return;
    const next = following ?? -1;
    most = right;
    // Between neighbours among the doubles there is no middle.
    const middle = (score + next) / 2;
    threshold = middle > next ? middle : score;
  });
  return threshold;
}
