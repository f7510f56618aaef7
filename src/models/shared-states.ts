/**
 * What questions share. The picture's part of an input never sees the words behind it, and up to the layer after which an editor writes no edit
 * changes anything. So what the words read of a picture, its keys and values in every layer, is computed once for each picture up to that layer and
 * once for each (picture, edit) above it: for all queries, teacher-forced and generating, before and after the edit, and for the edit signal.
 */

import { addDim } from '../graph/dim.ts';
import { f32, i64, type Tensor } from '../graph/dtype.ts';
import { concat, gather, input, mulDim, type Node, reshape } from '../graph/index.ts';
import { causalBlocks } from '../nn/layers.ts';
import { Weights } from '../nn/weights.ts';
import type { Feeds, Program } from '../runtime/program.ts';
import type { KeysAndValues } from './architecture.ts';
import { cacheNames, siteOf } from './cache.ts';
import type { Sequence } from './sequence.ts';
import { Sites } from './sites.ts';
import { type BatchShape, causalBias, type Rewrite, type RgbImage, stack, type Vlm } from './vlm.ts';

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

/** Tensors of one picture by their names in the programs: `past.{i}.key`, `past.{i}.value` [h, P, k], `hidden` [P, d]. */
type States = ReadonlyMap<string, Float32Array>;

/** Under which edit each row of a batch reads its picture, and the rewrite for chosen rows; see `RewriteRows`. */
export interface EditedRows {
  readonly editOf: (row: number) => unknown;
  readonly rewrite: (rows: readonly number[]) => Rewrite | undefined;
}

/** Inputs with pictures that are answered together. */
export interface Asked extends BatchShape {
  readonly images: readonly RgbImage[];
}

/** Keys, values and hidden states of one model, unedited up to one layer. */
export class SharedStates {
  readonly #states = new Map<string, States>();
  #bytes = 0;

  constructor(
    readonly vlm: Vlm,
    readonly layer: number,
  ) {}

  /** Length P of the picture's part of every input. */
  get pictureLength(): number {
    return this.vlm.visualStart + this.vlm.architecture.visualTokens;
  }

  #keep(key: string, states: States): void {
    this.#states.set(key, states);
    this.#bytes += bytesOf(states);
    for (const [oldest, old] of this.#states) {
      if (this.#bytes <= budget || oldest === key) break;
      this.#states.delete(oldest);
      this.#bytes -= bytesOf(old);
    }
  }

  /** States of each key's first row: those kept, and those that `compute` gives for the groups that are missing. */
  async #gather(
    keys: readonly string[],
    { first }: Groups,
    compute: (rows: readonly number[]) => Promise<Record<string, Tensor>>,
  ): Promise<States[]> {
    const found = first.map((row) => this.#states.get(keys[row]!));
    const missing = first.filter((_, g) => found[g] === undefined);
    if (missing.length > 0) {
      const outputs = Object.entries(await compute(missing));
      missing.forEach((row, n) => {
        const states = new Map(
          outputs.map(([name, { data }]) => {
            const size = data.length / missing.length;
            return [name, (data as Float32Array).subarray(n * size, (n + 1) * size)];
          }),
        );
        found[first.indexOf(row)] = states;
        this.#keep(keys[row]!, states);
      });
    }
    return found as States[];
  }

  /** Of every picture's part, unedited: keys and values of the layers up to the shared one, and its output `hidden`. */
  #lower(
    keys: readonly string[],
    groups: Groups,
    sequences: readonly Sequence[],
    images: readonly RgbImage[],
  ): Promise<States[]> {
    const { vlm, layer, pictureLength: P } = this;
    return this.#gather(keys, groups, async (rows) => {
      const visual = await Promise.all(rows.map((row) => vlm.visual(images[row]!)));
      const begin = rows.flatMap((row) => sequences[row]!.ids.slice(0, vlm.visualStart));
      const program = await lowerProgram(vlm, layer);
      const first: Feeds = vlm.visualStart === 0 ? {} : { begin: i64(begin, [rows.length, vlm.visualStart]) };
      return program.run({ ...first, visual: stack(visual), ...pictureFeeds(rows.length, P) });
    });
  }

  /** Feeds `past.{i}` [g, h, P, k] of the groups of rows that read the same picture under the same edit. */
  async #past({ sequences, images }: Asked, edited?: EditedRows): Promise<{ past: Record<string, Tensor>; groups: Groups }> {
    const { vlm, layer, pictureLength: P } = this;
    const pictures = images.map((image) => vlm.imageKey(image));
    const lowerGroups = groupRows(pictures);
    const lower = await this.#lower(pictures, lowerGroups, sequences, images);
    const keys = pictures.map((picture, row) => `${picture}|${editNumber(edited?.editOf(row))}`);
    const groups = groupRows(keys);
    const below = (row: number): States => lower[lowerGroups.of[row]!]!;
    const upper = await this.#gather(keys, groups, async (rows) => {
      const rewrite = edited?.rewrite(rows);
      const program = await upperProgram(vlm, layer, rewrite);
      const d = vlm.decoder.hidden;
      const hidden = stack(rows.map((row) => f32(below(row).get('hidden')!, [P, d])));
      return program.run({ hidden, ...pictureFeeds(rows.length, P), ...rewrite?.feeds });
    });
    const { keyHeads, headWidth, layers } = vlm.decoder;
    const past = cacheNames('past', 0, layers - 1).map((name): [string, Tensor] => {
      const parts = groups.first.map((row, g) => (upper[g]!.get(name) ?? below(row).get(name))!);
      return [name, stack(parts.map((part) => f32(part, [keyHeads, P, headWidth])))];
    });
    return { past: Object.fromEntries(past), groups };
  }

  /** The words behind the pictures of a batch through layers [0, to), from what the pictures left. */
  async #words(
    { sequences, length }: Asked,
    { past, groups }: { past: Record<string, Tensor>; groups: Groups },
    to: number,
    outputs: readonly TextOutput[],
    rows: readonly number[] = [],
  ): Promise<Record<string, Tensor>> {
    const { vlm, pictureLength: P } = this;
    const b = sequences.length;
    const t = length - P;
    const program = await textProgram(vlm, P, to, outputs);
    const chosen = rows.map((row) => row - (Math.floor(row / length) + 1) * P);
    return program.run({
      ...past,
      ids: i64(
        sequences.flatMap(({ ids }) => Array.from({ length: t }, (_, i) => ids[P + i] ?? 0)),
        [b, t],
      ),
      positions: i64(
        sequences.flatMap(() => Array.from({ length: t }, (_, i) => P + i)),
        [b, t],
      ),
      bias: textBias(t, P),
      pictureOf: i64(groups.of, [b]),
      ...(outputs.includes('logits') ? { rows: i64(chosen, [rows.length]) } : {}),
    });
  }

  /** h[layer] of inputs with pictures, unedited: [length × d] each, in the order of the inputs. */
  async hidden(asked: Asked): Promise<Float32Array[]> {
    const { sequences, length, images } = asked;
    const { vlm, layer, pictureLength: P } = this;
    const d = vlm.decoder.hidden;
    const keys = images.map((image) => vlm.imageKey(image));
    const groups = groupRows(keys);
    const lower = await this.#lower(keys, groups, sequences, images);
    const { keyHeads, headWidth } = vlm.decoder;
    const past = cacheNames('past', 0, layer).map((name): [string, Tensor] => [
      name,
      stack(lower.map((states) => f32(states.get(name)!, [keyHeads, P, headWidth]))),
    ]);
    const words = await this.#words(asked, { past: Object.fromEntries(past), groups }, layer + 1, ['hidden']);
    const t = length - P;
    return sequences.map(({ ids }, n) => {
      const whole = new Float32Array(ids.length * d);
      whole.set(lower[groups.of[n]!]!.get('hidden')!);
      whole.set((words.hidden!.data as Float32Array).subarray(n * t * d, (n * t + ids.length - P) * d), P * d);
      return whole;
    });
  }

  /** Logits [r, n] at flat rows of a batch with pictures; the rows come after the pictures. */
  async logits(asked: Asked, rows: readonly number[], edited?: EditedRows): Promise<Tensor<'float32'>> {
    const past = await this.#past(asked, edited);
    const { layers } = this.vlm.decoder;
    return (await this.#words(asked, past, layers, ['logits'], rows)).logits as Tensor<'float32'>;
  }

  /** Logits [r, n] as `logits`, and the keys and values `past.{i}` [b, h, l, k] of all tokens, to generate from. */
  async readPrompt(
    asked: Asked,
    rows: readonly number[],
    edited?: EditedRows,
  ): Promise<{ logits: Tensor<'float32'>; cache: Record<string, Tensor> }> {
    const past = await this.#past(asked, edited);
    const { logits, ...cache } = await this.#words(asked, past, this.vlm.decoder.layers, ['logits', 'past'], rows);
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

const bytesOf = (states: States): number => [...states.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);

const editNumbers = new WeakMap<object, number>();
let nextEdit = 1;
/** A number for every edit, by identity; 0 for none. */
function editNumber(edit: unknown): number {
  if (typeof edit !== 'object' || edit === null) return 0;
  let number = editNumbers.get(edit);
  if (number === undefined) {
    number = nextEdit++;
    editNumbers.set(edit, number);
  }
  return number;
}

/** Keys and values of layers [from, to], as their sites hold them. */
const pastOf = (sites: Sites, from: number, to: number): Record<string, Node> =>
  Object.fromEntries(cacheNames('past', from, to).map((name) => [name, sites.get(siteOf(name))]));

/** Positions and causal bias of the picture's part of some inputs. */
const pictureFeeds = (count: number, length: number): Record<string, Tensor> => ({
  positions: i64(
    Array.from({ length: count * length }, (_, i) => i % length),
    [count, length],
  ),
  bias: causalBias(1, length),
});

/** Bias [1, 1, t, P + t] of words that see the whole picture and the words before them. */
function textBias(t: number, P: number): Tensor<'float32'> {
  const causal = causalBias(1, t).data;
  const out = new Float32Array(t * (P + t));
  for (let i = 0; i < t; i++) out.set(causal.subarray(i * t, (i + 1) * t), i * (P + t) + P);
  return f32(out, [1, 1, t, P + t]);
}

function pictureContext(length: number): { positions: Node; bias: Node; blocks: number[] } {
  return {
    positions: input('positions', ['p', length], 'int64'),
    bias: input('bias', [1, 1, length, length]),
    blocks: causalBlocks(length),
  };
}

/** Inputs: begin [p, tokens before the picture], visual [p, v, d], positions, bias; outputs: `hidden` [p, P, d], `past.{i}` up to the layer. */
function lowerProgram(vlm: Vlm, layer: number): Promise<Program> {
  return vlm.program(`picture up to|${layer}`, () => {
    const { decoder, visualTokens: v } = vlm.architecture;
    const start = vlm.visualStart;
    const weights = new Weights();
    const sites = new Sites();
    const context = { weights, sites, ...pictureContext(start + v) };
    const visual = input('visual', ['p', v, decoder.hidden]);
    const embeddings = start === 0 ? visual : concat([decoder.embed(input('begin', ['p', start], 'int64'), weights), visual], 1);
    let x = decoder.enter(embeddings, context.positions, weights);
    for (let i = 0; i <= layer; i++) x = decoder.layer(i, x, context);
    return { hidden: x, ...pastOf(sites, 0, layer) };
  });
}

/** Inputs: hidden [p, P, d] at the layer, positions, bias; outputs: `past.{i}` above it, as a rewrite at the layer makes them. */
function upperProgram(vlm: Vlm, layer: number, rewrite?: Rewrite): Promise<Program> {
  return vlm.program(`picture above|${layer}|${rewrite?.key ?? ''}`, () => {
    const { decoder } = vlm.architecture;
    const P = vlm.visualStart + vlm.architecture.visualTokens;
    const sites = new Sites();
    const context = { weights: new Weights(), sites, ...pictureContext(P) };
    const patch = rewrite?.patches(true).get(`layers.${layer}.out`);
    const hidden = input('hidden', ['p', P, decoder.hidden]);
    let x = patch === undefined ? hidden : patch(hidden);
    for (let i = layer + 1; i < decoder.layers; i++) x = decoder.layer(i, x, context);
    return pastOf(sites, layer + 1, decoder.layers - 1);
  });
}

/** `logits` [r, n] at the input `rows`, `hidden` [b, t, d] of the last layer that runs, `past`: keys and values of picture and words. */
type TextOutput = 'logits' | 'hidden' | 'past';

/** Inputs: ids, positions [b, t], bias [1, 1, t, P + t], `past.{i}` [p, h, P, k] of the pictures, pictureOf [b]. */
function textProgram(vlm: Vlm, P: number, to: number, outputs: readonly TextOutput[]): Promise<Program> {
  return vlm.program(`words behind pictures|${to}|${outputs.join()}`, () => {
    const { decoder } = vlm.architecture;
    const { keyHeads: h, headWidth: k } = decoder;
    const weights = new Weights();
    const sites = new Sites();
    const positions = input('positions', ['b', 't'], 'int64');
    const bias = input('bias', [1, 1, 't', addDim('t', P)]);
    const pictureOf = input('pictureOf', ['b'], 'int64');
    const of = (i: number, part: string): Node => gather(input(`past.${i}.${part}`, ['p', h, P, k]), pictureOf);
    const pictures = Array.from({ length: to }, (_, i) => ({ key: of(i, 'key'), value: of(i, 'value') }));
    const past = (i: number): KeysAndValues[] => [pictures[i]!];
    let x = decoder.enter(decoder.embed(input('ids', ['b', 't'], 'int64'), weights), positions, weights);
    for (let i = 0; i < to; i++) x = decoder.layer(i, x, { weights, sites, positions, bias, past });
    const result: Record<string, Node> = {};
    if (outputs.includes('past'))
      pictures.forEach((picture, i) => {
        for (const part of ['key', 'value'] as const)
          result[`past.${i}.${part}`] = concat([picture[part], sites.get(`layers.${i}.attn.${part}`)], 2);
      });
    if (outputs.includes('hidden')) result.hidden = x;
    if (outputs.includes('logits'))
      result.logits = decoder.head(
        gather(reshape(x, [mulDim('b', 't'), decoder.hidden]), input('rows', ['r'], 'int64')),
        weights,
      );
    return result;
  });
}
