/** A training step's influence targets (VisEdit Eq. 23) against the reference's, as exactly as single precision determines them. */
import { f32, type Tensor } from '../../src/graph/dtype.ts';
import { type Checks, tolerances } from './checks.ts';
import { compareRounded } from './trained-weights.ts';

/**
 * The reference subtracts a cosine in single precision from 1: next to 1 it has steps of 2^-24, and its sums and norms round by a few of them. To
 * so much it knows a contribution, and a normalised one to this over the sum that it is divided by, which counts where the picture hardly
 * matters to the prompt's last token. (Here contributions come from the difference of the directions, which keeps its digits.)
 */
export const RESOLUTION = 2 ** -22;

/**
 * @param own normalised targets [b, t]
 * @param contributions the same before they were normalised: 1 − cos
 * @returns targets for the rest of the step: the reference's where rounding decides them
 */
export function checkTarget(
  checks: Checks,
  where: string,
  own: Tensor<'float32'>,
  contributions: Float32Array,
  expected: Tensor<'float32'>,
): Tensor<'float32'> {
  const tokens = own.shape.at(-1)!;
  const sumAround = (i: number): number => {
    const start = i - (i % tokens);
    return contributions.subarray(start, start + tokens).reduce((a, b) => a + b, 0);
  };
  const check = 'training.influence-target';
  const allowed = (i: number): number => RESOLUTION / sumAround(i);
  const isRounding = compareRounded(checks, check, tolerances.contribution, where, own.data, expected.data, 1, allowed);
  return isRounding ? f32(expected.data, own.shape) : own;
}
