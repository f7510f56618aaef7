/**
 * What training needs of a record and never changes: hidden states at the insert layer of its four samples, the unedited answers of the
 * locality sample, and the influence mapper's targets. Computed once per record and kept within a budget of memory.
 */

import { f32, i64, type Tensor } from '../../graph/dtype.ts';
import type { EditRecord, RecordQuery } from '../../input/records.ts';
import { type Batch, columnOf, MASKED, rowOf, rowsOf } from '../../models/batch.ts';
import { prefixOf, visualPlaces } from '../../models/sequence.ts';
import { windowOf } from '../../models/sight.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { Random } from '../../random.ts';
import { picturesOf } from '../context/pictures.ts';
import { answersAbove, padStates, type Sample, statesBelow } from '../context/states.ts';
import { Kept } from '../context/training.ts';
import { influenceTargetGraph, visibleName } from './influence-target.ts';
import { groups } from './objective.ts';

export interface PreparedRecord {
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
export function withLocality(prepared: PreparedRecord, kind: CloserLocality): PreparedRecord {
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
  const out = await vlm.run({ from: 0, to: layer + 1, read: [`layers.${layer}.out`] }, batch);
  const data = out[`layers.${layer}.out`]!.data as Float32Array;
  const d = vlm.decoder.hidden;
  return batch.sequences.map((_, n) => rowsOf(batch, n, data, d));
}

/**
 * c [b][v] for the visual tokens of `sample` seen from the prompt end of `edit`; `noise` per traced layer [b, v, draws, d].
 * @param tokens places of the visual tokens, the same in every sample
 */
export async function influenceTargets(
  vlm: Vlm,
  layer: number,
  traced: readonly number[],
  edit: readonly Sample[],
  sample: readonly Sample[],
  tokens: readonly number[],
  noise: ReadonlyMap<number, Tensor<'float32'>>,
): Promise<Float32Array> {
  const { batch, feeds } = padStates(vlm, [...edit, ...sample]);
  const program = await vlm.program(influenceTargetGraph, layer, traced, vlm.prefixDim(batch.prefix));
  const b = edit.length;
  const axes = vlm.decoder.positionAxes ?? 1;
  const part = (name: string, which: 0 | 1): Record<string, Tensor> =>
    Object.fromEntries(
      Object.entries(feeds).map(([feed, t]) => [
        feed === 'hidden' ? name : `${name}.${feed}`,
        halfOf(t, feed.startsWith('positions') && axes > 1 ? 1 : 0, which),
      ]),
    );
  const ends = edit.map((s) => s.sequence.promptEnd);
  /** Of the mixed input the pictures' part is the sample's. */
  const seen = (window: number): Tensor => {
    const visible = new Float32Array(b * batch.length).fill(MASKED);
    ends.forEach((end, n) => {
      const at = n * batch.length;
      const first = Math.max(0, end + 1 - window);
      const own = prefixOf(edit[n]!.sequence);
      visible.fill(0, at + first, Math.max(at + first, at + prefixOf(sample[n]!.sequence)));
      visible.fill(0, at + batch.prefix + Math.max(0, first - own), at + columnOf(batch, n, end) + 1);
    });
    return f32(visible, [b, batch.length]);
  };
  const windows = new Set(traced.map((i) => windowOf(vlm.decoder, i)));
  const run: Record<string, Tensor> = {
    ...part('edit', 0),
    ...part('sample', 1),
    tokens: i64(tokens, [tokens.length]),
    ends: i64(
      ends.map((end, n) => rowOf(batch, n, end)),
      [b],
    ),
    ...Object.fromEntries([...windows].map((window) => [visibleName(window), seen(window)])),
  };
  for (const [i, t] of noise) run[`noise.${i}`] = t;
  return (await program.run(run)).c!.data as Float32Array;
}

/** The first or second half of a tensor's rows on an axis, 0 or 1. */
function halfOf(t: Tensor, axis: number, which: 0 | 1): Tensor {
  const outer = axis === 0 ? 1 : t.shape[0]!;
  const rows = t.shape[axis]! / 2;
  const width = t.data.length / outer / t.shape[axis]!;
  const shape = t.shape.map((size, i) => (i === axis ? rows : size));
  const data = t.data.slice(0, outer * rows * width) as Float32Array;
  for (let o = 0; o < outer; o++) {
    const from = (o * 2 + which) * rows * width;
    data.set((t.data as Float32Array).subarray(from, from + rows * width), o * rows * width);
  }
  return { ...t, data, shape } as Tensor;
}

function bytesOf(prepared: PreparedRecord): number {
  const closer = Object.values(prepared.closer);
  return [
    ...[prepared, ...closer].map(({ before }) => before),
    ...prepared.influence,
    ...[...prepared.samples, ...closer.map(({ sample }) => sample)].map(({ hidden }) => hidden),
  ].reduce((sum, a) => sum + a.byteLength, 0);
}

export class Preparer {
  readonly #kept: Kept<PreparedRecord>;

  /** @param together records that are prepared in one run, every place in one list; each alone when left out */
  constructor(
    readonly vlm: Vlm,
    readonly records: readonly EditRecord[],
    readonly options: PrepareOptions,
    readonly random: Random,
    together: readonly (readonly number[])[] = records.map((_, i) => [i]),
  ) {
    this.#kept = new Kept((places) => this.#prepare(places), bytesOf, options.budget, together);
  }

  /** PreparedRecord records by their place in the list. */
  async get(indices: readonly number[]): Promise<PreparedRecord[]> {
    const out: PreparedRecord[] = [];
    for (const i of indices) out.push(await this.#kept.get(i));
    return out;
  }

  async #prepare(places: readonly number[]): Promise<PreparedRecord[]> {
    const { vlm } = this;
    const asked = places.map((place) => this.#queries(place));
    const flat = asked.flat();
    const tokens = await picturesOf(
      vlm,
      flat.map(({ query }) => query.image),
    );
    const above = this.options.layer + 1;
    const all = await statesBelow(
      vlm,
      flat.map(({ query }) => query),
      above,
      tokens,
    );
    const local = flat.flatMap(({ kind }, n) => (kind === undefined ? [] : [n]));
    const logits = await answersAbove(
      vlm,
      local.map((n) => all[n]!),
      above,
    );
    const before = new Map(local.map((n, i) => [n, logits[i]!]));
    let at = 0;
    const prepared = asked.map((queries): Omit<PreparedRecord, 'influence'> => {
      const first = at;
      at += queries.length;
      const closer: PreparedRecord['closer'] = {};
      queries.forEach(({ kind }, i) => {
        if (kind !== undefined && kind !== 'modalLocality')
          closer[kind] = { sample: all[first + i]!, before: before.get(first + i)! };
      });
      const samples = all.slice(first, first + groups.length);
      return { samples, before: before.get(first + groups.length - 1)!, closer };
    });
    const influence = await this.#influence(
      places,
      prepared.map(({ samples }) => samples),
    );
    return prepared.map((one, i) => ({ ...one, influence: influence[i]! }));
  }

  /** A record's queries in the order of `groups`, and its closer localities; `kind` says which are localities. */
  #queries(place: number): { query: RecordQuery; kind?: CloserLocality | 'modalLocality' }[] {
    const { queries, hard } = this.records[place]!;
    // The objective computes the picture's part of both once.
    if (queries.textGenerality.image !== queries.reliability.image)
      throw new Error(`record ${place}: its rephrased prompt is about another picture than its prompt`);
    const closer = (this.options.closer ?? []).flatMap((kind) => {
      const query = hard?.[kind];
      return query === undefined ? [] : [{ query, kind }];
    });
    const usual = groups.map((group) => ({
      query: queries[group] as RecordQuery,
      ...(group === 'modalLocality' ? { kind: group } : {}),
    }));
    return [...usual, ...closer];
  }

  /** c of each record's rel/gen samples, in the order of `groups`. */
  async #influence(places: readonly number[], samples: readonly (readonly Sample[])[]): Promise<Float32Array[][]> {
    const { traced } = this.options;
    if (traced.length === 0)
      return samples.map((own) => own.slice(0, 3).map(({ sequence }) => new Float32Array(visualPlaces(sequence).length)));
    // The pictures come before the prompt, so the rephrased prompt has the edit's own visual states: two samples, not three.
    const pairs = [0, 2].flatMap((group) =>
      places.map((place, n) => ({ place, edit: samples[n]![0]!, sample: samples[n]![group]! })),
    );
    const found = new Array<Float32Array>(pairs.length);
    const keys = pairs.map(({ sample }) => visualPlaces(sample.sequence).join());
    for (const key of new Set(keys)) {
      const rows = keys.flatMap((own, i) => (own === key ? [i] : []));
      const c = await this.#influenceOf(rows.map((i) => pairs[i]!));
      rows.forEach((row, n) => {
        found[row] = c[n]!;
      });
    }
    return places.map((_, n) => [found[n]!, found[n]!, found[places.length + n]!]);
  }

  /** c of samples whose visual tokens stand at the same places. */
  async #influenceOf(pairs: readonly { place: number; edit: Sample; sample: Sample }[]): Promise<Float32Array[]> {
    const { vlm } = this;
    const { layer, traced, draws, sigma } = this.options;
    const d = vlm.decoder.hidden;
    const tokens = visualPlaces(pairs[0]!.sample.sequence);
    const v = tokens.length;
    const noise = new Map(
      traced.map((i): [number, Tensor<'float32'>] => {
        const size = v * draws * d;
        const data = new Float32Array(pairs.length * size);
        const drawn = new Map<number, Float32Array>();
        pairs.forEach(({ place }, n) => {
          const one = drawn.get(place) ?? this.random.fork(`${i}/${place}`).normals(size, sigma);
          drawn.set(place, one);
          data.set(one, n * size);
        });
        return [i, f32(data, [pairs.length, v, draws, d])];
      }),
    );
    const c = await influenceTargets(
      vlm,
      layer,
      traced,
      pairs.map(({ edit }) => edit),
      pairs.map(({ sample }) => sample),
      tokens,
      noise,
    );
    return pairs.map((_, n) => c.slice(n * v, (n + 1) * v));
  }
}
