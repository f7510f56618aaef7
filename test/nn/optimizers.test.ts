/** Steps of the optimizers against their formulas in double precision: each Adam takes out the start of its own two means. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { add, f32, mul, parameter, square, sum } from '../../src/graph/index.ts';
import type { OptimizerRule } from '../../src/nn/optimizers.ts';
import { Trainer } from '../../src/nn/trainer.ts';
import { compile } from '../../src/runtime/node.ts';

type Adam = Required<Pick<OptimizerRule, 'beta1' | 'beta2'>>;

/** w after `steps` steps on the loss c w² / 2, from 1. */
function adamByHand({ beta1, beta2 }: Adam, curvature: number, rate: number, steps: number): number {
  let [w, m, v] = [1, 0, 0];
  for (let t = 1; t <= steps; t++) {
    const g = curvature * w;
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g * g;
    w -= (rate * (m / (1 - beta1 ** t))) / (Math.sqrt(v / (1 - beta2 ** t)) + 1e-8);
  }
  return w;
}

test('weights with betas of their own follow the formula, each with its own bias correction', async () => {
  const beta = fc.constantFrom(0, 0.5, 0.8, 0.9, 0.99, 0.999);
  const rule = fc.record({ beta1: fc.constantFrom(0, 0.5, 0.9), beta2: beta });
  await fc.assert(
    fc.asyncProperty(rule, rule, async (first, second) => {
      const rules: Readonly<Record<string, Adam>> = { a: first, b: second };
      const half = (name: string) => mul(sum(square(parameter(name, [1]))), 0.5);
      const trainer = await Trainer.create({
        loss: add(half('a'), mul(half('b'), 3)),
        initial: new Map([
          ['a', f32([1], [1])],
          ['b', f32([1], [1])],
        ]),
        rule: (name) => ({ rule: 'adam', ...rules[name]! }),
        compile,
      });
      for (let step = 0; step < 4; step++) await trainer.run({}, 0.05);
      expect(trainer.weights.get('a')!.data[0]).toBeCloseTo(adamByHand(first, 1, 0.05, 4), 5);
      expect(trainer.weights.get('b')!.data[0]).toBeCloseTo(adamByHand(second, 3, 0.05, 4), 5);
      await trainer.release();
    }),
    { numRuns: 12 },
  );
});
