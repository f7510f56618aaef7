/** What a heat map shows, as numbers: how much of it lies in a part of the picture, and how alike two maps are. */

/** A part of the picture: left, top, width, height as fractions of it. */
export type Box = readonly [number, number, number, number];

/**
 * Share of a map's mass inside a part of the picture; a patch that the border cuts counts by its area inside. An even map has the part's own
 * area. Undefined for a map without mass.
 */
export function massInside(values: ArrayLike<number>, [rows, columns]: readonly [number, number], box: Box): number | undefined {
  if (values.length !== rows * columns) throw new Error(`a map of ${rows} by ${columns} has not ${values.length} values`);
  const [left, top, width, height] = box;
  let inside = 0;
  let total = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    const x = shared((i % columns) / columns, 1 / columns, left, width);
    const y = shared(Math.floor(i / columns) / rows, 1 / rows, top, height);
    inside += value * x * y * rows * columns;
    total += value;
  }
  return total > 0 ? inside / total : undefined;
}

/** Length that two stretches share. */
function shared(from: number, length: number, otherFrom: number, otherLength: number): number {
  return Math.max(0, Math.min(from + length, otherFrom + otherLength) - Math.max(from, otherFrom));
}

/** Σ min(p, q) of two maps as distributions: 1 for the same, 0 for maps that share no place. Undefined where one has no mass. */
export function overlap(a: ArrayLike<number>, b: ArrayLike<number>): number | undefined {
  if (a.length !== b.length) throw new Error(`maps of ${a.length} and ${b.length} places cannot be compared`);
  const [sumA, sumB] = [sum(a), sum(b)];
  if (!(sumA > 0 && sumB > 0)) return undefined;
  let both = 0;
  for (let i = 0; i < a.length; i++) both += Math.min(a[i]! / sumA, b[i]! / sumB);
  return both;
}

export function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i]!;
  return total;
}

/** Undefined values are left out; undefined when none is left. */
export function meanOf(values: readonly (number | undefined)[]): number | undefined {
  const there = values.filter((value) => value !== undefined);
  return there.length === 0 ? undefined : sum(there) / there.length;
}
