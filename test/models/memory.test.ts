/** Estimates of memory: what they grow with, what they choose, what they refuse. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { loadModel } from '../../src/models/load.ts';
import {
  batchWithin,
  checkFree,
  checkTraining,
  chooseResidency,
  estimateMemory,
  gigabytes,
  type ModelSize,
  parseBytes,
  residencies,
  storedBytes,
  trainingBytes,
} from '../../src/models/memory.ts';
import { writeRandomLlava } from '../tiny-model.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-memory-'));
afterAll(() => rmSync(scratch, { recursive: true }));

/** LLaVA-1.5-7B in half precision. */
const half: ModelSize = {
  vision: { floats: 312e6, int8: 0, int4: 0, bytes: 624e6 },
  decoder: { floats: 6738e6, int8: 0, int4: 0, bytes: 13.48e9 },
  layers: 32,
  hidden: 4096,
  mlp: 11008,
  heads: 32,
  keyWidth: 4096,
  vocabulary: 32064,
  tokens: 640,
  largest: 131e6,
};
/** The same in 4 bits. */
const int4: ModelSize = {
  ...half,
  vision: { floats: 2e6, int8: 310e6, int4: 0, bytes: 360e6 },
  decoder: { floats: 131e6, int8: 131e6, int4: 6476e6, bytes: 4.56e9 },
  largest: 0,
};
const small: ModelSize = {
  vision: { floats: 1e6, int8: 0, int4: 0, bytes: 2e6 },
  decoder: { floats: 1e6, int8: 0, int4: 0, bytes: 2e6 },
  layers: 4,
  hidden: 64,
  mlp: 128,
  heads: 4,
  keyWidth: 64,
  vocabulary: 500,
  tokens: 100,
  largest: 1e5,
};

describe('the way a model is run', () => {
  test('small ones whole, large ones layer by layer, within what is given', () => {
    expect(chooseResidency('small', small, 24e9).residency).toBe('whole');
    const packed = chooseResidency('llava', int4, 8e9);
    expect(packed.residency).toBe('layered');
    expect(packed.bytes).toBeGreaterThan(6476e6 / 2);
    const mapped = chooseResidency('llava', int4, 4e9);
    expect(mapped.residency).toBe('mapped');
    expect(mapped.mapped).toBe(int4.vision.bytes + int4.decoder.bytes);
    expect(chooseResidency('llava', int4, 20e9, { training: true }).residency).toBe('mapped');
    const floats = chooseResidency('llava', half, 20e9);
    expect(floats).toMatchObject({ residency: 'layered', mapped: half.vision.bytes + half.decoder.bytes });
    expect(floats.bytes).toBeLessThan(6e9);
  });

  test('what does not fit is refused, with what to do', () => {
    expect(() => chooseResidency('llava', half, 1e9)).toThrow(
      /^llava needs about \d\.\d GB of memory, and 1\.0 GB may be used; --dtype int4 takes less\. Close other programs/,
    );
    expect(() => chooseResidency('llava', int4, 1e9)).toThrow(/may be used\. Close/);
    expect(() => chooseResidency('llava', half, 20e9, { given: 'whole' })).toThrow('needs about');
    expect(() => checkFree('llava', estimateMemory(int4, 'layered'), 3e9)).toThrow(/needs about .* and 3\.0 GB is free; close/);
    expect(() => checkFree('small', estimateMemory(small, 'whole'), 0)).not.toThrow();
  });

  test('loading keeps to it', async () => {
    const dir = writeRandomLlava(join(scratch, 'random'));
    expect(() => loadModel(dir, { maxMemory: 1e6 })).toThrow(/^random needs about 2\d\d MB of memory, and 1 MB may be used/);
    const vlm = loadModel(dir, { maxMemory: 1e9 });
    expect(vlm.memory).toMatchObject({ residency: 'whole' });
    expect(vlm.batchLimit).toBeGreaterThan(32);
    const tight = loadModel(dir, { maxMemory: Math.ceil(vlm.memory!.bytes) });
    expect(tight.batchLimit).toBe(1);
  });
});

test('estimates grow with every size, and shrink from whole to layered to mapped', () => {
  const sizes: (keyof ModelSize)[] = ['layers', 'hidden', 'mlp', 'heads', 'keyWidth', 'vocabulary', 'tokens'];
  fc.assert(
    fc.property(
      fc.constantFrom(half, int4, small),
      fc.constantFrom(...sizes),
      fc.constantFrom(...residencies),
      (size, name, residency) => {
        const larger = { ...size, [name]: (size[name] as number) * 2 };
        expect(estimateMemory(larger, residency).bytes).toBeGreaterThan(estimateMemory(size, residency).bytes);
      },
    ),
  );
  for (const size of [half, int4]) {
    const [whole, layered, mapped] = residencies.map((residency) => estimateMemory(size, residency).bytes) as [
      number,
      number,
      number,
    ];
    expect(whole).toBeGreaterThan(layered);
    expect(layered).toBeGreaterThanOrEqual(mapped);
  }
});

test('a training step that does not fit is refused, with a micro-batch that would', () => {
  const estimate = estimateMemory(int4, 'layered');
  const check = (records: number, budget: number): number =>
    checkTraining('llava', estimate, { layersAbove: 13, records, budget });
  expect(check(1, 40e9)).toBe(trainingBytes(estimate, 13, 1));
  expect(check(2, 100e9)).toBeGreaterThan(check(1, 100e9));
  expect(() => check(4, trainingBytes(estimate, 13, 2) + 1)).toThrow(
    /over 4 records at once takes about .*; --micro-batch 2 takes less/,
  );
  expect(() => check(1, 8e9)).toThrow(/over 1 record at once .* and 8\.0 GB may be used; insert at a later layer/);
  expect(checkTraining('small', estimateMemory(small, 'whole'), { layersAbove: 2, records: 16, budget: 0 })).toBeLessThan(1e9);
});

test('a batch uses what is left of the budget', () => {
  const estimate = estimateMemory(int4, 'layered');
  expect(batchWithin(estimate, estimate.bytes)).toBe(1);
  expect(batchWithin(estimate, estimate.bytes + 2.5 * estimate.perInput)).toBe(3);
  expect(batchWithin(estimate, 0)).toBe(1);
  expect(batchWithin(estimate, Number.POSITIVE_INFINITY)).toBe(Number.POSITIVE_INFINITY);
});

test.each([
  ['8GB', 8e9],
  ['1.5g', 1.5e9],
  ['500 MB', 500e6],
  ['2GiB', 2 * 1024 ** 3],
  ['4096', 4096],
  ['64k', 64e3],
])('%s is %i bytes', (text, bytes) => {
  expect(parseBytes(text)).toBe(bytes);
});

test.each(['', '8 gigs', '-1GB', 'GB', '1e9'])('%j is not a size', (text) => {
  expect(() => parseBytes(text)).toThrow('is not a size; give one such as 8GB');
});

test('sizes in words, and on disk', () => {
  expect([gigabytes(8e9), gigabytes(12.34e9), gigabytes(5e6)]).toEqual(['8.0 GB', '12.3 GB', '5 MB']);
  // 4 bits, and of 32 numbers a float and half a byte.
  expect(storedBytes({ floats: 10, int8: 0, int4: 32 }, 2)).toBe(20 + 16 + 4 + 0.5);
});
