import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { parseConfig } from '../../src/files/config.ts';
import { openCheckpoint } from '../../src/files/folder.ts';
import { writeSafetensors } from '../../src/files/safetensors.ts';
import { f32 } from '../../src/graph/dtype.ts';
import { preprocessorConfig } from '../../src/input/image/config.ts';
import { blip2Config } from '../../src/models/configs/blip2.ts';
import { generationConfig } from '../../src/models/configs/generation.ts';
import { llamaConfig } from '../../src/models/configs/llama.ts';
import { llavaConfig } from '../../src/models/configs/llava.ts';
import { fixturesDir, hasFixtures } from '../shared.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-folder-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const folder = (name: string) => {
  mkdirSync(join(scratch, name), { recursive: true });
  return join(scratch, name);
};

const a = f32([1, 2], [2]);
const b = f32([3], [1, 1]);

function sharded(name: string, weightMap: Record<string, string> = { a: 'one.safetensors', b: 'two.safetensors' }): string {
  const dir = folder(name);
  writeSafetensors(join(dir, 'one.safetensors'), { a });
  writeSafetensors(join(dir, 'two.safetensors'), { b });
  writeFileSync(join(dir, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: weightMap }));
  return dir;
}

test('one file and shards hold the same checkpoint with the same fingerprint', () => {
  const single = folder('single');
  writeSafetensors(join(single, 'model.safetensors'), { b, a });
  const one = openCheckpoint(single);
  const two = openCheckpoint(sharded('sharded'));
  expect(two.names().sort()).toEqual(['a', 'b']);
  expect(two.get('b', [1, 1]).data).toEqual(b.data);
  expect(one.fingerprint()).toMatch(/^[0-9a-f]{64}$/);
  expect(two.fingerprint()).toBe(one.fingerprint());
  writeSafetensors(join(single, 'model.safetensors'), { b, a: f32([1, 2.5], [2]) });
  expect(openCheckpoint(single).fingerprint()).not.toBe(one.fingerprint());
});

test('a large checkpoint is sampled, and every tensor counts', () => {
  const dir = folder('large');
  const big = f32(new Float32Array(17 * 1024 * 1024), [17, 1024, 1024]);
  writeSafetensors(join(dir, 'model.safetensors'), { big, a });
  const first = openCheckpoint(dir).fingerprint();
  expect(openCheckpoint(dir).fingerprint()).toBe(first);
  writeSafetensors(join(dir, 'model.safetensors'), { big, a: f32([1, 3], [2]) });
  const second = openCheckpoint(dir).fingerprint();
  big.data[big.data.length - 1] = 1;
  writeSafetensors(join(dir, 'model.safetensors'), { big, a });
  expect(new Set([first, second, openCheckpoint(dir).fingerprint()]).size).toBe(3);
});

test('what is missing is listed', () => {
  expect(() => openCheckpoint(sharded('gone', { a: 'one.safetensors', b: 'x.safetensors', c: 'y.safetensors' }))).toThrow(
    /lacks 2 of the shards .*: x\.safetensors, y\.safetensors/,
  );
  expect(() => openCheckpoint(sharded('absent', { a: 'two.safetensors', c: 'one.safetensors' }))).toThrow(
    /lists 2 tensors.*\n.*a \(two\.safetensors\)\n.*c \(one\.safetensors\)/,
  );
  expect(() => openCheckpoint(sharded('outside', { a: '../one.safetensors' }))).toThrow(
    /must be the name of a file in the same folder/,
  );
  const dir = folder('torch');
  writeFileSync(join(dir, 'pytorch_model.bin'), '');
  expect(() => openCheckpoint(dir)).toThrow(/neither model\.safetensors nor .*pytorch_model\.bin.*visedit convert/);
  expect(() => openCheckpoint(join(scratch, 'nowhere'))).toThrow(/nowhere is not a folder/);
});

test('a wrong tensor name or shape is explained', () => {
  const dir = folder('names');
  writeSafetensors(join(dir, 'model.safetensors'), { 'model.layers.0.mlp.weight': a });
  const checkpoint = openCheckpoint(dir);
  expect(() => checkpoint.get('language_model.layers.0.mlp.weight')).toThrow(
    /has no tensor language_model\.layers.*it has model\.layers\.0\.mlp\.weight/,
  );
  expect(() => checkpoint.get('model.layers.0.mlp.weight', [3])).toThrow(/has shape \[2\], but config\.json asks for \[3\]/);
  expect(() => checkpoint.require(['x', 'y', 'model.layers.0.mlp.weight'])).toThrow(/lacks 2 tensors:\n {2}x\n {2}y/);
});

test('defaults of the published files that leave them out', () => {
  const llava = parseConfig('config.json', llavaConfig, {
    model_type: 'llava',
    text_config: { vocab_size: 32064, rms_norm_eps: 1e-5 },
  });
  expect(llava.text_config).toMatchObject({
    hidden_size: 4096,
    intermediate_size: 11008,
    num_key_value_heads: 32,
    rope_theta: 10000,
    eos_token_id: [2],
  });
  expect(llava.vision_config).toMatchObject({
    hidden_size: 1024,
    image_size: 336,
    hidden_act: 'quick_gelu',
    layer_norm_eps: 1e-5,
  });
  const blip = parseConfig('config.json', blip2Config, {
    model_type: 'blip-2',
    text_config: { hidden_size: 2560, num_attention_heads: 32 },
  });
  expect(blip.text_config).toMatchObject({ word_embed_proj_dim: 2560, activation_function: 'relu', eos_token_id: [2] });
  expect(blip.vision_config).toMatchObject({ hidden_size: 1408, num_hidden_layers: 39, layer_norm_eps: 1e-6 });
  expect(blip.qformer_config).toMatchObject({ cross_attention_frequency: 2, layer_norm_eps: 1e-12 });
  expect(parseConfig('g', generationConfig, { eos_token_id: [2, 3] }).eos_token_id).toEqual([2, 3]);
  expect(parseConfig('g', generationConfig, { eos_token_id: 2 }).eos_token_id).toEqual([2]);
});

test('all faults of a file come in one error with field and value', () => {
  const config = {
    model_type: 'llama',
    hidden_size: 'wide',
    num_hidden_layers: 0,
    rope_scaling: { type: 'su' },
    hidden_act: 'tanh',
  };
  expect(() => parseConfig('dir/config.json', llamaConfig, config)).toThrow(
    /dir\/config\.json does not fit:\n {2}hidden_size: expected a whole number, but it is "wide"\n {2}num_hidden_layers: .*but it is 0\n {2}hidden_act: .*"tanh"\n {2}rope_scaling\.rope_type: expected default, linear, dynamic, llama3, yarn/,
  );
  expect(() => parseConfig('c', llamaConfig, { hidden_size: 10, num_attention_heads: 3 })).toThrow(
    /num_attention_heads: 3 heads do not divide hidden_size 10/,
  );
  // Sizes that nothing can hold are refused before anything is built by them.
  expect(() => parseConfig('c', llamaConfig, { num_hidden_layers: 1e9, max_position_embeddings: 1e12 })).toThrow(
    /num_hidden_layers: expected at most 1024, but it is 1000000000\n {2}max_position_embeddings: expected at most 1048576/,
  );
  expect(() => parseConfig('c', llamaConfig, { hidden_size: 2 ** 20, max_position_embeddings: 2 ** 20 })).toThrow(
    /max_position_embeddings: rotary positions/,
  );
  expect(() => parseConfig('c', llavaConfig, { text_config: {} })).toThrow(/model_type: expected "llava"/);
  expect(() => parseConfig('c', preprocessorConfig, { size: { width: 3 } })).toThrow(/size: expected a size/);
});

describe.skipIf(!hasFixtures)('fixtures', () => {
  test('tiny-llava: 5 shards of half-precision tensors', () => {
    const checkpoint = openCheckpoint(join(fixturesDir, 'tiny-llava'));
    const config = checkpoint.config('config.json', llavaConfig);
    const index = JSON.parse(readFileSync(join(fixturesDir, 'tiny-llava', 'model.safetensors.index.json'), 'utf8')) as {
      weight_map: object;
    };
    expect(checkpoint.names().sort()).toEqual(Object.keys(index.weight_map).sort());
    const embedding = checkpoint.get('language_model.model.embed_tokens.weight', [
      config.text_config.vocab_size,
      config.text_config.hidden_size,
    ]);
    expect(embedding.dtype).toBe('float16');
    expect(checkpoint.get('language_model.model.embed_tokens.weight', undefined, { as: 'float32' }).data).toBeInstanceOf(
      Float32Array,
    );
  });
  test('tiny-blip2-opt', () => {
    const checkpoint = openCheckpoint(join(fixturesDir, 'tiny-blip2-opt'));
    expect(checkpoint.config('config.json', blip2Config).text_config.num_hidden_layers).toBe(6);
    expect(checkpoint.has('query_tokens')).toBe(true);
  });
});
