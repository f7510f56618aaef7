/** Where to edit: what measurements lead to, and the measurement on a model of which the answer is known. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { choosePlan, planEdit } from '../../src/attribution/plan.ts';
import { loadModel } from '../../src/models/load.ts';
import { marked, readingLayer, writePlanted } from './planted.ts';

test('the last layer whose visual tokens still carry most of the answer', () => {
  expect(choosePlan([0.98, 0.96, 0.82, 0.74, 0.65, 0.32, 0], [0.1, 0.1, 0.8, 0, 0.1, 0.7, 1])).toEqual({ layer: 2, traced: [5] });
  expect(choosePlan([1, 1, 1, 1], [0, 0, 0, 1]).layer).toBe(2);
  fc.assert(
    fc.property(fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 2, maxLength: 40 }), (carried) => {
      const { layer, traced } = choosePlan(carried, carried);
      expect(layer).toBeGreaterThanOrEqual(0);
      expect(layer).toBeLessThan(carried.length - 1);
      for (const one of traced) expect(one > layer && one < carried.length).toBe(true);
    }),
  );
});

test('a planted model is edited just before the layer that reads the picture', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'visedit-plan-'));
  const vlm = loadModel(writePlanted(join(dir, 'model')), { threads: 1 });
  const prompt = 'What is in the middle? The answer is:';
  const white = marked(32, 32, vlm.processor(marked(32, 32)).regionOf(5));
  const plan = await planEdit(vlm, [
    { prompt, image: white },
    { prompt, image: marked(32, 32) },
    { prompt, image: async () => white },
  ]);
  expect(plan.layer).toBe(readingLayer - 1);
  expect(plan.traced).toEqual([readingLayer]);
  expect(plan.evidence.pairs).toBe(2);
  await expect(
    planEdit(vlm, [
      { prompt, image: white },
      { prompt, image: white },
    ]),
  ).rejects.toThrow(/clearly different answers/);
  await expect(planEdit(vlm, [{ prompt, image: white }])).rejects.toThrow(/at least two/);
  await vlm.release();
  rmSync(dir, { recursive: true });
});
