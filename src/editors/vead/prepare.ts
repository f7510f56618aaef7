/**
 * What training needs of a record and never changes: hidden states at the insert layer of its four samples, the unedited answers of the
 * locality sample, and the influence mapper's targets. Computed once per record and kept within a budget of memory.
 */

import { visibleUpTo } from '../../attribution/visual-attribution.ts';
import { f32, i64, type Tensor } from '../../graph/dtype.ts';
import type { EditRecord, Query } from '../../input/records.ts';
import type { Batch, Vlm } from '../../models/vlm.ts';
import type { Random } from '../../random.ts';
import { picturesOf } from '../context/pictures.ts';
import { answersAbove, padHidden, type Sample, statesBelow } from '../context/states.ts';
import { Kept } from '../context/training.ts';
import { influenceTargetProgram } from './influence-target.ts';
import { groups } from './objective.ts';

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

function bytesOf(prepared: Prepared): number {
  const closer = Object.values(prepared.closer);
  return [
    ...[prepared, ...closer].map(({ before }) => before),
    ...prepared.influence,
    ...[...prepared.samples, ...closer.map(({ sample }) => sample)].map(({ hidden }) => hidden),
  ].reduce((sum, a) => sum + a.byteLength, 0);
}

export class Preparer {
  readonly #kept: Kept<Prepared>;

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

  /** Prepared records by their place in the list. */
  async get(indices: readonly number[]): Promise<Prepared[]> {
    const out: Prepared[] = [];
    for (const i of indices) out.push(await this.#kept.get(i));
    return out;
  }

  async #prepare(places: readonly number[]): Promise<Prepared[]> {
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
      local.map((n) => flat[n]!.query),
      local.map((n) => all[n]!),
      above,
      tokens,
    );
    const before = new Map(local.map((n, i) => [n, logits[i]!]));
    let at = 0;
    const prepared = asked.map((queries): Omit<Prepared, 'influence'> => {
      const first = at;
      at += queries.length;
      const closer: Prepared['closer'] = {};
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
  #queries(place: number): { query: Query; kind?: CloserLocality | 'modalLocality' }[] {
    const { queries, hard } = this.records[place]!;
    // The objective computes the picture's part of both once.
    if (queries.textGenerality.image !== queries.reliability.image)
      throw new Error(`record ${place}: its rephrased prompt is about another picture than its prompt`);
    const closer = (this.options.closer ?? []).flatMap((kind) => {
      const query = hard?.[kind];
      return query === undefined ? [] : [{ query, kind }];
    });
    const usual = groups.map((group) => ({
      query: queries[group] as Query,
      ...(group === 'modalLocality' ? { kind: group } : {}),
    }));
    return [...usual, ...closer];
  }

  /** c of each record's rel/gen samples, in the order of `groups`. */
  async #influence(places: readonly number[], samples: readonly (readonly Sample[])[]): Promise<Float32Array[][]> {
    const { vlm } = this;
    const { layer, traced, draws, sigma } = this.options;
    const { visualTokens: v, decoder } = vlm.architecture;
    if (traced.length === 0) return places.map(() => [0, 1, 2].map(() => new Float32Array(v)));
    const d = decoder.hidden;
    const e = places.length;
    // Visual tokens come before the prompt, so the rephrased prompt has the edit's own visual states: two samples, not three.
    const noise = new Map(
      traced.map((i): [number, Tensor<'float32'>] => {
        const size = v * draws * d;
        const data = new Float32Array(2 * e * size);
        places.forEach((place, n) => {
          const one = this.random.fork(`${i}/${place}`).normals(size, sigma);
          data.set(one, n * size);
          data.set(one, (e + n) * size);
        });
        return [i, f32(data, [2 * e, v, draws, d])];
      }),
    );
    const edits = samples.map(([edit]) => edit!);
    const modals = samples.map(([, , modal]) => modal!);
    const tokens = Array.from({ length: v }, (_, i) => vlm.visualStart + i);
    const c = await influenceTargets(vlm, layer, traced, [...edits, ...edits], [...edits, ...modals], tokens, noise);
    return places.map((_, n) => {
      const own = c.slice(n * v, (n + 1) * v);
      return [own, own, c.slice((e + n) * v, (e + n + 1) * v)];
    });
  }
}
