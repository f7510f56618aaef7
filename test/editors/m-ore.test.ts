/** M-ORE: the recursive projection is the direct formula, and edits keep clear of what earlier ones read. */

import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import type { Edit } from '../../src/editors/editor.ts';
import { mOre, projected } from '../../src/editors/m-ore.ts';
import { openTinyContract } from './tiny-contract.ts';

fc.configureGlobal({ seed: 1 });
const { world, close } = await openTinyContract();
afterAll(close);
const { vlm, requests } = world;

const identity = (r: number): Float32Array => Float32Array.from({ length: r * r }, (_, i) => (i % (r + 1) === 0 ? 1 : 0));

/** (I + Σ z zᵀ / λ)⁻¹ by Gauss-Jordan elimination in double precision. */
function direct(keys: readonly Float32Array[], r: number, lambda: number): number[] {
  const rows = Array.from({ length: r }, (_, i) => [
    ...Array.from({ length: r }, (_, j) => keys.reduce((sum, z) => sum + (z[i]! * z[j]!) / lambda, i === j ? 1 : 0)),
    ...Array.from({ length: r }, (_, j) => (i === j ? 1 : 0)),
  ]);
  for (let c = 0; c < r; c++) {
    // The matrix is symmetric and at least the identity, so its diagonal is never small.
    const pivot = rows[c]!.map((x) => x / rows[c]![c]!);
    rows[c] = pivot;
    for (let i = 0; i < r; i++) {
      const factor = i === c ? 0 : rows[i]![c]!;
      if (factor !== 0) rows[i] = rows[i]!.map((x, j) => x - factor * pivot[j]!);
    }
  }
  return rows.flatMap((row) => row.slice(r));
}

const value = fc.float({ min: -2, max: 2, noNaN: true });
const problem = fc.integer({ min: 1, max: 12 }).chain((r) =>
  fc.record({
    r: fc.constant(r),
    keys: fc.array(fc.array(value, { minLength: r, maxLength: r }), { maxLength: 20 }),
    lambda: fc.constantFrom(0.1, 1, 50, 2000),
  }),
);

test('P after any keys is (I + Σ z zᵀ / λ)⁻¹: symmetric, the same in any order, and smaller where keys were', () => {
  fc.assert(
    fc.property(problem, ({ r, keys: given, lambda }) => {
      const keys = given.map((key) => Float32Array.from(key));
      const fold = (all: readonly Float32Array[]): Float32Array => all.reduce((p, z) => projected(p, z, lambda), identity(r));
      const [p, wanted] = [fold(keys), direct(keys, r, lambda)];
      const most = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
        Math.max(0, ...Array.from(a, (x, i) => Math.abs(x - b[i]!)));
      expect(most(p, wanted)).toBeLessThan(2e-4);
      expect(most(fold([...keys].reverse()), p)).toBeLessThan(2e-4);
      for (let i = 0; i < r; i++) for (let j = 0; j < i; j++) expect(p[i * r + j]).toBe(p[j * r + i]);
      const form = (m: Float32Array, z: Float32Array): number =>
        z.reduce((sum, x, i) => sum + x * z.reduce((row, y, j) => row + m[i * r + j]! * y, 0), 0);
      for (const z of keys) expect(form(p, z)).toBeLessThanOrEqual(Math.min(form(identity(r), z), lambda) + 1e-3);
    }),
  );
});

const settings = { rank: 16, layers: 2, groups: 1, steps: 3, rate: 0.05, lambda: 0.1 };
const length = (edit: Edit, name: string): number =>
  Math.sqrt(edit.tensors.get(name)!.data.reduce((total, x) => total + x * x, 0));

test('a step changes the chosen layers only; the same request again moves B less, for P leaves it little room', async () => {
  const next = mOre.sequence!(vlm, undefined, { ...settings, steps: 1 });
  const [first, second] = [await next(requests[0]!), await next(requests[0]!)];
  // Up and down projection of one layer, B and keys of each.
  expect(first.tensors.size).toBe(4);
  const names = [...first.tensors.keys()].filter((name) => name.startsWith('b.') && second.tensors.has(name));
  for (const name of names) expect(length(second, name)).toBeLessThan(length(first, name));
  const free = mOre.sequence!(vlm, undefined, { ...settings, steps: 1, lambda: 1e9 });
  const [one, two] = [await free(requests[0]!), await free(requests[0]!)];
  for (const name of names) {
    expect(length(one, name)).toBeCloseTo(length(first, name), 6);
    if (two.tensors.has(name)) expect(length(second, name)).toBeLessThan(length(two, name));
  }
});

test('edits made one on the other add up to one B; leaving one out leaves the others as they are', async () => {
  const next = mOre.sequence!(vlm, undefined, settings);
  const edits = [await next(requests[0]!), await next(requests[1]!)];
  const all = await mOre.changes!(vlm, edits);
  for (const { factored, dense } of all.values())
    expect([factored.length, factored[0]!.right.shape[0], dense.length]).toEqual([1, 16, 0]);
  const [alone] = await mOre.edit(vlm, [requests[1]!], undefined, settings);
  const asked = world.queries;
  const scores = async (some: readonly Edit[]) =>
    (await mOre.chain!(vlm, some).answerTargets(asked)).map(({ logProbs }) => logProbs);
  expect(await scores([edits[1]!])).not.toEqual(await scores([alone!]));
  // Replay: the later edit made again without the earlier one is the edit alone.
  const replayed = await mOre.sequence!(vlm, undefined, settings, [])(requests[1]!);
  expect(await scores([replayed])).toEqual(await scores([alone!]));
});

test('a sequence goes on only from edits with the same factors', async () => {
  const [made] = await mOre.edit(vlm, [requests[0]!], undefined, settings);
  expect(() => mOre.sequence!(vlm, undefined, { ...settings, rank: 8 }, [made!])).toThrow('same rank, seed, scale and lambda');
});
