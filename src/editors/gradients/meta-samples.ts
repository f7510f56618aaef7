/** What training a hyper-network editor needs of a record and never changes: states before the first changed layer, and the unedited answers. */

import type { EditRecord } from '../../data/records.ts';
import { f32, i64, type Tensor } from '../../graph/index.ts';
import { decodeImage } from '../../image/decode.ts';
import { targetRows } from '../../models/answer.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { Feeds } from '../../runtime/program.ts';
import { padHidden, type Sample } from '../vead/prepare.ts';
import { pictureGroups } from './meta-objective.ts';

export interface Prepared {
  /** in the order of `pictureGroups` */
  pictures: readonly Sample[];
  text: Sample;
  /** unedited logits where the locality samples' answers are predicted, [k × n] */
  pictureBefore: Float32Array;
  textBefore: Float32Array;
}

export async function prepare(vlm: Vlm, { index, queries }: EditRecord, from: number): Promise<Prepared> {
  const [first, second] = [queries.reliability, queries.textGenerality];
  // The objective runs the picture of both once.
  if (first.image !== second.image)
    throw new Error(`record ${index}: its rephrased prompt is about another picture than its prompt`);
  const site = from === 0 ? 'decoder.in' : `layers.${from - 1}.out`;
  const d = vlm.decoder.hidden;
  const run = async (
    of: readonly (typeof first | typeof queries.textLocality)[],
  ): Promise<{ samples: Sample[]; before: Float32Array }> => {
    const sequences = of.map((q) => vlm.layout(q.prompt, q.image !== null, q.target));
    const images = await Promise.all(of.map((q) => (q.image === null ? undefined : decodeImage(q.image))));
    const batch = await vlm.batch(sequences, images);
    const rows = targetRows(batch).slice(-sequences.at(-1)!.targetIds.length);
    const out = await vlm.run({ from: 0, to: vlm.decoder.layers, outputs: [site, 'logits'], rows: true }, batch, {
      rows: i64(rows, [rows.length]),
    });
    const hidden = out[site]!.data as Float32Array;
    const samples = sequences.map((sequence, n) => {
      const at = n * batch.length * d;
      return { sequence, hidden: hidden.slice(at, at + sequence.ids.length * d) };
    });
    return { samples, before: out.logits!.data as Float32Array };
  };
  const pictures = await run(pictureGroups.map((group) => queries[group]));
  const text = await run([queries.textLocality]);
  return { pictures: pictures.samples, pictureBefore: pictures.before, text: text.samples[0]!, textBefore: text.before };
}

export function bytesOf({ pictures, text, pictureBefore, textBefore }: Prepared): number {
  const arrays = [pictureBefore, textBefore, text.hidden, ...pictures.map((s) => s.hidden)];
  return arrays.reduce((total, a) => total + a.byteLength, 0);
}

/**
 * Feeds of `metaTerms`.
 * @param whole the batch that these are a part of: every token weighs as it does there
 */
export function metaFeeds(vlm: Vlm, prepared: readonly Prepared[], whole: readonly Prepared[] = prepared): Feeds {
  const e = prepared.length;
  const n = vlm.decoder.vocabulary;
  const d = vlm.decoder.hidden;
  const all = pictureGroups.flatMap((_, g) => prepared.map((p) => p.pictures[g]!));
  const image = padHidden(all, d);
  const text = padHidden(
    prepared.map((p) => p.text),
    d,
  );
  const placed = (samples: readonly Sample[], length: number): { row: number; id: number; sample: number }[] =>
    samples.flatMap(({ sequence }, sample) =>
      sequence.targetIds.map((id, i) => ({ row: sample * length + sequence.promptEnd + i, id, sample })),
    );
  const rows = placed(all, image.length);
  const asked = rows.filter(({ sample }) => sample < 3 * e);
  const parts = new Float32Array(3 * asked.length);
  const tokens = (of: (p: Prepared) => Sample): number => whole.reduce((total, p) => total + of(p).sequence.targetIds.length, 0);
  const sizes = [0, 1, 2].map((g) => tokens((p) => p.pictures[g]!));
  asked.forEach(({ sample }, i) => {
    const g = Math.floor(sample / e);
    parts[g * asked.length + i] = 1 / sizes[g]!;
  });
  const ints = (values: readonly number[]): Tensor => i64(values, [values.length]);
  const local = rows.filter(({ sample }) => sample >= 3 * e).map(({ row }) => row);
  const textRows = placed(
    prepared.map((p) => p.text),
    text.length,
  ).map(({ row }) => row);
  const even = (k: number, all: number): Tensor => f32(new Float32Array(k).fill(1 / all), [k]);
  const joined = (parts: readonly Float32Array[], k: number): Tensor => {
    const data = new Float32Array(k * n);
    let at = 0;
    for (const part of parts) {
      data.set(part, at);
      at += part.length;
    }
    return f32(data, [k, n]);
  };
  return {
    'image.hidden': image.hidden,
    'image.positions': image.positions,
    'image.bias': image.bias,
    'image.rows': ints(asked.map(({ row }) => row)),
    'image.labels': ints(asked.map(({ id }) => id)),
    'image.parts': f32(parts, [3, asked.length]),
    'image.locRows': ints(local),
    'image.before': joined(
      prepared.map((p) => p.pictureBefore),
      local.length,
    ),
    'image.locWeights': even(
      local.length,
      tokens((p) => p.pictures[3]!),
    ),
    'text.hidden': text.hidden,
    'text.positions': text.positions,
    'text.bias': text.bias,
    'text.rows': ints(textRows),
    'text.before': joined(
      prepared.map((p) => p.textBefore),
      textRows.length,
    ),
    'text.locWeights': even(
      textRows.length,
      tokens((p) => p.text),
    ),
  };
}
