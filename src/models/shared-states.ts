/**
 * What questions share. The picture's part of an input never sees the words behind it, and up to the layer after which an editor writes no edit
 * changes anything. So what the words read of a picture, its keys and values in every layer, is computed once for each picture up to that layer and
 * once for each (picture, edit) above it: for all queries, teacher-forced and generating, before and after the edit, and for the edit signal.
 */

import { f32, i64, type Tensor } from '../graph/dtype.ts';
import { Recent } from '../recent.ts';
import type { Feeds, Program } from '../runtime/program.ts';
import { type BatchShape, batchShape, idFeeds, positionFeeds, sightFeeds, spanFeeds, stack } from './batch.ts';
import { cacheNames, type Plan } from './forward.ts';
import { identityOf } from './identity.ts';
import type { Rewrite } from './rewrite.ts';
import { prefixOf, type Sequence } from './sequence.ts';
import { type Vlm, visualFeeds } from './vlm.ts';

/** Bytes of states kept; the oldest go first. */
const budget = 512e6;

/** Runs of rows with equal keys: one row of each, and the place of every row's key among them. */
export interface Groups {
  readonly first: readonly number[];
  readonly of: readonly number[];
}

export function groupRows(keys: readonly unknown[]): Groups {
  const places = new Map<unknown, number>();
  const first: number[] = [];
  const of = keys.map((key, row) => {
    let place = places.get(key);
    if (place === undefined) {
      place = first.push(row) - 1;
      places.set(key, place);
    }
    return place;
  });
  return { first, of };
}

/**
 * Tensors of one input's part up to the end of its pictures, by their names in the programs: `past.{i}.key`, `past.{i}.value` [h, P, k], `hidden` [P, d].
 */
type States = ReadonlyMap<string, Float32Array>;

/** Under which edit each row of a batch reads its picture, and the rewrite for chosen rows; see `RewriteRows`. */
export interface EditedRows {
  readonly editOf: (row: number) => unknown;
  readonly rewrite: (rows: readonly number[]) => Rewrite | undefined;
}

/** Keys, values and hidden states of one model, unedited up to one layer. */
export class SharedStates {
  readonly #states = new Recent<States>(budget, (states) =>
    [...states.values()].reduce((sum, { byteLength }) => sum + byteLength, 0),
  );

  constructor(
    readonly vlm: Vlm,
    readonly layer: number,
  ) {}

  /** States of each key's first row: those kept, and those that `compute` gives for the groups that are missing. */
  async #gather(
    keys: readonly string[],
    { first }: Groups,
    compute: (rows: readonly number[]) => Promise<readonly States[]>,
  ): Promise<States[]> {
    const found = first.map((row) => this.#states.get(keys[row]!));
    const missing = first.filter((_, g) => found[g] === undefined);
    if (missing.length > 0) {
      const computed = await compute(missing);
      missing.forEach((row, n) => {
        found[first.indexOf(row)] = computed[n]!;
        this.#states.put(keys[row]!, computed[n]!);
      });
    }
    return found as States[];
  }

  /** Of every input's part up to the end of its pictures, unedited: keys and values of the layers up to the shared one, and its output `hidden`. */
  #lower(keys: readonly string[], groups: Groups, sequences: readonly Sequence[]): Promise<States[]> {
    const { vlm, layer } = this;
    return this.#gather(keys, groups, async (rows) => {
      const shape = batchShape(rows.map((row) => prefixes(sequences[row]!)));
      const program = await vlm.planned(lowerPlan(vlm, layer, shape.prefix));
      const feeds = {
        ids: idFeeds(shape),
        ...partFeeds(vlm, shape),
        ...spanFeeds(shape.sequences, shape.length),
        ...(await visualFeeds(vlm.decoder, shape)),
      };
      return this.#split(shape, await program.run(feeds));
    });
  }

  /** What a program gave for each input, without padding. */
  #split(shape: BatchShape, outputs: Record<string, Tensor>): States[] {
    const { keyHeads: h, headWidth: k, hidden: d } = this.vlm.decoder;
    return shape.sequences.map(({ ids }, n) => {
      const own = Object.entries(outputs).map(([name, t]): [string, Float32Array] => {
        const data = t.data as Float32Array;
        const past = name.startsWith('past.');
        const [parts, width] = past ? [h, k] : [1, d];
        const size = shape.length * width;
        const out = new Float32Array(parts * ids.length * width);
        for (let part = 0; part < parts; part++) {
          const at = (n * parts + part) * size;
          out.set(data.subarray(at, at + ids.length * width), part * ids.length * width);
        }
        return [past ? name : 'hidden', out];
      });
      return new Map(own);
    });
  }

  /** States [P', width] of an input as [parts, P, width], padded to the longest of a batch. */
  #padded(data: Float32Array, own: number, prefix: number, parts: number, width: number): Tensor<'float32'> {
    if (own === prefix) return f32(data, [parts, prefix, width]);
    const out = new Float32Array(parts * prefix * width);
    for (let part = 0; part < parts; part++)
      out.set(data.subarray(part * own * width, (part + 1) * own * width), part * prefix * width);
    return f32(out, [parts, prefix, width]);
  }

  /** Keys and values of chosen groups, padded to the prefix of their batch: `past.{i}` [g, h, P, k]. */
  #pastFeeds(
    names: readonly string[],
    groups: Groups,
    shape: BatchShape,
    of: (group: number, name: string) => Float32Array,
  ): Record<string, Tensor> {
    const { keyHeads: h, headWidth: k } = this.vlm.decoder;
    const own = groups.first.map((row) => prefixOf(shape.sequences[row]!));
    return Object.fromEntries(
      names.map((name) => [name, stack(groups.first.map((_, g) => this.#padded(of(g, name), own[g]!, shape.prefix, h, k)))]),
    );
  }

  /** Feeds `past.{i}` of the groups of rows that read the same pictures under the same edit. */
  async #past(shape: BatchShape, edited?: EditedRows): Promise<{ past: Record<string, Tensor>; groups: Groups }> {
    const { vlm, layer } = this;
    const { sequences } = shape;
    const pictures = sequences.map(prefixKey);
    const lowerGroups = groupRows(pictures);
    const lower = await this.#lower(pictures, lowerGroups, sequences);
    const keys = pictures.map((picture, row) => `${picture}|${editNumber(edited?.editOf(row))}`);
    const groups = groupRows(keys);
    const below = (row: number): States => lower[lowerGroups.of[row]!]!;
    const d = vlm.decoder.hidden;
    const upper = await this.#gather(keys, groups, async (rows) => {
      const rewrite = edited?.rewrite(rows);
      const part = batchShape(rows.map((row) => prefixes(sequences[row]!)));
      const program = await vlm.planned(upperPlan(vlm, layer, part.prefix), rewrite);
      const hidden = stack(
        rows.map((row) => {
          const padded = this.#padded(below(row).get('hidden')!, prefixOf(sequences[row]!), part.prefix, 1, d);
          return f32(padded.data, [part.prefix, d]);
        }),
      );
      const feeds = {
        ...(await visualFeeds(vlm.decoder, part)),
        ...{ hidden, ...partFeeds(vlm, part), ...spanFeeds(part.sequences, part.length), ...rewrite?.feeds },
      };
      return this.#split(part, await program.run(feeds));
    });
    const names = cacheNames('past', 0, vlm.decoder.layers - 1);
    const past = this.#pastFeeds(names, groups, shape, (g, name) => (upper[g]!.get(name) ?? below(groups.first[g]!).get(name))!);
    return { past, groups };
  }

  /** The words behind the pictures of a batch through layers [0, to), from what the pictures left. */
  async #words(
    shape: BatchShape,
    { past, groups }: { past: Record<string, Tensor>; groups: Groups },
    to: number,
    read: readonly string[],
    rows: readonly number[] = [],
  ): Promise<Record<string, Tensor>> {
    const { vlm } = this;
    const { sequences, prefix, length } = shape;
    const program = await textProgram(vlm, prefix, to, read);
    const chosen = rows.map((row) => row - (Math.floor(row / length) + 1) * prefix);
    return program.run({
      ...past,
      ids: idFeeds(shape, 'text'),
      positions: positionFeeds(shape, vlm.decoder.positionAxes, 'text'),
      ...sightFeeds(vlm.decoder, shape, 'text'),
      rowOf: i64(groups.of, [sequences.length]),
      ...(read.includes('logits') ? { rows: i64(chosen, [rows.length]) } : {}),
    });
  }

  /** h[layer] of inputs with pictures, unedited: [length × d] each, in the order of the inputs. */
  async hidden(shape: BatchShape): Promise<Float32Array[]> {
    const { vlm, layer } = this;
    const { sequences, prefix, length } = shape;
    const d = vlm.decoder.hidden;
    const keys = sequences.map(prefixKey);
    const groups = groupRows(keys);
    const lower = await this.#lower(keys, groups, sequences);
    const past = this.#pastFeeds(cacheNames('past', 0, layer), groups, shape, (g, name) => lower[g]!.get(name)!);
    const site = `layers.${layer}.out`;
    const words = await this.#words(shape, { past, groups }, layer + 1, [site]);
    const t = length - prefix;
    return sequences.map((sequence, n) => {
      const whole = new Float32Array(sequence.ids.length * d);
      const own = prefixOf(sequence);
      whole.set(lower[groups.of[n]!]!.get('hidden')!);
      const at = n * t * d;
      whole.set((words[site]!.data as Float32Array).subarray(at, at + (sequence.ids.length - own) * d), own * d);
      return whole;
    });
  }

  /** Logits [r, n] at flat rows of a batch with pictures; the rows come after the pictures. */
  async logits(shape: BatchShape, rows: readonly number[], edited?: EditedRows): Promise<Tensor<'float32'>> {
    const past = await this.#past(shape, edited);
    return (await this.#words(shape, past, this.vlm.decoder.layers, ['logits'], rows)).logits as Tensor<'float32'>;
  }

  /** Logits [r, n] as `logits`, and the keys and values `past.{i}` [b, h, l, k] of all tokens, to generate from. */
  async readPrompt(
    shape: BatchShape,
    rows: readonly number[],
    edited?: EditedRows,
  ): Promise<{ logits: Tensor<'float32'>; cache: Record<string, Tensor> }> {
    const past = await this.#past(shape, edited);
    const { layers } = this.vlm.decoder;
    const read = ['logits', ...cacheNames('past', 0, layers - 1)];
    const { logits, ...cache } = await this.#words(shape, past, layers, read, rows);
    return { logits: logits as Tensor<'float32'>, cache };
  }
}

/** The states of a model at a layer; undefined where the model runs layer by layer and keeps no more than it must. */
export function sharedStates(vlm: Vlm, layer: number): SharedStates | undefined {
  if (vlm.layered !== undefined) return undefined;
  let states = vlm.states.get(layer);
  if (states === undefined) {
    states = new SharedStates(vlm, layer);
    vlm.states.set(layer, states);
  }
  return states;
}

/** A number for every edit, by identity; 0 for none. */
const editNumber = (edit: unknown): number => (typeof edit === 'object' && edit !== null ? identityOf(edit) : 0);

/** An input up to the end of its last picture. */
function prefixes(sequence: Sequence): Sequence {
  const end = prefixOf(sequence);
  const { positions } = sequence;
  return {
    ...sequence,
    ids: sequence.ids.slice(0, end),
    ...(positions === undefined ? {} : { positions: positions.map((axis) => axis.slice(0, end)) }),
  };
}

/** Equal for inputs that are the same up to the end of their last picture. */
export function prefixKey(sequence: Sequence): string {
  const { ids, pictures } = sequence;
  return `${pictures.map(({ key }) => key).join()}|${ids.slice(0, prefixOf(sequence)).join()}`;
}

/** Positions of inputs that end with their pictures, and what they see. */
const partFeeds = (vlm: Vlm, shape: BatchShape): Feeds => ({
  positions: positionFeeds(shape, vlm.decoder.positionAxes),
  ...sightFeeds(vlm.decoder, shape),
});

/** Inputs up to the end of their pictures through layers [0, layer]: what they leave there, and keys and values. */
const lowerPlan = (vlm: Vlm, layer: number, prefix: number): Plan => ({
  ...{ from: 0, to: layer + 1, image: true, length: vlm.prefixDim(prefix) },
  read: [`layers.${layer}.out`, ...cacheNames('past', 0, layer)],
});

/** The same above the layer, as a rewrite at the layer makes it. */
const upperPlan = (vlm: Vlm, layer: number, prefix: number): Plan => ({
  ...{ from: layer + 1, to: vlm.decoder.layers, image: true, length: vlm.prefixDim(prefix) },
  read: cacheNames('past', layer + 1, vlm.decoder.layers - 1),
});

/** The words behind the pictures, of which rows may share one. */
function textProgram(vlm: Vlm, prefix: number, to: number, read: readonly string[]): Promise<Program> {
  const cache = [{ name: 'past', length: vlm.prefixDim(prefix), rows: 'p' }] as const;
  return vlm.planned({ from: 0, to, image: false, length: 't', cache, read, rows: read.includes('logits') });
}
