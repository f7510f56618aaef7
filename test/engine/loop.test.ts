/** Loops within one program: carried values, values that grow, an early end, and what is read from outside. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import * as g from '../../src/graph/index.ts';
import { compile } from '../../src/runtime/node.ts';

const count = (n: number): g.Tensor => g.i64([n], []);
const { f32 } = g;

test('carried values, collected values and values from outside, for any number of turns', async () => {
  const x = g.input('x', ['b', 2]);
  const w = g.parameter('w', [2, 2]);
  const turned = g.matmul(x, w, false, true);
  const { last, each } = g.loop(
    { turns: g.input('turns', [], 'int64'), symbol: 'steps' },
    { sum: { start: x }, held: { start: x } },
    ({ sum, held }, turn) => ({
      next: { sum: g.add(sum!, g.mul(turned, g.cast(turn, 'float32'))), held: held! },
      each: { sum: sum! },
    }),
  );
  const program = await compile({ sum: last.sum!, held: last.held!, each: each.sum! }, { threads: 1 });
  const values = fc.array(fc.integer({ min: -8, max: 8 }), { minLength: 4, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 5 }), values, values, async (turns, a, b) => {
      const out = await program.run({ x: f32(a, [2, 2]), w: f32(b, [2, 2]), turns: count(turns) });
      const product = [0, 1].flatMap((i) => [0, 1].map((j) => a[2 * i]! * b[2 * j]! + a[2 * i + 1]! * b[2 * j + 1]!));
      const after = (t: number): number[] => a.map((v, i) => v + (product[i]! * t * (t - 1)) / 2 + 0);
      expect([...(out.sum!.data as Float32Array)].map((v) => v + 0)).toEqual(after(turns));
      expect([...out.held!.data]).toEqual(a.map((v) => v + 0));
      expect(out.each!.shape).toEqual([turns, 2, 2]);
      expect([...(out.each!.data as Float32Array)].map((v) => v + 0)).toEqual(
        Array.from({ length: turns }, (_, t) => after(t)).flat(),
      );
    }),
    { numRuns: 20 },
  );
  await program.release();
});

test('a value grows by a row each turn, and the loop ends when it is told to', async () => {
  const limit = g.input('limit', []);
  const { last } = g.loop(
    { turns: g.constant(g.i64([10], [])), symbol: 'steps' },
    { rows: { start: g.input('rows', ['p', 1]), shape: ['r', 1], end: ['q', 1] } },
    ({ rows }) => {
      const sum = g.sum(rows!, 0, true);
      return { next: { rows: g.concat([rows!, sum], 0) }, more: g.less(g.reshape(sum, []), limit) };
    },
  );
  // A shape that depends on the number of turns is known after the loop.
  const doubled = g.reshape(g.concat([last.rows!, last.rows!], 1), [g.mulDim(2, 'q')]);
  const program = await compile({ rows: last.rows!, doubled }, { threads: 1 });
  const run = async (stop: number) => [...(await program.run({ rows: f32([1], [1, 1]), limit: f32([stop], []) })).rows!.data];
  expect(await run(4)).toEqual([1, 1, 2, 4]);
  expect(await run(0)).toEqual([1, 1]);
  expect(await run(1e9)).toEqual([1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
  const { doubled: twice } = await program.run({ rows: f32([1], [1, 1]), limit: f32([0], []) });
  expect([...twice!.data]).toEqual([1, 1, 1, 1]);
  await program.release();
});

test('a loop within a loop reads the values of both', async () => {
  const { last } = g.loop({ turns: g.constant(g.i64([3], [])), symbol: 'n' }, { x: { start: g.input('x', []) } }, ({ x }) => {
    const inner = g.loop({ turns: g.constant(g.i64([2], [])), symbol: 'm' }, { y: { start: x! } }, ({ y }) => ({
      next: { y: g.add(g.add(y!, x!), g.input('z', [])) },
    }));
    return { next: { x: inner.last.y! } };
  });
  const program = await compile({ x: last.x! }, { threads: 1 });
  // x -> 3 x + 2 z, three times
  expect((await program.run({ x: f32([1], []), z: f32([5], []) })).x!.data[0]).toBe(27 + 10 * 13);
  await program.release();
});

test('a carried value that changes its type or shape is an error that shows both', () => {
  const turns = g.constant(g.i64([3], []));
  const x = g.input('x', ['b', 2]);
  expect(() => g.loop({ turns, symbol: 'n' }, { x: { start: x } }, ({ x }) => ({ next: { x: g.sum(x!, 1) } }))).toThrow(
    'loop: x is float32[b, 2] before a turn and float32[b] after it',
  );
  expect(() => g.loop({ turns, symbol: 'n' }, { x: { start: x } }, () => ({ next: {} }))).toThrow('a turn gives no next x');
});

test('what a turn computes is part of the hash', () => {
  const hash = (by: number) => {
    const { last } = g.loop({ turns: g.constant(g.i64([3], [])), symbol: 'n' }, { x: { start: g.input('x', []) } }, ({ x }) => ({
      next: { x: g.mul(x!, by) },
    }));
    return g.graphHash({ x: last.x! });
  };
  expect(hash(2)).toBe(hash(2));
  expect(hash(2)).not.toBe(hash(3));
});
