/** What every tool that explains an answer is given, and what it gives: the same for the command line, the server and the library. */

import type { z } from 'zod';
import type { FigurePanel } from '../../figures/drawings.ts';
import type { Asked, RgbImage } from '../../input/segments.ts';
import type { Reading } from '../../models/answer.ts';
import { chainRewrites, type Rewrite } from '../../models/rewrite.ts';
import { type Sequence, visualPlaces } from '../../models/sequence.ts';
import { layerSight, sightNote } from '../../models/sight.ts';
import type { Vlm } from '../../models/vlm.ts';
import { tokenText } from '../key-token.ts';
import { nextToken } from '../next-token.ts';

/** A question, as far as it is answered, to a model under edits or without. */
export interface Subject {
  readonly vlm: Vlm;
  readonly asked: Asked;
  readonly reading: Reading;
  /** the explained token; absent: the one that the model says next */
  readonly keyId?: number | undefined;
  /** reads another question under the same edits, with the same tokens of the answer behind it */
  read(asked: Asked): Promise<Reading>;
}

/** The other input of a tool that compares two. */
export interface Against {
  readonly image?: RgbImage | undefined;
  readonly prompt?: string | undefined;
}

/** How a tool is run. */
export interface ToolRun {
  readonly against?: Against | undefined;
  /** rows of the matrix must be the same for all records of a data set */
  readonly averaged?: boolean;
  readonly seed?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** Numbers of rows and columns with names. */
export interface Matrix {
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  /** null: there is no such value */
  readonly values: readonly (readonly (number | null)[])[];
  /** a mean over a data set has only so many rows, those with the largest values in the first column */
  readonly most?: number;
  /** what a value is, with its unit */
  readonly what: string;
}

/** A table for a person. */
export interface Shown {
  readonly head: readonly string[];
  readonly rows: readonly (readonly (string | number | null)[])[];
}

/** What a tool found. */
export interface Found {
  readonly key: { readonly id: number; readonly text: string; readonly probability: number };
  /** what was found, in sentences */
  readonly said: readonly string[];
  readonly table: Shown;
  /** what a data set averages */
  readonly matrix?: Matrix;
  /** the numbers, as plain data */
  readonly data: Readonly<Record<string, unknown>>;
  readonly panels: readonly FigurePanel[];
}

/** A tool. */
export interface Tool<S extends z.ZodObject = z.ZodObject> {
  readonly id: string;
  readonly summary: string;
  readonly details: string;
  readonly options: S;
  /** whether it must, or may, be given a second picture or prompt to compare with */
  readonly compares?: 'must' | 'may';
  /** whether it tells places of the input apart, so that it matters which of them see each other */
  readonly ofPlaces?: boolean;
  /** whether it needs a picture */
  readonly picture?: boolean;
  run(subject: Subject, options: z.output<S>, run: ToolRun): Promise<Found>;
}

/** Declares a tool; the types of its options follow from their schema. Where tokens see otherwise than causally, what it finds of places says so. */
export const defineTool = <S extends z.ZodObject>(tool: Tool<S>): Tool<S> => ({
  ...tool,
  async run(subject, options, run) {
    const found = await tool.run(subject, options, run);
    const { decoder } = subject.vlm;
    const layers = Array.from({ length: decoder.layers }, (_, i) => i);
    const note = tool.ofPlaces === true ? sightNote(decoder, layers) : undefined;
    if (note === undefined) return found;
    const sees = layers.map((layer) => ({ layer, ...(layerSight(decoder, layer) ?? { window: null, bothDirections: false }) }));
    return { ...found, said: [...found.said, note], data: { ...found.data, sees } };
  },
});

/** The explained token and its probability. */
export async function keyOf({ vlm, reading, keyId }: Subject): Promise<Found['key']> {
  const next = await nextToken(vlm, reading.batch, reading.rewrite);
  const id = keyId ?? next.predicted;
  return { id, text: tokenText(vlm, id), probability: next.probability(id) };
}

/** The position that the token is read from. */
export const endOf = ({ batch }: Reading): number => batch.sequences[0]!.promptEnd;

/** A rewrite after the edits of a reading. */
export const under = ({ rewrite }: Reading, own: Rewrite): Rewrite =>
  rewrite === undefined ? own : chainRewrites([rewrite, own]);

/** Positions of an input with a name: a word of the text, or the visual tokens of a picture. */
export interface Part {
  readonly name: string;
  readonly places: readonly number[];
  readonly kind: 'word' | 'picture';
}

/**
 * Words and pictures of an input, in their order. Tokens that begin a text or stand for nothing that was written are no words.
 * @param seen tokens up to this position
 */
export function partsOf(vlm: Vlm, sequence: Sequence, seen = sequence.promptEnd): Part[] {
  const parts: { name: string; places: number[]; kind: Part['kind'] }[] = [];
  const pictureAt = new Map<number, number>();
  sequence.spans.forEach((runs, n) => {
    for (const [start, end] of runs) for (let i = start; i < end; i++) pictureAt.set(i, n);
  });
  const several = sequence.pictures.length > 1;
  const ofPicture = sequence.pictures.map((_, n) => ({
    name: several ? `picture ${n + 1}` : 'picture',
    places: [] as number[],
    kind: 'picture' as const,
  }));
  let run: number[] = [];
  let text = '';
  for (let i = 0; i <= Math.min(seen, sequence.ids.length - 1); i++) {
    const picture = pictureAt.get(i);
    if (picture !== undefined) {
      const part = ofPicture[picture]!;
      if (part.places.length === 0) parts.push(part);
      part.places.push(i);
      [run, text] = [[], ''];
      continue;
    }
    run.push(sequence.ids[i]!);
    const now = vlm.codec.decode(run);
    const piece = now.slice(text.length);
    text = now;
    if (piece.trim() === '') continue;
    const last = parts.at(-1);
    const goesOn = last?.kind === 'word' && last.places.at(-1) === i - 1 && /^[\p{L}\p{N}\p{M}'’]/u.test(piece);
    if (goesOn && /[\p{L}\p{N}\p{M}'’]$/u.test(last.name)) {
      last.name += piece.trimEnd();
      last.places.push(i);
    } else parts.push({ name: piece.trim(), places: [i], kind: 'word' });
  }
  return parts;
}

/** Names of the visual tokens, in their order. */
export const patchNames = ({ pictures }: Sequence): string[] =>
  pictures.flatMap(({ count }, n) =>
    Array.from({ length: count }, (_, i) => (pictures.length === 1 ? `patch ${i + 1}` : `patch ${i + 1} of picture ${n + 1}`)),
  );

/** Places of the visual tokens, of the words, and the last one. */
export function groupsOf(sequence: Sequence): { picture: number[]; words: number[]; last: number[] } {
  const picture = visualPlaces(sequence);
  const isPicture = new Set(picture);
  const end = sequence.promptEnd;
  const after = picture.length === 0 ? 0 : Math.max(...picture) + 1;
  const words = Array.from({ length: end }, (_, i) => i).filter((i) => !isPicture.has(i) && i >= after);
  return { picture, words, last: [end] };
}

/** A number with some digits; never −0. */
export const fixed = (value: number, digits: number): string =>
  (Math.round(value * 10 ** digits) / 10 ** digits + 0).toFixed(digits);

/** Layers as `all`, `3`, `0,2,4` or `2-5`. @throws Error that names the layers there are */
export function layersOf(given: string, count: number): number[] {
  if (given === 'all') return Array.from({ length: count }, (_, i) => i);
  const layers = given.split(',').flatMap((part) => {
    const [, from, to] = /^\s*(\d+)\s*(?:-\s*(\d+)\s*)?$/.exec(part) ?? [];
    if (from === undefined) throw new Error(`layers '${given}' is not a list such as 0,2,4 or 2-5, or all`);
    const last = Math.min(Number(to ?? from), count);
    return Array.from({ length: Math.max(0, last - Number(from) + 1) }, (_, i) => Number(from) + i);
  });
  if (layers.length === 0 || layers.some((layer) => layer >= count))
    throw new Error(`layers '${given}' is out of range: there are layers 0 to ${count - 1}`);
  return [...new Set(layers)].sort((a, b) => a - b);
}
