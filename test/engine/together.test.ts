/** Programs of a model in one session: the same results as in sessions of their own, with each weight once. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import {
  add,
  constant,
  f32,
  i64,
  input,
  loop,
  matmul,
  mul,
  type Node,
  parameter,
  softmax,
  type Tensor,
} from '../../src/graph/index.ts';
import { unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import { emitBranches } from '../../src/onnx/branches.ts';
import { devices } from '../../src/onnx/device.ts';
import { emit } from '../../src/onnx/emit.ts';
import { Random } from '../../src/random.ts';
import { DeviceError } from '../../src/runtime/card-memory.ts';
import { compile, engineFor } from '../../src/runtime/node.ts';
import { compilesTogether } from '../../src/runtime/together.ts';
import { randomPicture, writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder } from '../tiny-world.ts';
import { initializers } from './onnx-nodes.ts';

const root = temporaryFolder();
afterAll(() => rmSync(root, { recursive: true, force: true }));
const shared = { ...devices.cpu, oneSession: true };

const weight = f32(new Random('w').normals(64 * 64, 0.1), [64, 64]);
const weights = (name: string): Tensor | undefined => (name === 'w' ? weight : undefined);
const w = parameter('w', [64, 64]);
const x = input('x', ['b', 64]);
const whole = input('x', [64, 64]);
/** Programs with inputs of one name and other shapes, a loop, a trained weight, and an output that is an input. */
const programs: Record<string, Node>[] = [
  { y: matmul(x, w) },
  { y: softmax(matmul(whole, w, false, true)), x: whole },
  {
    y: loop({ turns: input('turns', [], 'int64'), symbol: 'n' }, { x: { start: x } }, ({ x }) => ({
      next: { x: add(matmul(x!, w), x!) },
    })).last.x!,
  },
  { y: mul(matmul(x, parameter('trained', [64, 64])), 3), one: constant(1) },
];
const feedsOf = (seed: number): Record<string, Tensor>[] => {
  const rows = (n: number): Tensor => f32(new Random(`${seed}`).normals(n * 64, 1), [n, 64]);
  return [{ x: rows(3) }, { x: rows(64) }, { x: rows(2), turns: i64([seed % 4], []) }, { x: rows(5), trained: rows(64) }];
};

test('any order of runs and releases gives the results of sessions of their own', async () => {
  const alone = await Promise.all(programs.map((outputs) => compile(outputs, { weights, threads: 1 })));
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(3), fc.nat(9)), { minLength: 1, maxLength: 8 }),
      fc.nat(3),
      async (runs, released) => {
        const engine = engineFor(shared);
        const one = await Promise.all(
          programs.map((outputs) => engine.compile(outputs, { weights, threads: 1, together: runs })),
        );
        for (const [at, [which, seed]] of runs.entries()) {
          if (at === 2) await one[released]!.release();
          if (at >= 2 && which === released) continue;
          const feeds = feedsOf(seed)[which]!;
          const [a, b] = [await alone[which]!.run(feeds), await one[which]!.run(feeds)];
          expect(Object.keys(b)).toEqual(Object.keys(a));
          for (const name of Object.keys(a)) {
            expect(b[name]!.shape).toEqual(a[name]!.shape);
            expect(b[name]!.data).toEqual(a[name]!.data);
          }
        }
        for (const program of one) await program.release();
      },
    ),
    { numRuns: 20 },
  );
  for (const program of alone) await program.release();
});

test('each weight stands once in the session, in half precision and in whole numbers too', () => {
  const [first, second] = [programs[0]!, programs[2]!];
  const stored = (name: string) =>
    name === 'w' ? { ...weight, dtype: 'float16' as const, data: new Uint16Array(64 * 64) } : undefined;
  for (const [device, source] of [
    [shared, weights],
    [{ ...shared, half: true }, stored],
  ] as const) {
    const branches = [first, second, first].map((outputs, id) => ({ id, outputs, weights: source }));
    const sizes = (bytes: Uint8Array): number[] => [...initializers(bytes).values()].filter((size) => size >= 64 * 64);
    expect(sizes(emitBranches(branches, device).bytes)).toEqual(
      sizes(emit(new Map(Object.entries(first)), source, {}, device).bytes),
    );
  }
});

test('two programs that mean different weights by one name keep both', async () => {
  const engine = engineFor(shared);
  const together = {};
  const other = f32(
    weight.data.map((value) => 2 * value),
    [64, 64],
  );
  const [a, b] = await Promise.all(
    [weight, other].map((own) => engine.compile(programs[0]!, { weights: () => own, threads: 1, together })),
  );
  const feeds = feedsOf(1)[0]!;
  const [{ y: one }, { y: two }] = [await a!.run(feeds), await b!.run(feeds)] as Record<string, Tensor<'float32'>>[] as [
    Record<string, Tensor<'float32'>>,
    Record<string, Tensor<'float32'>>,
  ];
  expect(two!.data).toEqual(one!.data.map((value) => 2 * value));
});

test('where the device has no room for several programs, each goes alone', async () => {
  const opened: number[] = [];
  const compileShared = compilesTogether({
    device: shared,
    open: async (emitted) => {
      const count = [...emitted.inputs.keys()].filter((name) => name.startsWith('runs:')).length;
      opened.push(count);
      if (count > 1) throw new DeviceError('no memory', true);
      const id = [...emitted.outputs.keys()][0]!.split(':')[0]!;
      return { run: async () => ({ [`${id}:y`]: f32([Number(id)], [1]) }), release: async () => {} };
    },
  });
  const together = {};
  const [a, b] = [programs[0]!, programs[0]!].map((outputs) => compileShared(outputs, { weights, together }));
  for (const program of [a!, b!, a!])
    expect((await program.run({ x: f32(new Float32Array(64), [1, 64]) })).y!.data.length).toBe(1);
  expect(opened).toEqual([2, 1, 1, 1]);
});

test('a model answers the same with all its programs in one session', async () => {
  const folder = writeRandomLlava(join(root, 'model'), { positions: 64, half: true });
  const asked = [{ image: randomPicture('a'), prompt: 'What is in the middle?' }, { prompt: 'a cat' }];
  const found = [];
  for (const device of [devices.cpu, { ...shared, wholeAnswers: true }, shared]) {
    const vlm = loadModel(folder, { device: 'cpu', threads: 1, behind: () => engineFor(device) });
    const model = unedited(vlm);
    const tokens = await model.generate(asked, { maxNewTokens: 8, eosIds: [] });
    const targets = await model.answerTargets(asked.map((one) => ({ ...one, target: 'a tree' })));
    found.push({ tokens, targets, again: await model.generate(asked, { maxNewTokens: 8, eosIds: [] }) });
    await vlm.release();
  }
  expect(found[1]).toEqual(found[0]);
  expect(found[2]).toEqual(found[0]);
});
