/** Published sizes of modern families: their numbers of weights, and folders of their shape that open but for the weights. */
import { rmSync } from 'node:fs';
import { afterAll, expect, test } from 'vitest';
import { modernShapes } from '../../scripts/modern-shapes.ts';
import { writeCompanions } from '../../scripts/random-checkpoint.ts';
import type { Checkpoint } from '../../src/files/folder.ts';
import { sizeOf } from '../../src/graph/dtype.ts';
import { describeFolder } from '../../src/models/layouts.ts';
import { weightShapes } from '../../src/models/load.ts';
import { fastestWithin } from '../../src/models/memory.ts';
import { modelSize, sizeAs } from '../../src/models/size.ts';
import { weightUses } from '../../src/models/weights.ts';
import { temporaryFolder } from '../tiny-world.ts';

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

/** 10⁹ weights as their pages say, rounded down to two places. */
const published: Readonly<Record<keyof typeof modernShapes, number>> = {
  ...{ 'smolvlm2-256m': 0.25, 'smolvlm2-500m': 0.5, 'smolvlm2-2.2b': 2.24 },
  ...{ 'qwen2.5-vl-3b': 3.75, 'qwen2.5-vl-7b': 8.29 },
  ...{ 'qwen3-vl-2b': 2.12, 'qwen3-vl-4b': 4.43, 'qwen3-vl-8b': 8.76 },
  ...{ 'llava-onevision-0.5b': 0.89, 'llava-onevision-7b': 8.03, 'gemma-3-4b': 4.3 },
  ...{ 'internvl3-1b': 0.93, 'internvl3-2b': 2.08, 'internvl3-8b': 7.94 },
};

test.each(Object.keys(published) as (keyof typeof published)[])('%s has as many weights as it should', (name) => {
  const { architecture } = modernShapes[name]();
  const total = [...weightShapes(architecture).values()].reduce((sum, shape) => sum + sizeOf(shape), 0);
  expect(Math.floor(total / 1e7) / 100).toBe(published[name]);
});

const none = { has: () => false } as unknown as Checkpoint;

test('int4 of Qwen3-VL-2B answers in 4 GB, float32 of SmolVLM2-256M in 3', () => {
  const within = (name: keyof typeof published, type: 'int4' | 'float32'): number => {
    const { architecture } = modernShapes[name]();
    return fastestWithin(sizeAs(modelSize(architecture, weightUses(architecture), none, type), type), 16e9).bytes;
  };
  expect(within('qwen3-vl-2b', 'int4')).toBeLessThan(4e9);
  expect(within('smolvlm2-256m', 'float32')).toBeLessThan(3e9);
});

/** One size of each family, and the visual tokens of pictures of 640 x 480 and of 100 x 400. */
test.each([
  ['smolvlm2-256m', 832, 320],
  ['qwen2.5-vl-3b', 391, 56],
  ['qwen3-vl-2b', 300, 64],
  ['llava-onevision-0.5b', undefined, undefined],
  ['gemma-3-4b', 256, 256],
  ['internvl3-1b', 3328, 1280],
] as const)('%s: a folder of its shape has a tokenizer and a processor that fit', (name, wide, tall) => {
  const model = modernShapes[name]();
  const dir = temporaryFolder();
  folders.push(dir);
  writeCompanions(dir, model, model.architecture.decoder.vocabulary);
  const { architecture, processor, tokenizer } = describeFolder(dir).open({ dir, checkpoint: none });
  const count = (width: number, height: number): number =>
    processor({ width, height, data: new Uint8Array(3 * width * height) }).count;
  const counts = [count(640, 480), count(100, 400)];
  expect(counts.every((one) => Number.isInteger(one) && one > 0)).toBe(true);
  if (wide !== undefined) expect(counts).toEqual([wide, tall]);
  const picture = { key: 'x', count: counts[0]!, see: () => Promise.reject(new Error('not looked at')) };
  const laid = architecture.layout([{ picture }, { text: 'What is there?' }], tokenizer);
  const runs = laid.flatMap((token) => (typeof token === 'number' ? [] : [token.run]));
  expect(runs.reduce((a, b) => a + b, 0)).toBe(counts[0]);
});
