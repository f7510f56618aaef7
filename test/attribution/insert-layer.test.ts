import fc from 'fast-check';
import { expect, test } from 'vitest';
import { chooseInsertLayer } from '../../src/attribution/insert-layer.ts';

test('the editor stands right before the layers that contribute', () => {
  expect(chooseInsertLayer([0.014, 0.015, 0.359, 0.583, 0.703, 0.802])).toEqual({ layer: 1, traced: [2, 3, 4] });
});

test('any contributions give a layer with one after it, and traced layers that come after', () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 2, maxLength: 40 }), (contribution) => {
      const { layer, traced } = chooseInsertLayer(contribution);
      expect(layer).toBeGreaterThanOrEqual(0);
      expect(layer).toBeLessThan(contribution.length - 1);
      expect(traced.length).toBeGreaterThan(0);
      for (const i of traced) expect(i > layer && i < contribution.length).toBe(true);
    }),
  );
});
