/** A training run's first gradients and final weights against the reference's, as exactly as single precision determines them. */
import type { Tensor } from '../../src/graph/dtype.ts';
import { type Checks, tolerances } from './checks.ts';
import type { Fixture } from './fixture.ts';
import { noiseShare } from './meta.ts';
import type { Subject } from './subject.ts';

export type Values = ReadonlyMap<string, Float32Array>;

const largestOf = (data: Float32Array): number => data.reduce((most, x) => Math.max(most, Math.abs(x)), 0);

/** After one step Adam's first moment is (1 − β1) times the gradient. */
export function firstGradients(state: ReadonlyMap<string, Tensor<'float32'>>): Values {
  const moments = [...state].filter(([name]) => name.startsWith('m:'));
  return new Map(moments.map(([name, { data }]) => [name.slice(2), data.map((m) => m / (1 - 0.9))]));
}

/** The largest change of each element from `values` to any of `others`. */
export function spreadOf(values: Values, others: readonly Values[]): Values {
  return new Map(
    [...values].map(([name, data]) => [
      name,
      data.map((x, i) => Math.max(0, ...others.map((other) => Math.abs((other.get(name)?.[i] ?? x) - x)))),
    ]),
  );
}

/** Single precision keeps an element of a gradient to about this share of its tensor's largest one. */
const resolution = 1e-5;

function expectedGradients(fixture: Fixture): Values {
  const gradient = `${fixture.meta.training!.prefix(0)}grad.`;
  const names = fixture.tensorNames.filter((name) => name.startsWith(gradient));
  return new Map(names.map((name) => [name.slice(gradient.length), fixture.need(name).data]));
}

const largestOfAll = (gradients: Values): number => Math.max(0, ...[...gradients.values()].map(largestOf));

/** @param spread how far each element moves when the inputs move within their tolerance (a ReLU may turn) */
export function checkGradients({ fixture, checks }: Subject, actual: Values, spread: Values): void {
  const { prefix, scaleOf } = fixture.meta.training!;
  const expected = expectedGradients(fixture);
  const all = largestOfAll(expected);
  for (const [name, wanted] of expected) {
    const scale = scaleOf(largestOf(wanted), all);
    compareRounded(
      checks,
      'training.gradients',
      tolerances.gradient,
      `${prefix(0)}grad.${name}`,
      actual.get(name),
      wanted,
      scale,
      (i) => spread.get(name)?.[i] ?? 0,
    );
  }
}

/**
 * Adam divides a gradient by its own size, so that rounding moves a weight by its share of the gradient: all the way, in a direction that
 * is chance, where the gradient is nothing but rounding. By so much a weight may be off beyond the tolerance.
 * @param spread as above
 * @param apart how far the steps can carry two weights apart: twice the sum of the learning rates
 */
export function checkFinalWeights({ fixture, checks }: Subject, actual: Values, spread: Values, apart: number): void {
  const gradients = expectedGradients(fixture);
  const floor = noiseShare * largestOfAll(gradients);
  const prefix = 'train.final.';
  for (const where of fixture.tensorNames.filter((one) => one.startsWith(prefix))) {
    const name = where.slice(prefix.length);
    const expected = fixture.need(where).data;
    const rounding = roundingOf(gradients.get(name), floor);
    const allowed = (i: number): number => apart * rounding(i) + (spread.get(name)?.[i] ?? 0);
    compareRounded(
      checks,
      'training.final-weights',
      tolerances.gradient,
      where,
      actual.get(name),
      expected,
      largestOf(expected),
      allowed,
    );
  }
}

/** The share of each element of a gradient that is rounding, from 0 to 1. */
function roundingOf(gradient: Float32Array | undefined, floor: number): (i: number) => number {
  if (gradient === undefined) return () => 0;
  const largest = largestOf(gradient);
  if (largest < floor) return () => 1;
  // Exactly zero: no sample of the step reaches this weight.
  return (i) => (gradient[i] === 0 ? 0 : Math.min(1, (resolution * largest) / Math.abs(gradient[i]!)));
}

/**
 * Differences over `scale`; of those beyond the tolerance, what rounding explains does not count.
 * @param allowed by how much rounding may move an element
 * @returns whether some are beyond the tolerance, and rounding explains them
 */
export function compareRounded(
  checks: Checks,
  check: string,
  tolerance: number,
  where: string,
  actual: Float32Array | undefined,
  expected: Float32Array,
  scale: number,
  allowed: (i: number) => number,
): boolean {
  if (actual?.length !== expected.length) {
    checks.fail(check, `${where}: ${actual?.length ?? 'no'} values, ${expected.length} expected`, tolerance);
    return false;
  }
  let far = 0;
  let [beyond, largest] = [0, 0];
  expected.forEach((wanted, i) => {
    const d = Math.abs(actual[i]! - wanted) / scale;
    const within = d <= tolerance;
    far = Math.max(far, within ? d : d - allowed(i) / scale);
    if (within) return;
    beyond++;
    largest = Math.max(largest, d);
  });
  checks.add(check, tolerance, where, far);
  if (beyond > 0)
    checks.note(
      check,
      `${where}: ${beyond} of ${expected.length} are off by up to ${largest.toExponential(1)}, rounding included`,
    );
  return beyond > 0 && far <= tolerance;
}
