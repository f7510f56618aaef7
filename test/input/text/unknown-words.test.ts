/** Words that a tokenizer has no token for, told by a mini's own tokenizer and by the same one with common words added. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { loadTokenizer, type Tokenizer } from '../../../src/input/text/tokenizer.ts';
import { unknownWords, wordWarnings } from '../../../src/input/text/unknown-words.ts';
import { modelFolder } from '../../../src/models/load.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-words-'));
afterAll(() => rmSync(folder, { recursive: true }));
const small = loadTokenizer(modelFolder('mini-llava'));

function withWords(words: readonly string[]): Tokenizer {
  for (const name of ['tokenizer.json', 'tokenizer_config.json'])
    cpSync(join(modelFolder('mini-llava'), name), join(folder, name));
  const path = join(folder, 'tokenizer.json');
  const file = JSON.parse(readFileSync(path, 'utf8')) as { model: { vocab: [string, number][] } };
  for (const word of words) file.model.vocab.push([`▁${word}`, -1]);
  writeFileSync(path, JSON.stringify(file));
  return loadTokenizer(folder);
}
const found = (tokenizer: Tokenizer, text: string): string[] =>
  unknownWords(tokenizer, text).map(({ word, unread }) => (unread ? `${word}!` : word));

test('a small vocabulary knows whole words: others are named once each, what cannot be read with a mark', () => {
  expect(found(small, 'What is at the top left? The answer is:')).toEqual([]);
  expect(found(small, 'a PIZZA, a dog and a dog; elephants')).toEqual(['PIZZA', 'dog', 'elephants']);
  expect(found(small, 'a café 猫')).toEqual(['café!', '猫!']);
  expect(found(small, '<image> What is it? 42')).toEqual(['it']);
});

test('a large vocabulary is made of pieces: words in lower case that are spelled by letters are named', () => {
  const large = withWords(['dog', 'house', 'man', 'table', 'water']);
  expect(found(large, 'a dog, dogs, elephants, PIZZA, TV')).toEqual([]);
  expect(found(large, 'a wolf and a Wolf')).toEqual(['wolf', 'Wolf']);
  expect(found(large, 'a café')).toEqual(['café!']);
});

test('warnings name the text and the words', () => {
  expect(wordWarnings(small, 'the target', 'a pizza')).toEqual([]);
  expect(wordWarnings(small, 'the target', 'dog')).toEqual([
    'the target has words that the model has no token for: "dog"; it reads them in pieces and may not know them',
  ]);
  expect(wordWarnings(small, 'the prompt', 'é')[0]).toMatch(
    /^the prompt has what the tokenizer cannot read: "é"; the model sees/,
  );
});
