/**
 * One input of the decoder laid out: token segments around the visual tokens, and where the target is predicted. The layout of targets
 * follows the authors' code: a space stands between prompt and target unless one is there; prompt and target are tokenised together,
 * and the last `target tokens` of the sequence are predicted from the position before each.
 */

import type { Architecture, TextCodec } from './architecture.ts';

/** One input of the decoder: token ids [l], the picture's place among them, and where the target is predicted. */
export interface Sequence {
  /** token ids; −1 at visual tokens */
  readonly ids: readonly number[];
  /** [start, end) of the visual tokens, or undefined for text only */
  readonly visualSpan: readonly [number, number] | undefined;
  /** position of the prompt's last token */
  readonly promptEnd: number;
  /** the target's token ids, predicted at promptEnd, promptEnd + 1, ... */
  readonly targetIds: readonly number[];
}

export function layout(architecture: Architecture, codec: TextCodec, prompt: string, image: boolean, target?: string): Sequence {
  if (prompt.length === 0) throw new Error('the prompt is empty; give at least one word');
  if (target !== undefined && target.trim().length === 0)
    throw new Error('the target is empty; give the answer that the model should give');
  const space = target === undefined || prompt.endsWith(' ') || target.startsWith(' ') ? '' : ' ';
  const text = target === undefined ? prompt : prompt + space + target;
  const { before, after } = architecture.layout(text, image, codec);
  const visual = image ? architecture.visualTokens : 0;
  const ids = [...before, ...new Array<number>(visual).fill(-1), ...after];
  let targetIds: number[] = [];
  if (target !== undefined) {
    const plain = architecture.layout(prompt, image, codec);
    const count = before.length + after.length - plain.before.length - plain.after.length;
    if (count < 1)
      throw new Error(`the target ${JSON.stringify(target)} has no tokens of its own after ${JSON.stringify(prompt)}`);
    targetIds = ids.slice(ids.length - count);
  }
  checkLength(ids.length, architecture.decoder.maxPositions);
  checkKnown(ids, architecture.decoder.vocabulary);
  return {
    ids,
    visualSpan: image ? [before.length, before.length + visual] : undefined,
    promptEnd: ids.length - 1 - targetIds.length,
    targetIds,
  };
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
  return { ids, visualSpan: sequence.visualSpan, promptEnd: ids.length - 1, targetIds: [] };
}
