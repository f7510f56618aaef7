/**
 * The vocabulary of the mini models: every word of the world is one piece, single characters stand by for any other ASCII text.
 * As a tokenizer.json it is a Unigram model with a Metaspace pre-tokenizer that marks the start of a text (not of a text
 * after a special token), in the layout of published LLaVA folders; `WorldEncoder` gives the same ids for the world's own texts, faster.
 */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeFolder } from '../../src/files/atomic.ts';
import { answerCue } from '../../src/input/records.ts';
import { categories, colors, concepts, numbers, places, sides } from './concepts.ts';
import { drillPrompts } from './drills.ts';
import { factTexts } from './facts.ts';
import { templates } from './questions.ts';

export const specialTokens = ['<unk>', '<s>', '</s>', '<image>', '<pad>'] as const;
export const unkId = 0;
export const bosId = 1;
export const eosId = 2;
export const imageId = 3;
export const padId = 4;

const space = '▁';
const wordScore = -1;
const characterScore = -20;

/** Every text shape of the world with its slots blanked: what words there are, and which begin a text. */
function worldTexts(): string[] {
  return [
    ...Object.values(templates).flatMap((list) => list.map((text) => text.replace(/\{a name\}/g, 'a cat an owl'))),
    ...factTexts(),
    ...Object.values(drillPrompts),
    answerCue,
    'a cat, a cow and an owl on blue nothing none yes no',
    [...places, ...sides.map((side) => side.words)].join(' '),
    [...numbers, ...categories, ...colors.map((color) => color.name)].join(' '),
  ].map((text) => text.replace(/\{.+?\}/g, ''));
}

/** Pieces in id order: special tokens, words, words that begin a text (without the mark), characters. */
export const vocabulary: readonly { readonly piece: string; readonly score: number }[] = (() => {
  const inside = new Set<string>(concepts.map((c) => c.name));
  const first = new Set<string>();
  for (const text of worldTexts()) {
    for (const word of text.match(/[A-Za-z]+/g) ?? []) inside.add(word);
    for (const word of text.match(/(^|[.?] )[A-Z][a-z]+/g) ?? []) first.add(word.replace(/^[.?] /, ''));
  }
  const characters = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i));
  return [
    ...specialTokens.map((piece) => ({ piece, score: 0 })),
    ...[...inside].map((word) => ({ piece: space + word, score: wordScore })),
    ...[...first].filter((word) => word.length > 1).map((piece) => ({ piece, score: wordScore })),
    ...[space, '\n', '\t', ...characters].map((piece) => ({ piece, score: characterScore })),
  ];
})();

/** Encodes texts made of the world's words as the tokenizer does; other words fall back to characters. */
export class WorldEncoder {
  readonly #ids = new Map(vocabulary.map(({ piece }, id) => [piece, id]));
  readonly size = vocabulary.length;

  id(piece: string): number {
    const id = this.#ids.get(piece);
    if (id === undefined) throw new Error(`the vocabulary has no piece "${piece}"`);
    return id;
  }

  /** `start`: the text begins a sequence, so its first word is marked as one after a space would be; false after a special token. */
  encode(text: string, start: boolean): number[] {
    const marked = (start && !text.startsWith(' ') ? ` ${text}` : text).replaceAll(' ', space);
    const out: number[] = [];
    for (const chunk of marked.match(/▁?[A-Za-z]+|[\s\S]/g) ?? []) {
      const whole = this.#ids.get(chunk);
      if (whole !== undefined) out.push(whole);
      else for (const character of chunk) out.push(this.#ids.get(character) ?? unkId);
    }
    return out;
  }

  decode(ids: readonly number[]): string {
    return ids
      .filter((id) => id >= specialTokens.length)
      .map((id) => vocabulary[id]?.piece ?? '')
      .join('')
      .replaceAll(space, ' ')
      .replace(/^ /, '');
  }
}

export interface TokenizerFiles {
  readonly 'tokenizer.json': unknown;
  readonly 'tokenizer_config.json': unknown;
  readonly 'special_tokens_map.json': unknown;
}

export interface TokenizerOptions {
  /** the token put before every text: `<s>` as LLaMA does, `</s>` as OPT does; null: none, as Qwen does */
  readonly bos?: '<s>' | '</s>' | null;
  /** what stands for a picture */
  readonly image?: string;
  /** special tokens behind the vocabulary */
  readonly more?: readonly string[];
}

/** The files of the mini models' tokenizer. */
export function tokenizerFiles({ bos: given, image = '<image>', more = [] }: TokenizerOptions = {}): TokenizerFiles {
  const bos = given ?? '<s>';
  const special = [
    ...specialTokens.map((content, id) => ({ id, content: id === imageId ? image : content })),
    ...more.map((content, i) => ({ id: vocabulary.length + i, content })),
  ];
  const plain = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  const metaspace = { type: 'Metaspace', replacement: space, prepend_scheme: 'first', split: false };
  const first = (type_id: number) => ({ SpecialToken: { id: bos, type_id } });
  const sequence = (id: string, type_id: number) => ({ Sequence: { id, type_id } });
  return {
    'tokenizer.json': {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: special.map((token) => ({ ...token, ...plain, special: true })),
      normalizer: null,
      pre_tokenizer: metaspace,
      post_processor:
        given === null
          ? null
          : {
              type: 'TemplateProcessing',
              single: [first(0), sequence('A', 0)],
              pair: [first(0), sequence('A', 0), first(1), sequence('B', 1)],
              special_tokens: { [bos]: { id: bos, ids: [bos === '<s>' ? bosId : eosId], tokens: [bos] } },
            },
      decoder: metaspace,
      model: {
        type: 'Unigram',
        unk_id: unkId,
        vocab: [
          ...vocabulary.map(({ piece, score }, id) => [id === imageId ? image : piece, score]),
          ...more.map((piece) => [piece, 0]),
        ],
        byte_fallback: false,
      },
    },
    'tokenizer_config.json': {
      add_bos_token: given !== null,
      add_eos_token: false,
      added_tokens_decoder: Object.fromEntries(special.map(({ id, content }) => [id, { content, ...plain, special: true }])),
      additional_special_tokens: [image, ...more],
      ...(given === null ? {} : { bos_token: bos }),
      clean_up_tokenization_spaces: false,
      eos_token: '</s>',
      model_max_length: 2048,
      pad_token: '<pad>',
      tokenizer_class: 'PreTrainedTokenizerFast',
      unk_token: '<unk>',
    },
    'special_tokens_map.json': {
      additional_special_tokens: [image, ...more].map((content) => ({ content, ...plain })),
      ...(given === null ? {} : { bos_token: { content: bos, ...plain } }),
      eos_token: { content: '</s>', ...plain },
      pad_token: { content: '<pad>', ...plain },
      unk_token: { content: '<unk>', ...plain },
    },
  };
}

export function writeTokenizer(folder: string, options: TokenizerOptions = {}): void {
  makeFolder(folder);
  for (const [name, content] of Object.entries(tokenizerFiles(options))) {
    writeFileSync(join(folder, name), `${JSON.stringify(content, null, 1)}\n`);
  }
}
