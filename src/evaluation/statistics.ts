/** Means over seeds and tests of their differences: what stands beside a table's figures. */

import { Random } from '../random.ts';

export function mean(values: readonly number[]): number {
  if (values.length === 0) throw new Error('the mean of no values is not defined');
  return values.reduce((sum, x) => sum + x, 0) / values.length;
}

/** Sample standard deviation (n − 1); 0 for a single value. */
export function standardDeviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const m = mean(values);
  return Math.sqrt(values.reduce((sum, x) => sum + (x - m) ** 2, 0) / (values.length - 1));
}

export interface TTest {
  readonly t: number;
  readonly degrees: number;
  /** two-sided */
  readonly p: number;
}

/** Paired t-test of equal means: the same seeds or records under two methods. */
export function pairedTTest(a: readonly number[], b: readonly number[]): TTest {
  if (a.length !== b.length) throw new Error(`a paired test needs as many values on both sides, got ${a.length} and ${b.length}`);
  if (a.length < 2) throw new Error('a t-test needs at least two pairs');
  const differences = a.map((x, i) => x - b[i]!);
  return tTest(mean(differences), standardDeviation(differences) / Math.sqrt(a.length), a.length - 1);
}

export interface Interval {
  readonly low: number;
  readonly high: number;
}

/**
 * Percentile bootstrap of a mean (Efron 1979): values are drawn with replacement, as many as there are, `resamples` times; the interval holds the
 * middle `level` of the means. Paired data are given as their differences. The same seed gives the same interval.
 */
export function bootstrapInterval(
  values: readonly number[],
  { seed, resamples = 2000, level = 0.95 }: { seed: string | number; resamples?: number; level?: number },
): Interval {
  if (values.length === 0) throw new Error('a bootstrap needs at least one value');
  const random = new Random(`${seed}/bootstrap`);
  const n = values.length;
  const means = Float64Array.from({ length: resamples }, () => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += values[random.int(n)]!;
    return sum / n;
  }).sort();
  return { low: quantile(means, (1 - level) / 2), high: quantile(means, (1 + level) / 2) };
}

/** The t that a two-sided test with so many degrees of freedom exceeds with probability `p`. */
export function tQuantile(p: number, degrees: number): number {
  const tail = (t: number): number => incompleteBeta(degrees / (degrees + t * t), degrees / 2, 0.5);
  let [low, high] = [0, 1];
  while (tail(high) > p) high *= 2;
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2;
    if (tail(middle) > p) low = middle;
    else high = middle;
  }
  return high;
}

/**
 * The interval of a mean over both records and seeds: what it would be on other records under other seeds. With x_ij of seed i and record j,
 *   V = Σ_j (x̄_j − x̄)² / (n (n − 1)) + Σ_i (x̄_i − x̄)² / (k (k − 1)) − Σ_ij (x_ij − x̄_i − x̄_j + x̄)² / (n k (n − 1) (k − 1)),
 * the variance of the mean where both are drawn (two-way clustering, Cameron, Gelbach & Miller 2011), and t with Satterthwaite's degrees of freedom. With one run
 * the seeds' part is not known, and the interval is that over records.
 * @param runs one list of values for each seed, of the same records in the same order
 */
export function twoWayInterval(runs: readonly (readonly number[])[], level = 0.95): Interval {
  const [k, n] = [runs.length, runs[0]?.length ?? 0];
  if (n < 2 || runs.some((run) => run.length !== n))
    throw new Error('an interval over records and seeds needs at least two records, the same ones for every seed');
  const records = Array.from({ length: n }, (_, j) => mean(runs.map((run) => run[j]!)));
  const seeds = runs.map(mean);
  const middle = mean(seeds);
  const ofRecords = standardDeviation(records) ** 2 / n;
  const ofSeeds = k < 2 ? 0 : standardDeviation(seeds) ** 2 / k;
  const rest = runs.reduce(
    (sum, run, i) => sum + run.reduce((part, x, j) => part + (x - seeds[i]! - records[j]! + middle) ** 2, 0),
    0,
  );
  const both = k < 2 ? 0 : rest / (n * k * (n - 1) * (k - 1));
  const variance = Math.max(ofRecords + ofSeeds - both, ofRecords, ofSeeds);
  if (variance === 0) return { low: middle, high: middle };
  const degrees = variance ** 2 / (ofRecords ** 2 / (n - 1) + (k < 2 ? 0 : ofSeeds ** 2 / (k - 1)));
  const half = tQuantile(1 - level, degrees) * Math.sqrt(variance);
  return { low: middle - half, high: middle + half };
}

/** Of sorted values, between neighbours in proportion. */
export function quantile(sorted: ArrayLike<number>, share: number): number {
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(sorted.length - 1, below + 1);
  return sorted[below]! + (at - below) * (sorted[above]! - sorted[below]!);
}

/** Kendall's τ-b of two rankings of the same things: 1 for the same order, -1 for the opposite one, ties corrected for; null where one side is all ties. */
export function kendall(a: readonly number[], b: readonly number[]): number | null {
  if (a.length !== b.length) throw new Error(`two rankings need as many values on both sides, got ${a.length} and ${b.length}`);
  let [agree, untiedA, untiedB] = [0, 0, 0];
  for (let i = 0; i < a.length; i++)
    for (let j = 0; j < i; j++) {
      const [x, y] = [Math.sign(a[i]! - a[j]!), Math.sign(b[i]! - b[j]!)];
      agree += x * y;
      untiedA += Math.abs(x);
      untiedB += Math.abs(y);
    }
  return untiedA === 0 || untiedB === 0 ? null : agree / Math.sqrt(untiedA * untiedB);
}

function tTest(difference: number, error: number, degrees: number): TTest {
  if (error === 0)
    return { t: difference === 0 ? 0 : Math.sign(difference) * Number.POSITIVE_INFINITY, degrees, p: difference === 0 ? 1 : 0 };
  const t = difference / error;
  return { t, degrees, p: incompleteBeta(degrees / (degrees + t * t), degrees / 2, 0.5) };
}

/** Lanczos, g = 7, n = 9. */
function logGamma(x: number): number {
  const c = [
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905,
    -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
  ];
  if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
  const y = x - 1;
  const t = y + 7.5;
  const sum = c.slice(1).reduce((total, value, i) => total + value / (y + i + 1), c[0]!);
  return 0.5 * Math.log(2 * Math.PI) + (y + 0.5) * Math.log(t) - t + Math.log(sum);
}

/** I_x(a, b), regularised, by Lentz's continued fraction. */
export function incompleteBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  // The fraction converges fast only on this side.
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log(1 - x)) / a;
  const tiny = 1e-300;
  const away = (value: number): number => (Math.abs(value) < tiny ? tiny : value);
  let c = 1;
  let d = 1 / away(1 - ((a + b) * x) / (a + 1));
  let result = d;
  for (let m = 1; m <= 500; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away(1 + even * d);
    c = away(1 + even / c);
    result *= c * d;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away(1 + odd * d);
    c = away(1 + odd / c);
    const change = c * d;
    result *= change;
    if (Math.abs(change - 1) < 1e-15) break;
  }
  return front * result;
}
