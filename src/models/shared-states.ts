/**
 * What questions share. Up to the layer after which an editor writes, no edit changes anything, and the picture's part of an input never sees the
 * words behind it: so hidden states at that layer are computed once for every picture and once for every (picture, words), for all queries, before
 * and after the edit, and for the edit signal; above it, queries with one picture under one edit share the picture's part.
 */

import { subDim } from '../graph/dim.ts';
import { i64, type Tensor } from '../graph/dtype.ts';
import { concat, f32, gather, input, mulDim, type Node, pad, reshape, slice } from '../graph/index.ts';
import { Weights } from '../nn/weights.ts';
import type { Program } from '../runtime/program.ts';
import type { Sequence } from './sequence.ts';
import { Sites } from './sites.ts';
import { type SplitContext, type SplitStates, splitLayer } from './split.ts';
import { type Batch, type Rewrite, type RgbImage, stack, type Vlm } from './vlm.ts';

/** Bytes of states kept; the oldest go first. */
const budget = 512e6;

/** Runs of rows that read the same picture under the same edit: one row of each, and the place of every row's picture among them. */
export interface PictureGroups {
  readonly first: readonly number[];
  readonly of: readonly number[];
}

export function groupRows(keys: readonly unknown[]): PictureGroups {
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

/** Hidden states of one model at the output of one layer. */
export class SharedStates {
  readonly #states = new Map<string, Float32Array>();
  #bytes = 0;

  constructor(
    readonly vlm: Vlm,
    readonly layer: number,
  ) {}

  /** Length of the picture's part of every input. */
  get pictureLength(): number {
    return this.vlm.visualStart + this.vlm.architecture.visualTokens;
  }

  #keep(key: string, states: Float32Array): void {
    this.#states.set(key, states);
    this.#bytes += states.byteLength;
    for (const [oldest, { byteLength }] of this.#states) {
      if (this.#bytes <= budget || oldest === key) break;
      this.#states.delete(oldest);
      this.#bytes -= byteLength;
    }
  }

  /**
   * h[layer] of inputs with pictures: of each picture's part [P × d] and of each input's words [(length − P) × d], in the order of the inputs.
   */
  async of(
    sequences: readonly Sequence[],
    images: readonly RgbImage[],
  ): Promise<{ picture: Float32Array[]; text: Float32Array[] }> {
    const { vlm, layer } = this;
    const d = vlm.decoder.hidden;
    const P = this.pictureLength;
    const pictureKeys = images.map((image) => vlm.imageKey(image));
    const textKeys = sequences.map(({ ids }, i) => `${pictureKeys[i]}|${ids.join()}`);
    const picture = pictureKeys.map((key) => this.#states.get(key));
    const text = textKeys.map((key) => this.#states.get(key));
    const missing = groupRows(textKeys).first.filter((i) => text[i] === undefined || picture[i] === undefined);
    if (missing.length > 0) {
      const groups = groupRows(missing.map((i) => pictureKeys[i]));
      const visual = await Promise.all(groups.first.map((i) => vlm.visual(images[missing[i]!]!)));
      const some = missing.map((i) => sequences[i]!);
      const batch = vlm.batchVisual(
        some,
        groups.of.map((g) => visual[g]!),
      );
      const program = await lowerProgram(vlm, layer);
      const out = await program.run({ ...batch.feeds, visual: stack(visual), pictureOf: i64(groups.of, [groups.of.length]) });
      const pictures = out.picture!.data as Float32Array;
      const words = out.text!.data as Float32Array;
      groups.first.forEach((i, g) => {
        this.#keep(pictureKeys[missing[i]!]!, pictures.slice(g * P * d, (g + 1) * P * d));
      });
      missing.forEach((i, n) => {
        const start = n * (batch.length - P) * d;
        this.#keep(textKeys[i]!, words.slice(start, start + (sequences[i]!.ids.length - P) * d));
      });
    }
    return {
      picture: pictureKeys.map((key, i) => picture[i] ?? this.#states.get(key)!),
      text: textKeys.map((key, i) => text[i] ?? this.#states.get(key)!),
    };
  }

  /** Logits [r, n] at flat rows of a batch, from the shared states; the rewrite's rows are those of `groups.first`. */
  async logits(
    batch: Batch,
    images: readonly RgbImage[],
    groups: PictureGroups,
    rows: readonly number[],
    rewrite?: Rewrite,
  ): Promise<Tensor<'float32'>> {
    const { vlm, layer } = this;
    const d = vlm.decoder.hidden;
    const P = this.pictureLength;
    const states = await this.of(batch.sequences, images);
    const text = new Float32Array(batch.sequences.length * (batch.length - P) * d);
    states.text.forEach((words, n) => {
      text.set(words, n * (batch.length - P) * d);
    });
    const program = await upperProgram(vlm, layer, rewrite);
    const { positions, bias } = batch.feeds;
    const out = await program.run({
      positions: positions!,
      bias: bias!,
      picture: stack(groups.first.map((i) => f32(states.picture[i]!, [P, d]))),
      text: f32(text, [batch.sequences.length, batch.length - P, d]),
      pictureOf: i64(groups.of, [groups.of.length]),
      rows: i64(rows, [rows.length]),
      ...rewrite?.feeds,
    });
    return out.logits as Tensor<'float32'>;
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

function context(weights: Weights, length: number): SplitContext {
  const pictureOf = input('pictureOf', ['b'], 'int64');
  return {
    weights,
    sites: new Sites(),
    positions: input('positions', ['b', 'l'], 'int64'),
    bias: input('bias', ['b', 1, 'l', 'l']),
    length,
    spread: (x) => gather(x, pictureOf),
  };
}

/** Inputs: visual [p, v, d], ids, positions [b, l], bias, pictureOf [b]; outputs: picture [p, P, d] and text [b, l − P, d] at the layer. */
function lowerProgram(vlm: Vlm, layer: number): Promise<Program> {
  return vlm.program(`shared states|${layer}`, () => {
    const { decoder, visualTokens: v } = vlm.architecture;
    const d = decoder.hidden;
    const start = vlm.visualStart;
    const weights = new Weights();
    const shared = context(weights, start + v);
    const words = decoder.embed(input('ids', ['b', 'l'], 'int64'), weights);
    const visual = input('visual', ['p', v, d]);
    const begin = start === 0 ? [] : [slice(slice(words, 0, 0, 'p'), 1, 0, start)];
    const parts: SplitStates = {
      picture: begin.length === 0 ? visual : concat([...begin, visual], 1),
      text: slice(words, 1, start + v, 'l'),
    };
    // Positions enter each part at its own place.
    const { positions } = shared;
    let x: SplitStates = {
      picture: decoder.enter(parts.picture, slice(slice(positions, 0, 0, 'p'), 1, 0, start + v), weights),
      text: decoder.enter(parts.text, slice(positions, 1, start + v, 'l'), weights),
    };
    for (let i = 0; i <= layer; i++) x = splitLayer(decoder, i, x, { ...shared, sites: new Sites() });
    return { picture: x.picture, text: x.text };
  });
}

/** Inputs: picture [p, P, d] and text [b, l − P, d] at the layer, positions, bias, pictureOf, rows [r]; output: logits [r, n]. */
function upperProgram(vlm: Vlm, layer: number, rewrite?: Rewrite): Promise<Program> {
  return vlm.program(`above shared states|${layer}|${rewrite?.key ?? ''}`, () => {
    const { decoder, visualTokens: v } = vlm.architecture;
    const d = decoder.hidden;
    const P = vlm.visualStart + v;
    const weights = new Weights();
    const shared = context(weights, P);
    const text: Node = input('text', ['b', subDim('l', P), d]);
    const patch = rewrite?.patches(true).get(`layers.${layer}.out`);
    const picture = input('picture', ['p', P, d]);
    let x: SplitStates = { picture: patch === undefined ? picture : patch(picture), text };
    for (let i = layer + 1; i < decoder.layers; i++) x = splitLayer(decoder, i, x, { ...shared, sites: new Sites() });
    const flat = reshape(pad(x.text, 1, P, 0), [mulDim('b', 'l'), d]);
    return { logits: decoder.head(gather(flat, input('rows', ['r'], 'int64')), weights) };
  });
}
