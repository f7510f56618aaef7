/** A training run's first gradients and final weights against the reference's. */
import type { Tensor } from '../graph/dtype.ts';
import { tolerances } from './checks.ts';
import type { Fixture } from './fixture.ts';
import type { Subject } from './subject.ts';

const largestOf = (data: Float32Array): number => data.reduce((most, x) => Math.max(most, Math.abs(x)), 0);

/** After one step Adam's first moment is (1 − β1) times the gradient. */
export function firstGradients(state: ReadonlyMap<string, Tensor<'float32'>>): Map<string, Float32Array> {
  const moments = [...state].filter(([name]) => name.startsWith('m:'));
  return new Map(moments.map(([name, { data }]) => [name.slice(2), data.map((m) => m / (1 - 0.9))]));
}

/**
 * Single precision resolves a gradient to this share of the largest term that it is summed from. What is smaller is rounding noise: the
 * gradient of the keys' bias, for one, is zero in exact arithmetic (a softmax does not see what is added to all of its scores).
 */
const resolution = 1e-6;

function expectedGradients(fixture: Fixture): Map<string, Float32Array> {
  const gradient = 'train.0.grad.';
  const names = fixture.tensorNames.filter((name) => name.startsWith(gradient));
  return new Map(names.map((name) => [name.slice(gradient.length), fixture.need(name).data]));
}

export function checkGradients({ fixture, checks }: Subject, actual: ReadonlyMap<string, Float32Array>): void {
  const expected = expectedGradients(fixture);
  const floor = resolution * Math.max(...[...expected.values()].map(largestOf));
  for (const [name, wanted] of expected) {
    const found = actual.get(name);
    const where = `train.0.grad.${name}`;
    const largest = largestOf(wanted);
    // Noise may differ by as much as the noise.
    const scale = largest >= floor ? largest : floor / tolerances.gradient;
    if (found === undefined) checks.fail('training.gradients', `${where}: the adapter has no such weight`, tolerances.gradient);
    else checks.values('training.gradients', tolerances.gradient, where, found, wanted, scale);
  }
}

/**
 * Adam divides a gradient by its own size, so a weight whose gradient is rounding noise goes its full step in a direction that is
 * chance: such a weight may be as far off as the steps can carry two weights apart.
 * @param apart twice the sum of the steps' learning rates
 */
export function checkFinalWeights(
  { fixture, checks }: Subject,
  actual: ReadonlyMap<string, Tensor<'float32'>>,
  apart: number,
): void {
  const check = 'training.final-weights';
  const gradients = expectedGradients(fixture);
  const floor = resolution * Math.max(0, ...[...gradients.values()].map(largestOf));
  for (const name of actual.keys()) {
    const where = `train.final.${name}`;
    const expected = fixture.tensor(where)?.data;
    const found = actual.get(name)?.data;
    if (expected === undefined) continue;
    if (found === undefined || found.length !== expected.length) {
      checks.fail(check, `${where}: ${found?.length ?? 'no'} values, ${expected.length} expected`, tolerances.gradient);
      continue;
    }
    const gradient = gradients.get(name);
    const largest = gradient === undefined ? 0 : largestOf(gradient);
    const noise = largest >= floor ? largest * resolution : floor;
    const far = expected.reduce((most, wanted, i) => {
      const g = Math.abs(gradient?.[i] ?? Number.POSITIVE_INFINITY);
      const d = Math.abs(found[i]! - wanted) - (g <= noise ? apart : 0);
      return d <= most ? most : d;
    }, 0);
    checks.add(check, tolerances.gradient, where, far / largestOf(expected));
  }
}
