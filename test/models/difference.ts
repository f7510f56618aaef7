/** Largest absolute difference. */
export function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) throw new Error(`${actual.length} values, ${expected.length} expected`);
  let largest = 0;
  for (let i = 0; i < actual.length; i++) {
    const d = Math.abs(actual[i]! - expected[i]!);
    // NaN counts as a difference.
    if (!(d <= largest)) largest = d;
  }
  return largest;
}
