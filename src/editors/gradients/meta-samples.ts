/** What training a hyper-network editor needs of a record and never changes: states before the first changed layer, and the unedited answers. */

import { f32, i64, type Tensor } from '../../graph/index.ts';
import type { EditRecord } from '../../input/records.ts';
import { type BatchShape, rowOf } from '../../models/batch.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { Feeds } from '../../runtime/program.ts';
import { type Pictures, picturesOf } from '../context/pictures.ts';
import { answersAbove, padStates, type Sample, statesBelow } from '../context/states.ts';
import { pictureGroups } from './meta-objective.ts';

export interface PreparedEdit {
  readonly record: EditRecord;
  /** in the order of `pictureGroups` */
  readonly pictures: readonly Sample[];
  readonly text: Sample;
  /** unedited logits where the locality samples' answers are predicted, [k × n] */
  readonly pictureBefore: Float32Array;
  readonly textBefore: Float32Array;
  /** what a hyper-network reads beside the gradient: token ids, −1 for its separator */
  readonly condition: readonly number[];
}

/** Tokens that a hyper-network reads of each record's request. */
export type Conditions = (records: readonly EditRecord[], pictures: Pictures) => Promise<readonly (readonly number[])[]>;

/** Records prepared together: one run for what is below layer `from`, and one above it for the unedited answers of each kind of locality. */
export async function prepare(
  vlm: Vlm,
  records: readonly EditRecord[],
  from: number,
  conditions?: Conditions,
): Promise<PreparedEdit[]> {
  for (const { index, queries } of records) {
    // The objective runs the picture of both once.
    if (queries.reliability.image !== queries.textGenerality.image)
      throw new Error(`record ${index}: its rephrased prompt is about another picture than its prompt`);
  }
  const asked = records.flatMap(({ queries }) => pictureGroups.map((group) => queries[group]));
  const tokens = await picturesOf(
    vlm,
    asked.map(({ image }) => image),
  );
  const groups = pictureGroups.length;
  const pictures = await statesBelow(vlm, asked, from, tokens);
  const pictureBefore = await answersAbove(
    vlm,
    records.map((_, i) => pictures[i * groups + pictureGroups.indexOf('modalLocality')]!),
    from,
  );
  const questions = records.map(({ queries }) => queries.textLocality);
  const texts = await statesBelow(vlm, questions, from, tokens);
  const textBefore = await answersAbove(vlm, texts, from);
  const condition = await conditions?.(records, tokens);
  return records.map((record, i) => ({
    record,
    pictures: pictures.slice(i * groups, (i + 1) * groups),
    text: texts[i]!,
    pictureBefore: pictureBefore[i]!,
    textBefore: textBefore[i]!,
    condition: condition?.[i] ?? [],
  }));
}

export function bytesOf({ pictures, text, pictureBefore, textBefore }: PreparedEdit): number {
  const arrays = [pictureBefore, textBefore, text.hidden, ...pictures.map((s) => s.hidden)];
  return arrays.reduce((total, a) => total + a.byteLength, 0);
}

/**
 * Feeds of `metaTerms`.
 * @param whole the batch that these are a part of: every token weighs as it does there
 */
export function metaFeeds(vlm: Vlm, prepared: readonly PreparedEdit[], whole: readonly PreparedEdit[] = prepared): Feeds {
  const e = prepared.length;
  const n = vlm.decoder.vocabulary;
  const all = pictureGroups.flatMap((_, g) => prepared.map((p) => p.pictures[g]!));
  const image = padStates(vlm, all);
  const text = padStates(
    vlm,
    prepared.map((p) => p.text),
  );
  const placed = (batch: BatchShape): { row: number; id: number; sample: number }[] =>
    batch.sequences.flatMap(({ targetIds, promptEnd }, sample) =>
      targetIds.map((id, i) => ({ row: rowOf(batch, sample, promptEnd + i), id, sample })),
    );
  const rows = placed(image.batch);
  const asked = rows.filter(({ sample }) => sample < 3 * e);
  const parts = new Float32Array(3 * asked.length);
  const tokens = (of: (p: PreparedEdit) => Sample): number =>
    whole.reduce((total, p) => total + of(p).sequence.targetIds.length, 0);
  const sizes = [0, 1, 2].map((g) => tokens((p) => p.pictures[g]!));
  asked.forEach(({ sample }, i) => {
    const g = Math.floor(sample / e);
    parts[g * asked.length + i] = 1 / sizes[g]!;
  });
  const ints = (values: readonly number[]): Tensor => i64(values, [values.length]);
  const local = rows.filter(({ sample }) => sample >= 3 * e).map(({ row }) => row);
  const textRows = placed(text.batch).map(({ row }) => row);
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
  const named = (kind: string, feeds: Feeds): Feeds =>
    Object.fromEntries(Object.entries(feeds).map(([name, t]) => [`${kind}.${name}`, t]));
  return {
    ...named('image', image.feeds),
    ...named('text', text.feeds),
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
