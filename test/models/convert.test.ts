/** Conversion keeps what a model computes, and leaves nothing behind when it is stopped. */
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openCheckpoint } from '../../src/files/folder.ts';
import { openSafetensors, writeSafetensors } from '../../src/files/safetensors.ts';
import { f32 } from '../../src/graph/dtype.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { convert } from '../../src/models/convert.ts';
import { loadModel } from '../../src/models/load.ts';
import { fixturesDir, hasFixtures } from '../shared.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { difference } from './difference.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-convert-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

async function logitsOf(dir: string): Promise<Float32Array> {
  const vlm = loadModel(dir, { threads: 1 });
  const image = await decodeImage(join(fixturesDir, 'images', 'scene1.png'));
  const batch = await vlm.batch([vlm.layout({ prompt: 'What is on the left?', image })]);
  const { data } = await vlm.logits(batch);
  await vlm.release();
  return data;
}

const fixtures = ['tiny-llava', 'tiny-blip2-opt', 'tiny-minigpt4'];

describe.skipIf(!hasFixtures).each(fixtures)('%s', (name) => {
  let expected: Float32Array;
  beforeAll(async () => {
    expected = await logitsOf(join(fixturesDir, name));
  });

  test.each([undefined, 'float32', 'float16'] as const)('as %s', async (dtype) => {
    const out = join(scratch, `${name}-${dtype}`);
    const { tensors, bytes } = await convert(join(fixturesDir, name), { out, dtype });
    const file = openSafetensors(join(out, 'model.safetensors'));
    expect(file.entries.size).toBe(tensors);
    expect([...file.entries.values()].reduce((sum, entry) => sum + entry.bytes, 0)).toBe(bytes);
    const types = new Set([...file.entries.values()].map((entry) => entry.dtype));
    if (dtype !== undefined)
      expect([...types].filter((type) => /^(F|BF)/.test(type))).toEqual([dtype === 'float32' ? 'F32' : 'F16']);
    // Half precision of what was stored in half precision is the same; of MiniGPT-4's float32 files it is close.
    expect(difference(await logitsOf(out), expected)).toBeLessThan(name === 'tiny-minigpt4' && dtype === 'float16' ? 2e-2 : 1e-6);
    // Again from the converted folder: nothing changes any more.
    const twice = `${out}-twice`;
    await convert(out, { out: twice });
    expect(openCheckpoint(twice).fingerprint()).toBe(openCheckpoint(out).fingerprint());
  });
});

test('stopped, it leaves nothing behind', async () => {
  const dir = writeRandomLlava(join(scratch, 'random'));
  const controller = new AbortController();
  const at = join(scratch, 'stopped');
  mkdirSync(at);
  await expect(
    convert(dir, { out: join(at, 'out'), signal: controller.signal, onProgress: () => controller.abort() }),
  ).rejects.toThrow(/^stopped; nothing is left/);
  expect(readdirSync(at)).toEqual([]);
});

test('what a killed conversion left is cleaned up by the next one', async () => {
  const dir = writeRandomLlava(join(scratch, 'random2'));
  const at = join(scratch, 'killed');
  mkdirSync(join(at, '.out.999999999.converting'), { recursive: true });
  mkdirSync(join(at, `.out.${process.ppid}.converting`));
  writeFileSync(join(at, '.out.999999999.converting', 'model.safetensors'), 'half');
  await convert(dir, { out: join(at, 'out') });
  expect(readdirSync(at).sort()).toEqual([`.out.${process.ppid}.converting`, 'out']);
});

test('a folder in use, a damaged model and values beyond half precision are refused, and nothing is written', async () => {
  const dir = writeRandomLlava(join(scratch, 'random3'));
  await expect(convert(dir, { out: scratch })).rejects.toThrow(/is not empty; name a new folder/);

  const broken = join(scratch, 'broken');
  cpSync(dir, broken, { recursive: true });
  chmodSync(join(broken, 'model.safetensors'), 0o644);
  writeFileSync(join(broken, 'model.safetensors'), readFileSync(join(dir, 'model.safetensors')).subarray(0, -8));
  await expect(convert(broken, { out: join(scratch, 'none') })).rejects.toThrow(/is cut off/);

  const large = join(scratch, 'large');
  cpSync(dir, large, { recursive: true });
  const file = openSafetensors(join(dir, 'model.safetensors'));
  const weights = new Map([...file.entries.keys()].map((name) => [name, file.readTensor(name, { as: 'float32' })]));
  const name = 'language_model.model.norm.weight';
  weights.set(name, f32(new Float32Array(32).fill(1e6), [32]));
  writeSafetensors(join(large, 'model.safetensors'), weights);
  await expect(convert(large, { out: join(scratch, 'none'), dtype: 'float16' })).rejects.toThrow(
    `${name} has the value 1000000, too large for half precision`,
  );
  expect(existsSync(join(scratch, 'none'))).toBe(false);
  expect(readdirSync(scratch).filter((entry) => entry.endsWith('.converting'))).toEqual([]);
});
