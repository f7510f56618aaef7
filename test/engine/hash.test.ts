/** A graph's hash: equal graphs agree, and every change of what is computed shows. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import * as g from '../../src/graph/index.ts';

type Choices = {
  width: number;
  name: string;
  output: string;
  scale: number;
  values: number[];
  perm: readonly number[];
  half: boolean;
};

function graphOf({ width, name, output, scale, values, perm, half }: Choices): Record<string, g.Node> {
  const x = g.input(name, ['b', 2, width]);
  const w = g.parameter('w', [width]);
  const large = g.constant(g.f32(new Float32Array(100 * width).fill(values[0]!), [100, width]));
  const sum = g.sum(g.add(g.mul(g.mul(x, w), scale), g.constant(g.f32(values, [values.length, 1]))), 1);
  const moved = g.transpose(g.matmul(sum, large, false, true), perm);
  return { [output]: half ? g.cast(moved, 'float16') : moved };
}

const choices = fc.record({
  width: fc.integer({ min: 1, max: 3 }),
  name: fc.constantFrom('x', 'y', 'x"];y'),
  output: fc.constantFrom('out', 'other'),
  scale: fc.constantFrom(0, -0, 1, 1.5, Number.NaN),
  values: fc.tuple(fc.constantFrom(0, 1), fc.constantFrom(0, -0, 1)),
  perm: fc.constantFrom([0, 1], [1, 0]),
  half: fc.boolean(),
});

test('two builds of one graph agree; graphs that differ in any choice do not', () => {
  fc.assert(
    fc.property(choices, choices, (a, b) => {
      const same = Object.keys(a).every((key) => {
        const [x, y] = [a[key as keyof Choices], b[key as keyof Choices]];
        return Array.isArray(x) ? x.every((v, i) => Object.is(v, (y as number[])[i])) : Object.is(x, y);
      });
      expect(g.graphHash(graphOf(a))).toBe(g.graphHash(graphOf({ ...a })));
      expect(g.graphHash(graphOf(a)) === g.graphHash(graphOf(b))).toBe(same);
    }),
    { numRuns: 300 },
  );
});

test('which value an op reads is part of the hash', () => {
  const [a, b] = [g.input('a', ['b']), g.input('b', ['b'])];
  const hashes = [g.sub(a, b), g.sub(b, a), g.sub(a, a), g.sub(g.exp(a), b)].map((out) => g.graphHash({ out }));
  expect(new Set(hashes).size).toBe(4);
});

test('a graph of 2,000 nodes is hashed in a few milliseconds', () => {
  let x: g.Node = g.input('x', ['b', 'l', 64]);
  const table = g.constant(g.f32(new Float32Array(1 << 20), [1 << 14, 64]));
  for (let i = 0; i < 500; i++) x = g.add(g.mul(g.matmul(x, g.parameter(`w.${i}`, [64, 64]), false, true), 0.5), x);
  const out = g.add(g.sum(x), g.sum(table));
  expect(g.topological([out]).length).toBeGreaterThan(2000);
  g.graphHash({ out });
  const times = Array.from({ length: 20 }, () => {
    const start = performance.now();
    g.graphHash({ out });
    return performance.now() - start;
  });
  console.log(`hash of 2,500 nodes: ${Math.min(...times).toFixed(2)} ms`);
  expect(Math.min(...times)).toBeLessThan(20);
});
