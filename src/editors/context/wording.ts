/**
 * Words that tell a model what a text before the query is. Published wordings are used where the tokenizer has their words; where it would spell
 * them letter by letter, as a small vocabulary does, a plainer wording takes their place.
 */

import type { TextCodec } from '../../models/architecture.ts';

/** Whether a text is spelled in pieces of fewer than half a letter each, on average: known words, not letters. */
export function knows(codec: TextCodec, text: string): boolean {
  return 2 * codec.encode(text, { special: false }).length <= text.replace(/\s/g, '').length;
}

/** The first wording whose own words the tokenizer knows, else the last. */
export function wordingFor<T extends { readonly words: string }>(codec: TextCodec, wordings: readonly [T, ...T[]]): T {
  return wordings.find(({ words }) => knows(codec, words)) ?? wordings.at(-1)!;
}
