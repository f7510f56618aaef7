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

/** Prepares records when first asked for, and keeps them within a budget of bytes. */
export class MetaSamples {
  readonly #known = new Map<number, Prepared>();
  #bytes = 0;

  constructor(
    readonly vlm: Vlm,
    readonly records: readonly EditRecord[],
    readonly from: number,
    readonly budget: number,
  ) {}

  async get(indices: readonly number[]): Promise<Prepared[]> {
    const out: Prepared[] = [];
    // One at a time: padding and batch size move the last bits, and a resumed training meets records in other batches.
    for (const i of indices) {
      const known = this.#known.get(i) ?? (await this.#prepare(i));
      out.push(known);
      if (this.#known.has(i)) continue;
      const arrays = [known.pictureBefore, known.textBefore, known.text.hidden, ...known.pictures.map((s) => s.hidden)];
      const bytes = arrays.reduce((total, a) => total + a.byteLength, 0);
      if (this.#bytes + bytes > this.budget) continue;
      this.#known.set(i, known);
      this.#bytes += bytes;
    }
    return out;
  }

  async #prepare(index: number): Promise<Prepared> {
    const { vlm, from } = this;
    const { queries } = this.records[index]!;
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
}

/** Feeds of `metaTerms`. */
export function metaFeeds(vlm: Vlm, prepared: readonly Prepared[]): Feeds {
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
  const sizes = [0, 1, 2].map((g) => asked.filter(({ sample }) => Math.floor(sample / e) === g).length);
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
  const even = (k: number): Tensor => f32(new Float32Array(k).fill(1 / k), [k]);
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
    'image.locWeights': even(local.length),
    'text.hidden': text.hidden,
    'text.positions': text.positions,
    'text.bias': text.bias,
    'text.rows': ints(textRows),
    'text.before': joined(
      prepared.map((p) => p.textBefore),
      textRows.length,
    ),
    'text.locWeights': even(textRows.length),
  };
}
