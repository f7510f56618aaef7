/** JSON and YAML that others wrote: what is wrong is told with file and place, and nothing comes through raw. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { z } from 'zod';
import { readEdit, writeEdit } from '../../src/editors/files.ts';
import { parseJson, readJson } from '../../src/files/json.ts';
import { openSafetensors, writeSafetensors } from '../../src/files/safetensors.ts';
import { readJsonAs, readJsonLines } from '../../src/files/schema.ts';
import { strictJson } from '../../src/files/strict-json.ts';
import { parseYaml, readYaml } from '../../src/files/yaml.ts';
import { f32 } from '../../src/graph/dtype.ts';
import { specialTokens } from '../../src/input/chat/template.ts';
import { loadRecords } from '../../src/input/records.ts';
import { loadModel } from '../../src/models/load.ts';
import { writeRandomLlava } from '../tiny-model.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-json-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const path = join(folder, 'a.json');
const write = (text: string | Uint8Array, to = path): string => {
  writeFileSync(to, text);
  return to;
};
const lists = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth);
const objects = (depth: number): string => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;

/** What a person would see of a fault. */
function fault(work: () => unknown): Error {
  try {
    work();
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was wrong');
}

test.each<[string, string, RegExp]>([
  ['a comma too many', '{\n  "a": 1,\n}', /a\.json is not valid JSON: line 3, column 1: a key in quotation marks is expected/],
  ['cut off', '{"a": [1, 2', /line 1, column 12: "," or "\]" is expected/],
  ['empty', '', /line 1, column 1: the text ends too early/],
  ['two values', '{} {}', /line 1, column 4: something follows after the end/],
  ['no colon', '{"a" 1}', /line 1, column 6: ":" is expected/],
  ['a control character', '"a\nb"', /a control character inside a text must be escaped/],
  ['nested too deep', lists(128), /is not read: its lists and objects are nested deeper than 127/],
  ['nested far too deep', objects(100_000), /nested deeper than 127/],
])('JSON that is refused with its file and place: %s', (_, text, message) => {
  expect(() => readJson(write(text))).toThrow(message);
});

test('JSON that is nested as deep as allowed, with a byte order mark, is read', () => {
  expect(readJson(write(`\uFEFF${lists(127)}`))).toEqual(JSON.parse(lists(127)));
  expect(readJson(write('{"__proto__":{"a":1}}'))).toEqual(JSON.parse('{"__proto__":{"a":1}}'));
});

test('only files of a sensible size in UTF-8 are read', () => {
  expect(() => readJson(join(folder, 'none.json'))).toThrow(/none\.json does not exist/);
  expect(() => readJson(folder)).toThrow(/is not a file/);
  expect(() => readJson('/dev/zero')).toThrow(/is not a file/);
  execFileSync('mkfifo', [join(folder, 'pipe')]);
  expect(() => readJson(join(folder, 'pipe'))).toThrow(/is not a file/);
  expect(() => readJson(write(Buffer.from([0x22, 0xff, 0x22])))).toThrow(/a\.json is not UTF-8 text/);
  expect(() => readJson(write('[1,2,3]'), 5)).toThrow(/has 7 bytes; at most 5 are read/);
});

test('what both readers take is equal, and what the strict one takes the other one takes', () => {
  const plain = (value: unknown): unknown => {
    if (value instanceof Map) return Object.fromEntries([...value].map(([key, item]) => [key, plain(item)]));
    if (Array.isArray(value)) return value.map(plain);
    return typeof value === 'bigint' ? Number(value) : value;
  };
  const texts = fc.oneof(
    fc.json({ depthSize: 'medium' }),
    fc.tuple(fc.json(), fc.nat(), fc.constantFrom(...'{}[]",:\\0129.eE+-tfn \n')).map(([text, at, c]) => {
      const i = at % (text.length + 1);
      return text.slice(0, i) + c + text.slice(i + 1);
    }),
  );
  fc.assert(
    fc.property(texts, (text) => {
      let strict: unknown;
      try {
        strict = plain(strictJson(text));
      } catch (error) {
        expect((error as Error).message).toMatch(/^line \d+, column \d+: /);
        // Stricter on purpose: keys that occur twice, half pairs, numbers out of range.
        if (!/occurs twice|surrogate|out of range/.test((error as Error).message)) expect(() => JSON.parse(text)).toThrow();
        return;
      }
      expect(strict).toEqual(JSON.parse(text));
      expect(parseJson(text, 'it')).toEqual(JSON.parse(text));
    }),
    { numRuns: 1000 },
  );
});

test('a fault of a schema names file and field; many faults are counted', () => {
  const schema = z.object({ list: z.array(z.number()) });
  expect(() => readJsonAs(write('null'), schema)).toThrow(/a\.json does not fit:\n {2}the whole file: .* but it is null/);
  expect(() => readJsonAs(write('{"list":[1,"x"]}'), schema)).toThrow(/list\.1: .* but it is "x"/);
  const many = fault(() => readJsonAs(write(JSON.stringify({ list: Array(1000).fill('x') })), schema)).message;
  expect(many).toContain('and 960 more');
  expect(many.split('\n')).toHaveLength(42);
});

test('lines of a log: a broken one is named by its number, or left out', () => {
  const schema = z.object({ step: z.number() });
  write('{"step":1}\n\n{"step":2}\n{"st');
  expect(() => readJsonLines(path, schema)).toThrow(/line 4 of .*a\.json is not valid JSON: line 1, column 5/);
  expect(readJsonLines(path, schema, 'skip')).toEqual([{ step: 1 }, { step: 2 }]);
  write(`{"step":"x"}\n${lists(5000)}\n`);
  expect(readJsonLines(path, schema, 'skip')).toEqual([]);
});

test.each<[string, string, RegExp]>([
  ['lists', lists(5000), /nested deeper than 127/],
  ['maps', '{a: '.repeat(5000), /nested deeper than 127/],
  ['dashes', `${'- '.repeat(5000)}x`, /nested deeper than 127/],
  ['question marks', '? '.repeat(5000), /nested deeper than 127/],
  ['indentation', Array.from({ length: 300 }, (_, i) => `${' '.repeat(i)}a:`).join('\n'), /nested deeper than 127/],
  ['an anchor inside what it names', '&a [*a]', /nested deeper than 127/],
  [
    'aliases that multiply',
    `a: &a [x]\n${[...'bcdefgh'].map((c, i) => `${c}: &${c} [${`*${'abcdefgh'[i]},`.repeat(9)}]`).join('\n')}`,
    /alias/,
  ],
  ['a fault', 'a: 1\nb: c: d', /a\.yaml is not valid YAML: line 2, column 4: /],
  ['two documents', 'a: 1\n---\nb: 2', /more than one document/],
  ['a list as a key', '? [a]\n: b', /key/],
])('YAML that is refused with its file, and leaves the process alive: %s', (_, text, message) => {
  expect(() => readYaml(write(text, join(folder, 'a.yaml')), z.looseObject({}))).toThrow(message);
});

test('YAML as configurations have it', () => {
  expect(parseYaml('# a comment\nmodel:\n  depth: 39\n  names: [a, "b"]\n', 'it')).toEqual({
    model: { depth: 39, names: ['a', 'b'] },
  });
  expect(parseYaml('', 'it')).toBeUndefined();
  expect(() => readYaml(write(`a: ${'x'.repeat(70_000)}`, join(folder, 'a.yaml')), z.looseObject({}))).toThrow(/at most 65536/);
});

/** Whole files, as strangers may send them, in every place that a model folder reads JSON from. */
const hostile = [
  'null',
  '[]',
  '1',
  '"x"',
  'true',
  lists(5000),
  objects(5000),
  '{"model_type":"constructor"}',
  '{"model_type":"__proto__"}',
  '{"model_type":{"toString":1}}',
  '{',
  '',
];
const places = [
  'config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'preprocessor_config.json',
  'generation_config.json',
  'special_tokens_map.json',
  'model.safetensors.index.json',
];

test.each(places)('%s of hostile content is refused by name, or read as if it said nothing', (name) => {
  const dir = writeRandomLlava(join(folder, name));
  if (name.includes('index')) rmSync(join(dir, 'model.safetensors'));
  for (const text of hostile) {
    write(text, join(dir, name));
    try {
      loadModel(dir, { threads: 1 });
    } catch (error) {
      const { message, name: kind } = error as Error;
      expect(kind, text.slice(0, 30)).toBe('Error');
      expect(message).toContain(dir);
    }
  }
});

test('files beside a tokenizer that are no objects do not reach the chat template', () => {
  for (const name of ['special_tokens_map.json', 'tokenizer_config.json']) {
    const dir = join(folder, `beside-${name}`);
    mkdirSync(dir);
    for (const text of ['null', '[]', '1', lists(5000)]) {
      const error = fault(() => {
        write(text, join(dir, name));
        specialTokens(dir);
      });
      expect([error.name, error.message.startsWith(join(dir, name))]).toEqual(['Error', true]);
    }
  }
});

test.each(['constructor', '__proto__', 'toString', 'hasOwnProperty'])('model_type %j is not known', (type) => {
  const dir = join(folder, `type-${type}`);
  mkdirSync(dir);
  write(JSON.stringify({ model_type: type }), join(dir, 'config.json'));
  expect(() => loadModel(dir)).toThrow(`model_type ${JSON.stringify(type)} is not known; known: `);
});

test('metadata of edits and records of hostile content', () => {
  const file = join(folder, 'edit.safetensors');
  writeEdit(file, {
    editor: 'vead',
    model: { name: 'm', fingerprint: 'f' },
    settings: {},
    request: { prompt: 'p', target: 't' },
    tensors: new Map([['a', f32([1], [1])]]),
  });
  const { metadata } = openSafetensors(file);
  for (const text of hostile) {
    writeSafetensors(file, { a: f32([1], [1]) }, { ...metadata, settings: text });
    if (text.startsWith('{"m')) continue;
    const { name, message } = fault(() => readEdit(file));
    expect([name, message.startsWith(`${file}: metadata settings`)]).toEqual(['Error', true]);
  }
  for (const text of hostile) {
    const { name, message } = fault(() => loadRecords(write(text), folder));
    expect([name, message.startsWith(path)]).toEqual(['RecordsError', true]);
  }
});
