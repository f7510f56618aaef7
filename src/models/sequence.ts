/**
 * One input of the decoder laid out: token ids, the places of its pictures' visual tokens, positions, and where the target is predicted. The layout of
 * targets follows the authors' code: a space stands between prompt and target unless one is there; prompt and target are tokenised together, and the
 * last `target tokens` of the sequence are predicted from the position before each.
 */

import { type Asked, anyPicture, type Picture, type RgbImage, type Segment } from '../input/segments.ts';
import type { Architecture, LaidToken, PromptPart, TextCodec } from './architecture.ts';

/** [start, end) */
export type Run = readonly [number, number];

/** One input of the decoder. */
export interface Sequence {
  /** token ids; −1 at visual tokens */
  readonly ids: readonly number[];
  readonly pictures: readonly Picture[];
  /** the runs of each picture's visual tokens, in the order of `pictures` */
  readonly spans: readonly (readonly Run[])[];
  /** [axes][length]; absent: 0, 1, 2, … on every axis */
  readonly positions?: readonly (readonly number[])[];
  /** what positions after the input are ahead of the number of tokens; 0 when left out */
  readonly positionDelta?: number;
  /** position of the prompt's last token */
  readonly promptEnd: number;
  /** the target's token ids, predicted at promptEnd, promptEnd + 1, ... */
  readonly targetIds: readonly number[];
}

/** Where the last picture ends: what stands before never sees the words behind it. 0 without a picture. */
export const prefixOf = ({ spans }: Sequence): number => Math.max(0, ...spans.flatMap((runs) => runs.map(([, end]) => end)));

/** Places of all visual tokens, in the order of the pictures. */
export const visualPlaces = ({ spans }: Sequence): number[] => spans.flatMap(placesOf);

/** Places of one picture's visual tokens. */
export const placesOf = (runs: readonly Run[]): number[] =>
  runs.flatMap(([start, end]) => Array.from({ length: end - start }, (_, i) => start + i));

/** What lays out: a family, its tokenizer, and how a picture becomes part of an input. */
export interface LayoutParts {
  readonly architecture: Architecture;
  readonly codec: TextCodec;
  readonly picture: (image: RgbImage, together: number) => Picture;
}

/** Text and pictures in their order; a text with a picture beside it in its family's own form. */
export function segmentsOf({ prompt, image }: Asked, architecture: Architecture, codec: TextCodec): readonly Segment[] {
  if (typeof prompt !== 'string') {
    if (image !== undefined) throw new Error('a prompt of segments holds its pictures itself; give no picture beside it');
    return prompt;
  }
  const placeholder = architecture.placeholder?.(codec);
  const texts = placeholder === undefined ? [prompt] : prompt.split(placeholder);
  if (image === undefined) {
    if (texts.length > 1) throw new Error(`the prompt has ${placeholder} but no image was given`);
    return [{ text: prompt }];
  }
  if (texts.length === 1) return [{ picture: image }, { text: architecture.afterPicture + prompt }];
  if (texts.length > 2)
    throw new Error(`the prompt has ${placeholder} ${texts.length - 1} times and one picture; give segments for more pictures`);
  return [{ text: texts[0]! }, { picture: image }, { text: texts[1]! }].filter((part) => !('text' in part) || part.text !== '');
}

/** The last text of a prompt with more behind it. */
function followed(segments: readonly Segment[], more: string): Segment[] {
  const last = segments.at(-1);
  return last !== undefined && 'text' in last
    ? [...segments.slice(0, -1), { text: last.text + more }]
    : [...segments, { text: more }];
}

/**
 * A prompt, and a target behind it, as one input.
 * @throws Error when nothing is asked, the target is empty, or the input is longer than the model takes
 */
export function layout(parts: LayoutParts, asked: Asked, target?: string): Sequence {
  const { architecture, codec } = parts;
  const segments = segmentsOf(asked, architecture, codec);
  if (segments.every((segment) => 'text' in segment && segment.text.length === 0) || asked.prompt.length === 0)
    throw new Error('the prompt is empty; give at least one word');
  if (target !== undefined && target.trim().length === 0)
    throw new Error('the target is empty; give the answer that the model should give');
  const together = segments.filter((segment) => 'picture' in segment).length;
  const pictures = segments.flatMap((segment) => {
    if ('text' in segment) return [];
    return ['see' in segment.picture ? segment.picture : parts.picture(segment.picture, together)];
  });
  const laid = (of: readonly Segment[]): LaidToken[] => {
    let next = 0;
    return architecture.layout(
      of.map((segment): PromptPart => ('text' in segment ? segment : { picture: pictures[next++]! })),
      codec,
    );
  };
  const lastText = segments.at(-1);
  const ending = lastText !== undefined && 'text' in lastText ? lastText.text : '';
  // A chat template ends where the answer begins: behind a line break, the answer begins without a space.
  const spaced = typeof asked.prompt === 'string' ? ending.endsWith(' ') : /\s$/.test(ending);
  const space = target === undefined || spaced || target.startsWith(' ') ? '' : ' ';
  const tokens = laid(target === undefined ? segments : followed(segments, space + target));
  let targetIds: number[] = [];
  if (target !== undefined) {
    const count = tokens.length - laid(segments).length;
    if (count < 1)
      throw new Error(`the target ${JSON.stringify(target)} has no tokens of its own after ${JSON.stringify(ending)}`);
    targetIds = tokens.slice(tokens.length - count) as number[];
  }
  const ids: number[] = [];
  const spans: Run[][] = pictures.map(() => []);
  for (const token of tokens) {
    if (typeof token === 'number') {
      ids.push(token);
      continue;
    }
    spans[token.picture]!.push([ids.length, ids.length + token.run]);
    for (let i = 0; i < token.run; i++) ids.push(-1);
  }
  spans.forEach((runs, i) => {
    const count = runs.reduce((total, [start, end]) => total + end - start, 0);
    if (count !== pictures[i]!.count)
      throw new Error(`picture ${i + 1} has ${pictures[i]!.count} visual tokens and ${count} places in the prompt`);
  });
  checkLength(ids.length, architecture.decoder.maxPositions);
  checkKnown(ids, architecture.decoder.vocabulary);
  const sequence = { ids, pictures, spans, promptEnd: ids.length - 1 - targetIds.length, targetIds };
  return { ...sequence, ...architecture.positions?.(sequence) };
}

function checkLength(tokens: number, limit: number): void {
  if (tokens > limit) throw new Error(`the input has ${tokens} tokens; this model takes at most ${limit}`);
}

function checkKnown(ids: readonly number[], vocabulary: number): void {
  const unknown = ids.find((id) => id >= vocabulary);
  if (unknown !== undefined)
    throw new Error(
      `the tokenizer makes token ${unknown} of the input, the model knows ${vocabulary} tokens; use the tokenizer files that were published with this model`,
    );
}

/** A prompt with the tokens of an answer behind it: its end, where the next token is predicted, moves along. */
export function followedBy(sequence: Sequence, answer: readonly number[], limit: number): Sequence {
  const ids = [...sequence.ids, ...answer];
  checkLength(ids.length, limit);
  const { positions, positionDelta = 0 } = sequence;
  return {
    ...sequence,
    ids,
    ...(positions === undefined
      ? {}
      : { positions: positions.map((axis) => [...axis, ...answer.map((_, i) => axis.length + i + positionDelta)]) }),
    promptEnd: ids.length - 1,
    targetIds: [],
  };
}

/** Tokens that begin every input: those that a picture at its start and a text have in common. */
export function beginLength({ architecture, codec }: Pick<LayoutParts, 'architecture' | 'codec'>): number {
  const text = architecture.layout([{ text: 'x' }], codec);
  const seen = architecture.layout([{ picture: anyPicture }, { text: 'x' }], codec);
  return seen.findIndex((token, i) => typeof token !== 'number' || token !== text[i]);
}

/** An input behind a context of tokens and pictures, which follows its first `at` tokens. Positions are 0, 1, 2, … */
export function behind(context: Pick<Sequence, 'ids' | 'pictures' | 'spans'>, own: Sequence, at: number): Sequence {
  const moved = (spans: Sequence['spans'], by: number): Run[][] =>
    spans.map((runs) => runs.map(([start, end]): Run => [start + by, end + by]));
  return {
    ids: [...own.ids.slice(0, at), ...context.ids, ...own.ids.slice(at)],
    pictures: [...context.pictures, ...own.pictures],
    spans: [...moved(context.spans, at), ...moved(own.spans, context.ids.length)],
    promptEnd: own.promptEnd + context.ids.length,
    targetIds: own.targetIds,
  };
}
