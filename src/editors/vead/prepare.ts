/**
 * What training needs of a record and never changes: hidden states at the insert layer of its four samples, the unedited answers of the
 * locality sample, and the influence mapper's targets. Computed once per record and kept within a budget of memory.
 */

import { visibleUpTo } from '../../attribution/visual-attribution.ts';
import type { EditRecord, Query } from '../../data/records.ts';
import { f32, i64, type Tensor } from '../../graph/dtype.ts';
import { decodeImage } from '../../image/decode.ts';
import { targetRows } from '../../models/answer.ts';
import type { Sequence } from '../../models/sequence.ts';
import { type Batch, causalBias, type RgbImage, type Vlm } from '../../models/vlm.ts';
import type { Random } from '../../random.ts';
import { influenceTargetProgram } from './influence-target.ts';
import { groups } from './objective.ts';

export interface Sample {
  sequence: Sequence;
  /** h[l_e], [length × d] */
  hidden: Float32Array;
}

export interface Prepared {
  /** in the order of `groups` */
  samples: readonly Sample[];
  /** unedited logits at the locality sample's target rows, [k × vocabulary] */
  before: Float32Array;
  /** locality samples that stand closer to the edit, where they are asked for and the record has them; each can take the locality sample's place */
  closer: Partial<Record<CloserLocality, { sample: Sample; before: Float32Array }>>;
  /** c [v] of Eq. 23 for a rel/gen sample's visual tokens, by group; not normalised */
  influence: readonly Float32Array[];
}

/** The same picture with another question; the same question about another picture. */
export const closerLocalities = ['sameImage', 'sameQuestion'] as const;
export type CloserLocality = (typeof closerLocalities)[number];

/** What a step learns from when a closer locality sample takes the place of the usual one. */
export function withLocality(prepared: Prepared, kind: CloserLocality): Prepared {
  const closer = prepared.closer[kind];
  if (closer === undefined) return prepared;
  return { ...prepared, samples: [...prepared.samples.slice(0, 3), closer.sample], before: closer.before };
}

export interface PrepareOptions {
  layer: number;
  traced: readonly number[];
  draws: number;
  sigma: number;
  /** which closer locality samples to prepare */
  closer?: readonly CloserLocality[];
  /** bytes of prepared records to keep */
  budget: number;
}

/** Hidden states of sequences at the output of `layer`, cut to each sequence's length. */
export async function hiddenAt(vlm: Vlm, batch: Batch, layer: number): Promise<Float32Array[]> {
  const out = await vlm.run({ from: 0, to: layer + 1, outputs: [`layers.${layer}.out`] }, batch);
  const data = out[`layers.${layer}.out`]!.data as Float32Array;
  const d = vlm.decoder.hidden;
  return batch.sequences.map((s, n) => data.slice(n * batch.length * d, (n * batch.length + s.ids.length) * d));
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

/** c [b][v] for the visual tokens of `sample` seen from the prompt end of `edit`; `noise` per traced layer [b, v, draws, d]. */
export async function influenceTargets(
  vlm: Vlm,
  layer: number,
  traced: readonly number[],
  edit: readonly Sample[],
  sample: readonly Sample[],
  tokens: readonly number[],
  noise: ReadonlyMap<number, Tensor<'float32'>>,
): Promise<Float32Array> {
  const program = await influenceTargetProgram(vlm, layer, traced);
  const d = vlm.decoder.hidden;
  const of = padHidden(edit, d);
  const from = padHidden(sample, d);
  const ends = edit.map((s) => s.sequence.promptEnd);
  const feeds: Record<string, Tensor> = {
    edit: of.hidden,
    'edit.positions': of.positions,
    'edit.bias': of.bias,
    sample: from.hidden,
    'sample.positions': from.positions,
    'sample.bias': from.bias,
    tokens: i64(tokens, [tokens.length]),
    ends: i64(
      ends.map((end, n) => n * of.length + end),
      [ends.length],
    ),
    visible: visibleUpTo(ends, of.length),
  };
  for (const [i, t] of noise) feeds[`noise.${i}`] = t;
  return (await program.run(feeds)).c!.data as Float32Array;
}

export class Preparer {
  readonly #cache = new Map<number, Prepared>();
  readonly #images = new Map<string, Promise<RgbImage>>();
  #bytes = 0;

  constructor(
    readonly vlm: Vlm,
    readonly records: readonly EditRecord[],
    readonly options: PrepareOptions,
    readonly random: Random,
  ) {}

  /** Prepared records by their place in the list. */
  async get(indices: readonly number[]): Promise<Prepared[]> {
    const missing = [...new Set(indices.filter((i) => !this.#cache.has(i)))];
    const fresh = new Map<number, Prepared>();
    if (missing.length > 0) {
      // One at a time: padding and batch size move the last bits, and a resumed training meets records in other batches.
      for (const i of missing) fresh.set(i, await this.#prepare(i));
      for (const [i, prepared] of fresh) {
        const closer = Object.values(prepared.closer);
        const bytes = [
          ...[prepared, ...closer].map(({ before }) => before),
          ...prepared.influence,
          ...[...prepared.samples, ...closer.map(({ sample }) => sample)].map(({ hidden }) => hidden),
        ].reduce((sum, a) => sum + a.byteLength, 0);
        if (this.#bytes + bytes > this.options.budget) continue;
        this.#cache.set(i, prepared);
        this.#bytes += bytes;
      }
    }
    return indices.map((i) => this.#cache.get(i) ?? fresh.get(i)!);
  }

  #image(path: string): Promise<RgbImage> {
    let image = this.#images.get(path);
    if (image === undefined) {
      image = decodeImage(path);
      this.#images.set(path, image);
      if (this.#images.size > 512) this.#images.delete(this.#images.keys().next().value as string);
    }
    return image;
  }

  async #prepare(index: number): Promise<Prepared> {
    const { vlm } = this;
    const { layer, traced, draws, sigma } = this.options;
    const { visualTokens: v, decoder } = vlm.architecture;
    const d = decoder.hidden;
    const queries = groups.map((group) => this.records[index]!.queries[group] as Query);
    // The objective computes the picture's part of both once.
    if (queries[1]!.image !== queries[0]!.image)
      throw new Error(`record ${index}: its rephrased prompt is about another picture than its prompt`);
    const sequences = queries.map((q) => vlm.layout(q.prompt, true, q.target));
    const batch = await vlm.batch(sequences, await Promise.all(queries.map((q) => this.#image(q.image!))));
    const hidden = await hiddenAt(vlm, batch, layer);
    const samples = sequences.map((sequence, g): Sample => ({ sequence, hidden: hidden[g]! }));
    const [edit, , modal, local] = samples as [Sample, Sample, Sample, Sample];

    const before = await this.#unedited(local, queries[3]!.image!);
    const closer: Prepared['closer'] = {};
    for (const kind of this.options.closer ?? []) {
      const query = this.records[index]!.hard?.[kind];
      if (query === undefined) continue;
      const sequence = vlm.layout(query.prompt, true, query.target);
      const picture = await this.#image(query.image!);
      const [states] = await hiddenAt(vlm, await vlm.batch([sequence], [picture]), layer);
      const sample = { sequence, hidden: states! };
      closer[kind] = { sample, before: await this.#unedited(sample, query.image!) };
    }

    let influence = [0, 1, 2].map(() => new Float32Array(v));
    if (traced.length > 0) {
      const tokens = Array.from({ length: v }, (_, i) => vlm.visualStart + i);
      // Visual tokens come before the prompt, so the rephrased prompt has the edit's own visual states: two samples, not three.
      const noise = new Map(
        traced.map((i): [number, Tensor<'float32'>] => {
          const one = this.random.fork(`${i}/${index}`).normals(v * draws * d, sigma);
          const data = new Float32Array(2 * one.length);
          data.set(one);
          data.set(one, one.length);
          return [i, f32(data, [2, v, draws, d])];
        }),
      );
      const c = await influenceTargets(vlm, layer, traced, [edit, edit], [edit, modal], tokens, noise);
      influence = [c.slice(0, v), c.slice(0, v), c.slice(v)];
    }
    return { samples, before, closer, influence };
  }

  /** Unedited logits [k × vocabulary] at a sample's target rows, from its states at the insert layer. */
  async #unedited(sample: Sample, image: string): Promise<Float32Array> {
    const { vlm } = this;
    const { decoder } = vlm;
    const alone = vlm.batchVisual([sample.sequence], [await vlm.visual(await this.#image(image))]);
    const rows = targetRows(alone);
    const out = await vlm.run({ from: this.options.layer + 1, to: decoder.layers, outputs: ['logits'], rows: true }, alone, {
      hidden: padHidden([sample], decoder.hidden).hidden,
      rows: i64(rows, [rows.length]),
    });
    return out.logits!.data as Float32Array;
  }
}
