import { describe, expect, test } from 'vitest';
import {
  bootstrapInterval,
  incompleteBeta,
  kendall,
  mean,
  pairedTTest,
  quantile,
  standardDeviation,
  tQuantile,
  twoWayInterval,
} from '../../src/evaluation/statistics.ts';
import { type Rows, toCsv, toLatex, toMarkdown } from '../../src/evaluation/tables.ts';
import { Random } from '../../src/random.ts';

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
  expect(() => pairedTTest([1], [2])).toThrow('at least two pairs');
});

test('quantiles of t', () => {
  expect(tQuantile(0.05, 1)).toBeCloseTo(12.7062, 3);
  expect(tQuantile(0.05, 10)).toBeCloseTo(2.2281, 4);
  expect(tQuantile(0.01, 1e6)).toBeCloseTo(2.5758, 3);
});

describe('intervals over records and seeds', () => {
  /** x_ij = 5 + a_i + b_j + e_ij */
  const drawn = (random: Random, k: number, n: number, [seeds, records, rest]: readonly number[]): number[][] => {
    const ofRecords = random.normals(n, records!);
    return [...random.normals(k, seeds!)].map((a) => Array.from(random.normals(n, rest!), (e, j) => 5 + a + ofRecords[j]! + e));
  };

  test.each([
    [3, 200, [0.1, 1, 0.5]],
    [5, 40, [0, 1, 1]],
    [4, 100, [0.5, 0.2, 1]],
    [1, 60, [0, 1, 0]],
  ] as const)('of %i seeds and %i records hold the mean in about 95 %% of draws', (k, n, deviations) => {
    const random = new Random(`intervals/${k}/${n}`);
    const draws = 600;
    let held = 0;
    for (let i = 0; i < draws; i++) {
      const { low, high } = twoWayInterval(drawn(random, k, n, deviations));
      if (low <= 5 && 5 <= high) held++;
    }
    expect(held / draws).toBeGreaterThan(0.92);
    expect(held / draws).toBeLessThanOrEqual(1);
  });

  test('of one run is that of a t-test over records; equal seeds change nothing but what is known', () => {
    const run = [0.2, 0.4, 0.9, 1, 0.3];
    const half = tQuantile(0.05, 4) * (standardDeviation(run) / Math.sqrt(5));
    expect(twoWayInterval([run])).toEqual({
      low: expect.closeTo(mean(run) - half, 10),
      high: expect.closeTo(mean(run) + half, 10),
    });
    expect(twoWayInterval([run, run]).low).toBeCloseTo(mean(run) - half, 10);
    expect(
      twoWayInterval([
        [1, 1],
        [1, 1],
      ]),
    ).toEqual({ low: 1, high: 1 });
    expect(() => twoWayInterval([[1, 2], [1]])).toThrow('the same ones for every seed');
  });
});

test('a paired t-test at a value from Student (1908): ten patients, two soporifics', () => {
  const first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0, 2];
  const second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
  const { t, degrees, p } = pairedTTest(second, first);
  expect(t).toBeCloseTo(4.0621, 4);
  expect(degrees).toBe(9);
  expect(p).toBeCloseTo(0.002833, 6);
});

test('bootstrap: seeded, and near the normal interval where that holds', () => {
  const values = Array.from({ length: 400 }, (_, i) => Math.sin(i) ** 2 + 0.001 * i);
  const interval = bootstrapInterval(values, { seed: 7, resamples: 4000 });
  expect(bootstrapInterval(values, { seed: 7, resamples: 4000 })).toEqual(interval);
  expect(bootstrapInterval(values, { seed: 8, resamples: 4000 })).not.toEqual(interval);
  const half = (1.96 * standardDeviation(values)) / Math.sqrt(values.length);
  expect(Math.abs(interval.low - (mean(values) - half))).toBeLessThan(0.005);
  expect(Math.abs(interval.high - (mean(values) + half))).toBeLessThan(0.005);
  expect(bootstrapInterval([3, 3, 3], { seed: 1 })).toEqual({ low: 3, high: 3 });
  expect(() => bootstrapInterval([], { seed: 1 })).toThrow('at least one value');
});

test('quantiles lie between neighbours; rankings agree, disagree, or tie', () => {
  expect([0, 0.25, 0.5, 1].map((share) => quantile([1, 2, 3, 4], share))).toEqual([1, 1.75, 2.5, 4]);
  expect(kendall([1, 2, 3], [10, 20, 30])).toBe(1);
  expect(kendall([1, 2, 3], [3, 2, 1])).toBe(-1);
  // One of three pairs is tied on one side: 2 / sqrt(3 * 2).
  expect(kendall([1, 2, 3], [1, 1, 2])).toBeCloseTo(2 / Math.sqrt(6), 12);
  expect(kendall([1, 1], [1, 2])).toBeNull();
});

test('one table in three formats', () => {
  const rows: Rows = {
    head: ['Settings', 'Rel', 'Average'],
    rows: [
      ['VEAD', '95.99', '**96.12 ± 0.97** *'],
      ['− ℓ_im↓, "a"', 95.5, '94.09 %'],
    ],
    align: ['left', 'right', 'right'],
  };
  expect(toMarkdown(rows)).toMatchInlineSnapshot(`
    "| Settings | Rel | Average |
    |---|---:|---:|
    | VEAD | 95.99 | **96.12 ± 0.97** * |
    | − ℓ_im↓, "a" | 95.5 | 94.09 % |
    "
  `);
  expect(toLatex(rows)).toMatchInlineSnapshot(`
    "\\begin{tabular}{lrr}
    \\toprule
    Settings & Rel & Average \\\\
    \\midrule
    VEAD & 95.99 & \\textbf{96.12 $\\pm$ 0.97} * \\\\
    $-$ $\\ell$\\_im$\\downarrow$, "a" & 95.5 & 94.09 \\% \\\\
    \\bottomrule
    \\end{tabular}
    "
  `);
  expect(toCsv(rows)).toMatchInlineSnapshot(`
    "Settings,Rel,Average
    VEAD,95.99,**96.12 ± 0.97** *
    "− ℓ_im↓, ""a""",95.5,94.09 %
    "
  `);
});
