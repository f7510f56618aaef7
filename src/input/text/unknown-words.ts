/** Words of a text that a tokenizer has no token for: it reads them as its unknown token, or in pieces that say nothing of the word. */

import type { Tokenizer } from './tokenizer.ts';

type Codec = Pick<Tokenizer, 'encode' | 'decode'>;

export interface UnknownWord {
  readonly word: string;
  /** read as the unknown token: the model does not see which word it is */
  readonly unread: boolean;
}

/** Letters of scripts that put spaces between words; in other scripts a token of one character is usual. */
const letters = /^[\p{Lu}\p{Ll}\p{Lt}\p{M}]{2,}$/u;
const parts = /<[\w|/]+>|[\p{L}\p{M}]+|[^\s\p{L}\p{M}]/gu;

/** Each once, in the order of the text. */
export function unknownWords(codec: Codec, text: string): UnknownWord[] {
  return [...new Set(text.match(parts))].flatMap((word): UnknownWord[] => {
    // Tokenizers may keep other tokens for the first word of a text than for a word after a space.
    const before = codec.encode('a', { special: false }).length;
    const readings = [codec.encode(word, { special: false }), codec.encode(`a ${word}`, { special: false }).slice(before)];
    if (readings.some((ids) => ids.length === 1 && isSpecial(codec, ids[0]!, word) === 'itself')) return [];
    if (readings.every((ids) => ids.some((id) => isSpecial(codec, id, word) === 'another'))) return [{ word, unread: true }];
    const unknown = isSmall(codec)
      ? (ids: readonly number[]) => ids.length > 1
      : (ids: readonly number[]) => isSpelled(codec, ids, word);
    return letters.test(word) && readings.every(unknown) ? [{ word, unread: false }] : [];
  });
}

const commonWords = ['dog', 'house', 'man', 'table', 'water'];
const small = new WeakMap<Codec, boolean>();

/** Whether most of some common words have no token of their own: a small vocabulary, whose model knows whole words alone. */
function isSmall(codec: Codec): boolean {
  let known = small.get(codec);
  if (known === undefined) {
    const length = (text: string): number => codec.encode(text, { special: false }).length;
    known = commonWords.filter((word) => length(`a ${word}`) > length('a') + 1).length > commonWords.length / 2;
    small.set(codec, known);
  }
  return known;
}

/** Whether a special token stands for the word: the word `itself`, or `another`, such as `<unk>`. */
function isSpecial(codec: Codec, id: number, word: string): 'itself' | 'another' | undefined {
  if (codec.decode([id]) !== '') return undefined;
  const name = codec.decode([id], { skipSpecial: false }).trim();
  return name === '' ? undefined : name === word ? 'itself' : 'another';
}

/** At least two tokens of one letter, which make up half of the word or more. Large vocabularies spell rare words in capitals, which people do, too. */
function isSpelled(codec: Codec, ids: readonly number[], word: string): boolean {
  const single = ids.filter((id) => [...codec.decode([id]).trim()].length === 1).length;
  return /\p{Ll}/u.test(word) && single >= 2 && 2 * single >= [...word].length;
}

/**
 * Warnings about the words of a text that a model has no token for; none where it knows all.
 * @param what the text is, such as `the target`
 */
export function wordWarnings(codec: Codec, what: string, text: string): string[] {
  const found = unknownWords(codec, text);
  const list = (unread: boolean): string =>
    found
      .filter((one) => one.unread === unread)
      .map(({ word }) => JSON.stringify(word))
      .join(', ');
  const [unread, pieces] = [list(true), list(false)];
  return [
    ...(unread === '' ? [] : [`${what} has what the tokenizer cannot read: ${unread}; the model sees an unknown token instead`]),
    ...(pieces === ''
      ? []
      : [`${what} has words that the model has no token for: ${pieces}; it reads them in pieces and may not know them`]),
  ];
}
