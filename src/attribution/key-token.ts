/** The key token of an attribution, given as text: one token as it would stand after the prompt. */

import type { Asked } from '../input/segments.ts';
import type { Vlm } from '../models/vlm.ts';

/** A token's text as a person reads it. */
export function tokenText(vlm: Vlm, id: number): string {
  return vlm.codec.decode([id], { skipSpecial: false }).trim();
}

/**
 * The id of a key token. The text is tokenised as a target after the prompt: a space stands before it unless it or the prompt brings one.
 * @throws Error that lists the tokens when the text is several
 */
export function keyTokenId(vlm: Vlm, asked: Asked, text: string): number {
  const { targetIds } = vlm.layout(asked, text);
  if (targetIds.length === 1) return targetIds[0]!;
  const parts = targetIds.map((id) => `${JSON.stringify(tokenText(vlm, id))} (${id})`).join(', ');
  throw new Error(
    `the key ${JSON.stringify(text)} is ${targetIds.length} tokens: ${parts}; a key is one token, give one of these`,
  );
}
