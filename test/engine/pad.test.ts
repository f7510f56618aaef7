/** Zeros around an axis, on devices whose Pad is slow or missing: written with Concat there, with the same values in every type. */
import { expect, test } from 'vitest';
import { toFloat16 } from '../../src/files/half.ts';
import * as g from '../../src/graph/index.ts';
import { devices } from '../../src/onnx/device.ts';
import { emit } from '../../src/onnx/emit.ts';
import { engineFor } from '../../src/runtime/node.ts';
import { count } from './onnx-nodes.ts';

const weight = (name: string) =>
  name === 'w'
    ? { dtype: 'float16' as const, shape: [3, 3], data: toFloat16(Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9)) }
    : undefined;

/** Padding of a float32 input, of whole numbers, and of a product that a device holds in half precision; one of unknown length. */
const graph = (): Record<string, g.Node> => {
  const x = g.input('x', ['b', 3]);
  const product = g.matmul(x, g.parameter('w', [3, 3]));
  return {
    float: g.pad(x, 1, 2, 1),
    whole: g.pad(g.input('n', ['b', 3], 'int64'), 0, 'b', 0),
    half: g.mul(g.pad(product, 0, 0, 'b'), 1),
    slope: g.gradient(g.sum(g.mul(g.slice(x, 1, 1, 3), g.slice(x, 1, 1, 3))), [x])[0]!,
  };
};

test('Concat with zeros gives what Pad gives', async () => {
  const without = { ...devices.cpu, half: true, lacks: new Set(['Pad']) };
  const nodes = emit(new Map(Object.entries(graph())), weight, {}, without).bytes;
  expect(count(nodes, 'Pad')).toBe(0);
  expect(count(emit(new Map(Object.entries(graph())), weight, {}, devices.cpu).bytes, 'Pad')).toBeGreaterThan(0);
  const feeds = { x: g.f32([1, 2, 3, 4, 5, 6], [2, 3]), n: g.i64([1, 2, 3, 4, 5, 6], [2, 3]) };
  const [padded, joined] = await Promise.all(
    [{ ...without, lacks: new Set<string>() }, without].map(async (device) => {
      const program = await engineFor(device).compile(graph(), { weights: weight, threads: 1 });
      const out = await program.run(feeds);
      await program.release();
      return out;
    }),
  );
  for (const name of Object.keys(padded!)) expect(joined![name]).toEqual(padded![name]);
  expect([...padded!.float!.data]).toEqual([0, 0, 1, 2, 3, 0, 0, 0, 4, 5, 6, 0]);
});

test('the lowering for CUDA has no Pad', () => {
  expect(devices.cuda.lacks.has('Pad')).toBe(true);
});
