/** Named checks: each keeps the largest difference that was found under its name, and where it was found. */

export interface Check {
  readonly name: string;
  /** the largest difference; null where there is no number (shapes differ, a value is not finite, or the check could not run) */
  readonly difference: number | null;
  readonly tolerance: number;
  readonly pass: boolean;
  /** what is wrong, of a check that does not pass */
  readonly message?: string;
  /** larger differences that rounding explains, so that they do not count */
  readonly note?: string;
}

interface Found {
  difference: number;
  tolerance: number;
  where: string;
  failure?: string;
  notes: string[];
}

export class Checks {
  readonly #found = new Map<string, Found>();

  /** One difference; the largest of a name is kept, and one that is not a number counts as the largest. */
  add(name: string, tolerance: number, where: string, difference: number): void {
    const before = this.#found.get(name);
    if (before === undefined) this.#found.set(name, { difference, tolerance, where, notes: [] });
    else if (Number.isNaN(difference) || difference > before.difference) Object.assign(before, { difference, where });
  }

  /** Largest absolute difference of two lists of numbers, over `scale`. */
  values(
    name: string,
    tolerance: number,
    where: string,
    actual: ArrayLike<number>,
    expected: ArrayLike<number>,
    scale = 1,
  ): void {
    if (actual.length !== expected.length) {
      this.fail(name, `${where}: ${actual.length} values, ${expected.length} expected`, tolerance);
      return;
    }
    let largest = 0;
    // Math.max keeps what is not a number.
    for (let i = 0; i < actual.length; i++) largest = Math.max(largest, Math.abs(actual[i]! - expected[i]!));
    this.add(name, tolerance, where, largest / scale);
  }

  /** Difference relative to the expected value; below `floor`, to that. */
  relative(name: string, tolerance: number, where: string, actual: number, expected: number, floor = 1e-3): void {
    this.add(name, tolerance, where, Math.abs(actual - expected) / Math.max(Math.abs(expected), floor));
  }

  /** Two lists that must be equal; the difference is the number of places where they are not. */
  equal<T extends string | number>(name: string, where: string, actual: readonly T[], expected: readonly T[]): void {
    const different = actual.filter((x, i) => x !== expected[i]).length + Math.max(0, expected.length - actual.length);
    this.add(name, 0, where, different);
    const first = this.#found.get(name)!;
    if (different > 0 && first.failure === undefined)
      first.failure = `${where}: got ${shown(actual)}, expected ${shown(expected)}`;
  }

  /** A check that could not be made, or has no number. */
  fail(name: string, message: string, tolerance = 0): void {
    const before = this.#found.get(name);
    if (before?.failure !== undefined) return;
    this.#found.set(name, {
      difference: Number.NaN,
      tolerance: before?.tolerance ?? tolerance,
      where: before?.where ?? '',
      failure: message,
      notes: before?.notes ?? [],
    });
  }

  /** Says of a check that was made what does not count in it. */
  note(name: string, text: string): void {
    this.#found.get(name)?.notes.push(text);
  }

  list(): Check[] {
    return [...this.#found].map(([name, { difference, tolerance, where, failure, notes }]) => {
      const pass = failure === undefined && difference <= tolerance;
      return {
        name,
        difference: Number.isFinite(difference) ? difference : null,
        tolerance,
        pass,
        ...(pass ? {} : { message: failure ?? `largest at ${where}` }),
        ...(notes.length === 0 ? {} : { note: notes.join('; ') }),
      };
    });
  }
}

const shown = (list: readonly (string | number)[]): string =>
  list.length === 1 && typeof list[0] === 'string' ? JSON.stringify(list[0]) : `[${list.join(', ')}]`;

/** The published tolerances of float32. */
export const tolerances = {
  hidden: 1e-3,
  logits: 2e-3,
  contribution: 1e-4,
  /** relative */
  loss: 1e-3,
  /** of the tensor's largest element */
  gradient: 1e-3,
  /** mean difference in grey levels */
  greyMean: 0.5,
  /** share of pixels that differ by more than `greyLevels` */
  greyShare: 1e-3,
  greyLevels: 3,
  /** fractions printed in single precision */
  accuracy: 1e-6,
} as const;
