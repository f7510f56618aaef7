/** Measures of heat maps: what must hold for any map. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Box, massInside, meanOf, overlap } from '../../src/attribution/map-measures.ts';

const side = fc.integer({ min: 1, max: 9 });
const map = fc.tuple(side, side).chain(([rows, columns]) =>
  fc.record({
    grid: fc.constant([rows, columns] as const),
    values: fc
      .array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: rows * columns, maxLength: rows * columns })
      // Mass that is not denormal: shares of it can be formed.
      .filter((values) => values.some((value) => value > 1e-6)),
  }),
);
const fraction = fc.double({ min: 0, max: 1, noNaN: true });

test('parts that tile the picture share out all the mass, wherever the borders lie', () => {
  fc.assert(
    fc.property(map, fraction, fraction, ({ grid, values }, x, y) => {
      const tiles: Box[] = [
        [0, 0, x, y],
        [x, 0, 1 - x, y],
        [0, y, x, 1 - y],
        [x, y, 1 - x, 1 - y],
      ];
      const shares = tiles.map((box) => massInside(values, grid, box)!);
      for (const share of shares) expect(share).toBeGreaterThanOrEqual(0);
      expect(shares.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9);
    }),
  );
});

test('an even map has a part’s own area in it', () => {
  fc.assert(
    fc.property(side, side, fraction, fraction, (rows, columns, x, y) => {
      const even = new Array<number>(rows * columns).fill(3);
      expect(massInside(even, [rows, columns], [0, 0, x, y])).toBeCloseTo(x * y, 9);
    }),
  );
});

test('a single bright patch is inside its quarter', () => {
  const values = new Array<number>(36).fill(0);
  values[7] = 2;
  expect(massInside(values, [6, 6], [0, 0, 0.5, 0.5])).toBe(1);
  expect(massInside(values, [6, 6], [0.5, 0, 0.5, 0.5])).toBe(0);
  expect(massInside(new Array<number>(36).fill(0), [6, 6], [0, 0, 1, 1])).toBeUndefined();
  expect(() => massInside([1], [2, 2], [0, 0, 1, 1])).toThrow(/2 by 2 has not 1/);
});

test('overlap is symmetric, 1 for a map and any multiple of it, 0 without a shared place', () => {
  fc.assert(
    fc.property(map, fc.double({ min: 0.1, max: 10, noNaN: true }), fc.infiniteStream(fraction), ({ values }, factor, others) => {
      const other = [...others.take(values.length)].map((value) => value + 0.01);
      const alike = overlap(values, other)!;
      expect(alike).toBeCloseTo(overlap(other, values)!, 12);
      expect(alike).toBeGreaterThanOrEqual(0);
      expect(alike).toBeLessThanOrEqual(1 + 1e-9);
      expect(
        overlap(
          values,
          values.map((value) => factor * value),
        ),
      ).toBeCloseTo(1, 9);
    }),
  );
  expect(overlap([1, 0, 2], [0, 5, 0])).toBe(0);
  expect(overlap([0, 0], [1, 1])).toBeUndefined();
  expect(() => overlap([1], [1, 2])).toThrow(/1 and 2 places/);
  expect(meanOf([1, undefined, 3])).toBe(2);
  expect(meanOf([undefined])).toBeUndefined();
});
