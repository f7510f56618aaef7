/** The sentences of "Why": what numbers become in words. */
import { expect, test } from 'vitest';
import { explainLens, explainMaps, explainModules, loudestLayer, placeOf } from '../../apps/studio/src/views/why/explain.ts';

const key = { id: 7, text: ' pizza', predicted: true, probability: 0.9 };
const lens = (layer: number, id: number, text: string, probability: number, rank: number) => ({
  layer,
  key_probability: rank === 0 ? probability : 0.01,
  key_rank: rank,
  tokens: [{ id, text, probability }],
});

test('the layer from which a word is the first choice to the end is named, and what stood there before', () => {
  const found = explainLens(key, [
    lens(0, 7, ' pizza', 0.2, 0),
    lens(1, 3, ' cake', 0.4, 5),
    lens(2, 7, ' pizza', 0.6, 0),
    lens(3, 7, ' pizza', 0.9, 0),
  ]);
  expect(found).toBe(
    '“pizza” is the first choice from layer 2 on; one layer before, it was “cake” (40%). It was first in layer 0 already, and lost that place again.',
  );
});

test('a word that is not said is not explained as if it were', () => {
  expect(explainLens(key, [lens(0, 3, ' cake', 0.97, 4)])).toContain(
    'does not say “pizza” here: its first choice is “cake” (97%)',
  );
});

test('the strongest module is named, and no module where none speaks', () => {
  expect(explainModules(key, [0, 1], { attn: [0.1, 0.2], mlp: [0, 0.7] })).toBe(
    'The strongest voice for “pizza” is the MLP in layer 1.',
  );
  expect(explainModules(key, [0, 1], { attn: [0.1, 0.5], mlp: [0, 0.7] })).toContain('then attention in layer 1');
  expect(explainModules(key, [0, 1], { attn: [0.001, -0.4], mlp: [0, 0] })).toContain('No single part');
  expect(loudestLayer([3, 5], { attn: [0.1, 0.4], mlp: [0.9, 0] })).toBe(5);
});

test('a place is named by where the weight lies, and an even map has none', () => {
  const grid: [number, number] = [6, 6];
  const spot = new Float32Array(36);
  spot[4] = 1;
  spot[5] = 2;
  expect(placeOf(spot, grid)).toEqual({ where: 'at the top right', share: 1 });
  expect(placeOf(new Float32Array(36), grid)).toBeUndefined();
  const visual = (patches: number[]) => ({
    grid,
    seen: [0, 0, 1, 1] as [number, number, number, number],
    layers: [{ layer: 2, sigma: 1, draws: 256, converged: true, carries_weight: true, error: 0.01, patches }],
  });
  expect(explainMaps(visual([...spot]), 2)).toBe(
    'In layer 2 it looks mostly at the top right: a tenth of the patches has 100% of the weight.',
  );
  expect(explainMaps(visual(Array.from({ length: 36 }, () => 1)), 2)).toContain('the whole picture');
  expect(explainMaps(visual([...new Float32Array(36)]), 2)).toContain('Nothing in the picture');
});
