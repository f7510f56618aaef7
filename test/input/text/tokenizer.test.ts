import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { loadTokenizer, requireToken } from '../../../src/input/text/tokenizer.ts';
import { fixturesDir, hasFixtures } from '../../shared.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-text-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

interface Case {
  prompt: string;
  image: string | null;
  prompt_input_ids: number[];
  sequence_input_ids: number[][];
  greedy_ids: number[];
  greedy_text: string;
}
const casesOf = (model: string) =>
  (JSON.parse(readFileSync(join(fixturesDir, 'expected', model, 'meta.json'), 'utf8')) as { cases: Case[] }).cases;

describe.skipIf(!hasFixtures)('the reference tokenizers', () => {
  test.each([
    ['tiny-llava', 'tiny-llava', false],
    ['tiny-blip2-opt', 'tiny-blip2-opt', false],
    ['tiny-minigpt4/vicuna', 'tiny-minigpt4', true],
  ])('%s: prompts and greedy texts of all cases', (dir, model, slow) => {
    const tokenizer = loadTokenizer(join(fixturesDir, dir), { slow });
    for (const c of casesOf(model)) {
      expect(tokenizer.encode(c.prompt)).toEqual(c.prompt_input_ids);
      expect(tokenizer.decode(c.greedy_ids, { skipSpecial: false })).toBe(c.greedy_text);
    }
  });

  test('the sequences that are fed', () => {
    const llava = loadTokenizer(join(fixturesDir, 'tiny-llava'));
    for (const c of casesOf('tiny-llava'))
      expect([llava.encode(c.image ? `<image>\n${c.prompt}` : c.prompt)]).toEqual(c.sequence_input_ids);
    const vicuna = loadTokenizer(join(fixturesDir, 'tiny-minigpt4', 'vicuna'), { slow: true });
    for (const c of casesOf('tiny-minigpt4')) {
      const parts = c.image ? [vicuna.encode(''), vicuna.encode(`\n${c.prompt}`, { special: false })] : [vicuna.encode(c.prompt)];
      expect(parts).toEqual(c.sequence_input_ids);
    }
  });

  test('tokens of bytes have their byte, whatever text it is a part of', () => {
    const llava = loadTokenizer(join(fixturesDir, 'tiny-llava'));
    const vicuna = loadTokenizer(join(fixturesDir, 'tiny-minigpt4', 'vicuna'), { slow: true });
    for (const tokenizer of [llava, vicuna]) {
      expect(tokenizer.bytesOf(tokenizer.idOf('<0x83>')!)).toEqual(Uint8Array.of(0x83));
      expect(tokenizer.bytesOf(tokenizer.idOf('<0xEA>')!)).toEqual(Uint8Array.of(0xea));
      for (const id of [tokenizer.bosId!, tokenizer.unkId!, 5000]) expect(tokenizer.bytesOf(id)).toBeUndefined();
    }
    // A byte-level vocabulary has letters for bytes: those of all tokens of a text are the text's.
    const blip = loadTokenizer(join(fixturesDir, 'tiny-blip2-opt'));
    for (const text of ['What is it?', ' été 水 🦊\n\u0000­']) {
      const bytes = blip.encode(text, { special: false }).map((id) => blip.bytesOf(id)!);
      expect(Buffer.concat(bytes).toString()).toBe(text);
    }
    expect(blip.bytesOf(blip.eosId!)).toBeUndefined();
  });

  test('special tokens', () => {
    const llava = loadTokenizer(join(fixturesDir, 'tiny-llava'));
    expect([llava.bosId, llava.eosId, llava.padId, llava.unkId, llava.idOf('<image>')]).toEqual([1, 2, 1001, 0, 1000]);
    expect(llava.tokenOf(1000)).toBe('<image>');
    expect(llava.encode('', { special: false })).toEqual([]);
    expect(llava.encode('')).toEqual([1]);
    expect(llava.decode([])).toBe('');
    expect(llava.decode([1, 1000, 2])).toBe('');
    expect(llava.decode([1, 1000, 5000], { skipSpecial: false })).toBe('<s><image>');
    expect(requireToken(llava, '<image>')).toBe(1000);
    const blip = loadTokenizer(join(fixturesDir, 'tiny-blip2-opt'));
    expect([blip.bosId, blip.eosId, blip.padId]).toEqual([2, 2, 1]);
    expect(() => requireToken(blip, '<image>')).toThrow(/tiny-blip2-opt has no token <image>/);
  });

  test('the slow tokenizer puts spaces around special tokens where the reference does', () => {
    const folder = join(fixturesDir, 'tiny-minigpt4', 'vicuna');
    const unset = loadTokenizer(folder, { slow: true });
    // The space stands before the text that a special token ends.
    expect(unset.decode([846, 666, 1, 57], { skipSpecial: false })).toBe(' foth<s>6');
    // "add_prefix_space": null is false to the reference, and no setting is true.
    expect(unset.decode([0, 546], { skipSpecial: false })).toBe('<unk>ould');
    const dir = mkdtempSync(join(scratch, 'slow-'));
    cpSync(join(folder, 'tokenizer.model'), join(dir, 'tokenizer.model'));
    writeFileSync(join(dir, 'tokenizer_config.json'), '{"tokenizer_class": "LlamaTokenizer", "legacy": true}');
    expect(loadTokenizer(dir, { slow: true }).decode([0, 546], { skipSpecial: false })).toBe('<unk> ould');
  });

  test('byte runs that are not UTF-8 give one replacement character per byte', () => {
    const llava = loadTokenizer(join(fixturesDir, 'tiny-llava'));
    const bytes = (...list: number[]) => list.map((byte) => byte + 3);
    expect(llava.decode(bytes(0xe2, 0x82, 0xac))).toBe('€');
    expect(llava.decode(bytes(0xe2, 0x82))).toBe('\ufffd\ufffd');
    expect(llava.decode(bytes(0x41, 0xff))).toBe('\ufffd\ufffd');
    expect(loadTokenizer(join(fixturesDir, 'tiny-llava'), { slow: true }).decode(bytes(0x41, 0xff))).toBe('A\ufffd');
  });

  test.each([
    ['tiny-llava', false],
    ['tiny-llava', true],
    ['tiny-blip2-opt', false],
  ])('%s (slow: %s): any text survives the round trip', (dir, slow) => {
    const tokenizer = loadTokenizer(join(fixturesDir, dir), { slow });
    for (const text of ['What is this', 'naïve café 😀 日本', 'two  spaces   here', 'line\nbreak\tand tab', 'ends with space ']) {
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    }
  });

  test('tokenizer.json missing: tokenizer.model serves, or the message names what is needed', () => {
    const dir = join(scratch, 'vicuna');
    cpSync(join(fixturesDir, 'tiny-minigpt4', 'vicuna', 'tokenizer.model'), join(dir, 'tokenizer.model'));
    expect(loadTokenizer(dir).encode('What is this?')).toEqual([1, 275, 271, 306, 850]);
    rmSync(join(dir, 'tokenizer.model'));
    expect(() => loadTokenizer(dir)).toThrow(/vicuna has no tokenizer\.json/);
    expect(() => loadTokenizer(dir, { slow: true })).toThrow(/vicuna has no tokenizer\.model/);
    expect(() => loadTokenizer(join(scratch, 'nowhere'))).toThrow(/nowhere does not exist/);
  });

  test('add_bos_token and add_eos_token of tokenizer_config.json are honoured', () => {
    const dir = join(scratch, 'llava');
    cpSync(join(fixturesDir, 'tiny-llava'), dir, { recursive: true, filter: (path) => !path.endsWith('.safetensors') });
    const path = join(dir, 'tokenizer_config.json');
    const config = JSON.parse(readFileSync(path, 'utf8')) as object;
    rmSync(path);
    writeFileSync(path, JSON.stringify({ ...config, add_bos_token: false, add_eos_token: true }));
    for (const slow of [false, true]) expect(loadTokenizer(dir, { slow }).encode('').concat(0)).toEqual([2, 0]);
    writeFileSync(path, JSON.stringify({ ...config, add_bos_token: 'yes' }));
    expect(() => loadTokenizer(dir)).toThrow(/tokenizer_config\.json.*\n.*add_bos_token.*"yes"/);
  });

  test('damaged files are named', () => {
    const dir = join(scratch, 'damaged');
    cpSync(join(fixturesDir, 'tiny-minigpt4', 'vicuna', 'tokenizer_config.json'), join(dir, 'tokenizer_config.json'));
    writeFileSync(join(dir, 'tokenizer.json'), '{"model": 3}');
    expect(() => loadTokenizer(dir)).toThrow(/tokenizer\.json does not fit:\n.*model/);
    writeFileSync(join(dir, 'tokenizer.json'), '{');
    expect(() => loadTokenizer(dir)).toThrow(/tokenizer\.json is not valid JSON/);
    writeFileSync(join(dir, 'tokenizer.model'), 'not a model');
    expect(() => loadTokenizer(dir, { slow: true })).toThrow(/tokenizer\.model is not a SentencePiece model/);
  });
});
