/** Converged maps: two seeds agree in every layer that carries weight, and errors are what they say. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { RunningMap } from '../../src/attribution/map-error.ts';
import { noWeight, visualAttributions } from '../../src/attribution/visual-attribution.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Random } from '../../src/random.ts';
import { correlation } from '../correlation.ts';
import { randomPicture } from '../tiny-model.ts';

describe.each(['mini-llava', 'mini-blip2-opt', 'mini-minigpt4'])('%s', (name) => {
  let vlm: Vlm;
  beforeAll(() => {
    vlm = loadModel(name);
  });
  afterAll(() => vlm.release());

  test.each([1, 2, 3])('two seeds give one map in every layer that carries weight (picture %i)', async (picture) => {
    const prompt = 'What is in the top left cell? The answer is:';
    const batch = await vlm.batch([vlm.layout({ prompt, image: randomPicture(picture) })]);
    const layers = Array.from({ length: vlm.decoder.layers }, (_, i) => i);
    const [a, b] = await Promise.all(
      ['one', 'two'].map((seed) => visualAttributions(vlm, batch, layers, { random: new Random(seed) })),
    );
    expect(a!.filter(({ carriesWeight }) => carriesWeight).length).toBeGreaterThan(2);
    a!.forEach((map, i) => {
      const total = map.values.reduce((x, y) => x + y, 0);
      expect(map.carriesWeight).toBe(total >= noWeight);
      if (map.carriesWeight && b![i]!.carriesWeight) expect(correlation(map.values, b![i]!.values)).toBeGreaterThan(0.98);
    });
  });
});

test('errors are those of the normalised map: what moves all values together is none', () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 40 }), fc.nat(), (draws, seed) => {
      const random = new Random(seed);
      const shape = [1, 2, 5];
      const loudness = Array.from({ length: draws }, () => 0.1 + random.uniform());
      const together = new RunningMap(3);
      together.add(Float32Array.from(shape.flatMap((value) => loudness.map((by) => value * by))), draws, false);
      expect(together.estimate().error).toBeLessThan(1e-3);
      expect(together.estimate().agreement).toBeCloseTo(1, 4);
      expect(together.estimate().totalError).toBeGreaterThan(0);
    }),
  );
});

test('the error says how far means of other draws lie away', () => {
  const random = new Random(3);
  const draws = 400;
  const estimates = Array.from({ length: 200 }, () => {
    const running = new RunningMap(4);
    running.add(
      Float32Array.from({ length: 4 * draws }, (_, i) => Math.exp(random.normal()) * (1 + Math.floor(i / draws))),
      draws,
      true,
    );
    return running.estimate();
  });
  const shares = estimates.map(({ values, total }) => values[3]! / total);
  const mean = shares.reduce((a, b) => a + b, 0) / shares.length;
  const spread = Math.sqrt(shares.reduce((sum, share) => sum + (share - mean) ** 2, 0) / (shares.length - 1));
  const said = estimates.reduce((sum, { errors, total }) => sum + errors[3]! / total, 0) / estimates.length;
  expect(said / spread).toBeGreaterThan(0.85);
  expect(said / spread).toBeLessThan(1.15);
});
