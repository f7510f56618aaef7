/** Converged maps: two seeds agree in every layer that carries weight, and errors are what they say. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hideCells } from '../../src/attribution/hide.ts';
import { RunningMap } from '../../src/attribution/map-error.ts';
import type { PatchValues } from '../../src/attribution/on-pictures.ts';
import { patchMaps } from '../../src/attribution/patch-attribution.ts';
import { noWeight, visualAttributions } from '../../src/attribution/visual-attribution.ts';
import type { Asked, RgbImage } from '../../src/input/segments.ts';
import { readInput } from '../../src/models/answer.ts';
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

test('where visual tokens are no patches, each patch has the turn of the output when it is hidden', async () => {
  const vlm = loadModel('mini-blip2-opt', { threads: 1 });
  const asked = { prompt: 'What is in the top left cell? The answer is:', image: randomPicture(4) };
  const read = (other: Asked) => readInput(vlm, other);
  const input = { asked, reading: await read(asked), read };
  const maps = await patchMaps(vlm, input, [3, 5], { random: new Random(1), budget: 64 });
  expect(maps.by).toBe('hiding');
  const [{ regionOf, values, grid }] = maps.layers[1]!.patches as never as [PatchValues];
  const end = input.reading.batch.sequences[0]!.promptEnd;
  const outputOf = async (image: RgbImage): Promise<Float32Array> => {
    const site = 'layers.5.attn.out';
    const { batch } = await read({ ...asked, image });
    const d = vlm.decoder.hidden;
    return ((await vlm.run({ from: 0, to: 6, read: [site] }, batch))[site]!.data as Float32Array).slice(end * d, (end + 1) * d);
  };
  const clean = await outputOf(asked.image);
  for (const cell of [0, 7, grid[0] * grid[1] - 1]) {
    const changed = await outputOf(hideCells(asked.image, [regionOf(cell)], 'blur'));
    const dot = (a: Float32Array, b: Float32Array): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
    const cosine = dot(clean, changed) / Math.sqrt(dot(clean, clean) * dot(changed, changed));
    expect(values[cell]!).toBeCloseTo((1 - cosine) / 2, 5);
  }
  const spread = await patchMaps(vlm, input, [5], { random: new Random(1), budget: 64, by: 'tokens' });
  const sum = (of: readonly number[]): number => of.reduce((a, b) => a + b, 0);
  expect(sum(spread.layers[0]!.patches[0]!.values)).toBeCloseTo(sum(spread.layers[0]!.values), 5);
  expect((await patchMaps(vlm, input, [5], { random: new Random(1), protocol: 'paper' })).by).toBe('tokens');
  await vlm.release();
});
