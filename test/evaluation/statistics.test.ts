import { expect, test } from 'vitest';
import { figuresOf } from '../../src/evaluation/metrics.ts';
import { incompleteBeta, mean, pairedTTest, standardDeviation, welchTTest } from '../../src/evaluation/statistics.ts';
import { comparisonRows, toMarkdown } from '../../src/evaluation/tables.ts';

test('mean and standard deviation', () => {
  expect(mean([1, 2, 3, 4])).toBe(2.5);
  expect(standardDeviation([1, 2, 3, 4])).toBeCloseTo(1.2909944487358056, 12);
  expect(standardDeviation([3])).toBe(0);
});

test('incomplete beta at known values', () => {
  expect(incompleteBeta(0.5, 2, 2)).toBeCloseTo(0.5, 12);
  // I_x(1, b) = 1 - (1 - x)^b
  expect(incompleteBeta(0.3, 1, 5)).toBeCloseTo(1 - 0.7 ** 5, 12);
  // I_x(1/2, 1/2) = 2/π asin(√x)
  expect(incompleteBeta(0.2, 0.5, 0.5)).toBeCloseTo((2 / Math.PI) * Math.asin(Math.sqrt(0.2)), 12);
});

test('t-tests: with one degree of freedom the distribution is Cauchy, with two it has a closed form', () => {
  const one = pairedTTest([1, 4], [0, 1]);
  expect(one).toMatchObject({ t: 2, degrees: 1 });
  expect(one.p).toBeCloseTo(1 - (2 / Math.PI) * Math.atan(2), 12);
  const two = pairedTTest([1, 2, 4], [0, 0, 0]);
  expect(two.p).toBeCloseTo(1 - two.t / Math.sqrt(two.t ** 2 + 2), 12);
  // Two equal halves: Welch's degrees are n1 + n2 - 2.
  const welch = welchTTest([1, 2, 3], [4, 5, 6]);
  expect(welch.degrees).toBeCloseTo(4, 12);
  expect(welch.t).toBeCloseTo(-3 / Math.sqrt(2 / 3), 12);
  expect(welchTTest([1, 1], [1, 1]).p).toBe(1);
  expect(() => pairedTTest([1], [2])).toThrow('at least two pairs');
});

test('a comparison shows means and deviations as percentages', () => {
  const run = (reliability: number) => ({ ...figuresOf([]), reliability });
  const rows = comparisonRows([
    { name: 'vead', runs: [run(0.9), run(1)] },
    { name: 'ft-v', runs: [run(0.5)] },
  ]);
  expect(rows.head).toEqual(['Editor', 'Rel', 'T-Gen', 'M-Gen', 'T-Loc', 'M-Loc', 'Average']);
  expect(rows.rows.map((row) => row.slice(0, 2))).toEqual([
    ['vead', '95.00 ± 7.07'],
    ['ft-v', '50.00'],
  ]);
  expect(toMarkdown(rows).split('\n')[1]).toBe('|---|---:|---:|---:|---:|---:|---:|');
});
