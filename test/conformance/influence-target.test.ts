/** What rounding may do to influence targets: nothing where contributions are ordinary, and no more than it does where they are tiny. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Check, Checks } from '../../lab/conformance/checks.ts';
import { checkTarget, RESOLUTION } from '../../lab/conformance/influence-target.ts';
import { f32 } from '../../src/graph/dtype.ts';
import { Random } from '../../src/random.ts';

const tokens = 6;

/** Contributions of two samples whose sums are about `size`, and the targets that differ from theirs by `error` at one place. */
function checked(size: number, error: number, seed: number): { check: Check; own: Float32Array; used: Float32Array } {
  const random = new Random(seed);
  const contributions = Float32Array.from({ length: 2 * tokens }, () => ((0.1 + random.uniform()) * size) / tokens);
  const own = contributions.map((c, i) => {
    const start = i - (i % tokens);
    return c / contributions.subarray(start, start + tokens).reduce((a, b) => a + b, 0);
  });
  const expected = f32(
    own.map((x, i) => (i === 3 ? x + error : x)),
    [2, tokens],
  );
  const checks = new Checks();
  const used = checkTarget(checks, 'train.2.influence_target', f32(own, [2, tokens]), contributions, expected).data;
  return { check: checks.list()[0]!, own, used };
}

test('where the picture matters, only the tolerance counts', () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0.02, max: 2, noNaN: true }),
      fc.double({ min: 1.4e-4, max: 1, noNaN: true }),
      fc.nat(),
      (size, error, seed) => {
        expect(checked(size, error, seed).check.pass).toBe(false);
        const right = checked(size, 9e-5, seed);
        expect(right.check).toMatchObject({ name: 'training.influence-target', pass: true });
        expect(right.check.note).toBeUndefined();
        expect(right.used).toBe(right.own);
      },
    ),
    { numRuns: 50, seed: 1 },
  );
});

test('where it hardly does, as much as a cosine in single precision is off; the rest of the step goes on from the reference', () => {
  fc.assert(
    fc.property(fc.double({ min: 1e-6, max: 2e-4, noNaN: true }), fc.nat(), (size, seed) => {
      const error = (0.5 * RESOLUTION) / size + 1e-4;
      const right = checked(size, error, seed);
      expect(right.check.pass).toBe(true);
      expect(right.check.note).toMatch(/train\.2\.influence_target: 1 of 12 are off/);
      expect(right.used[3]! - right.own[3]!).toBeCloseTo(error, 5);
      const wrong = checked(size, 20 * error, seed);
      expect(wrong.check.pass).toBe(false);
      expect(wrong.used).toBe(wrong.own);
    }),
    { numRuns: 50, seed: 2 },
  );
});
