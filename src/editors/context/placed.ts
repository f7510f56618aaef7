/**
 * Texts with pictures before a query, whose own tokens keep their order and move back by the length of what stands before them, positions and all.
 */

import type { Asked } from '../../input/segments.ts';
import { answerSequences, generateSequences, type TargetAnswer } from '../../models/answer.ts';
import type { GenerateOptions } from '../../models/generate.ts';
import { beginLength, behind as behindContext, type Sequence } from '../../models/sequence.ts';
import type { Vlm } from '../../models/vlm.ts';

/** Tokens and pictures that stand before a query. */
export type Context = Pick<Sequence, 'ids' | 'pictures' | 'spans'>;

/** A text with its picture before it as the family lays it out, without the token that begins every input. */
export function contextOf(vlm: Vlm, asked: Asked): Context {
  const { ids, pictures, spans } = vlm.layout(asked);
  const begin = beginLength(vlm);
  const begins =
    begin > 0 &&
    vlm
      .layout({ prompt: 'x' })
      .ids.slice(0, begin)
      .every((id, i) => ids[i] === id);
  if (!begins) return { ids, pictures, spans };
  return {
    ids: ids.slice(begin),
    pictures,
    spans: spans.map((runs) => runs.map(([start, end]) => [start - begin, end - begin] as const)),
  };
}

/** A query behind a context, which follows the token that begins every input. */
export function behind(vlm: Vlm, context: Context, { target, ...asked }: Asked & { readonly target?: string }): Sequence {
  const placed = behindContext(context, vlm.layout(asked, target), beginLength(vlm));
  const limit = vlm.decoder.maxPositions;
  if (placed.ids.length > limit)
    throw new Error(
      `the query and what stands before it have ${placed.ids.length} tokens; this model takes at most ${limit}: make the text before it shorter`,
    );
  return { ...placed, ...vlm.architecture.positions?.(placed) };
}

/** Contexts in their order as one. */
export function joined(contexts: readonly Context[]): Context {
  let at = 0;
  const spans = contexts.flatMap((context) => {
    const start = at;
    at += context.ids.length;
    return context.spans.map((runs) => runs.map(([from, to]) => [from + start, to + start] as const));
  });
  return { ids: contexts.flatMap(({ ids }) => ids), pictures: contexts.flatMap(({ pictures }) => pictures), spans };
}

/** Long inputs: few at a time. */
const BATCH = 8;

export const answerPlaced = (vlm: Vlm, placed: readonly Sequence[]): Promise<TargetAnswer[]> =>
  answerSequences(vlm, placed, undefined, undefined, BATCH);

export const generatePlaced = (
  vlm: Vlm,
  placed: readonly Sequence[],
  options: GenerateOptions = {},
): Promise<{ text: string; tokenIds: number[] }[]> => generateSequences(vlm, placed, options, undefined, undefined, BATCH);
