/** A new op: `cube`, y = x³, with its gradient against differences. */
import { expect, test } from 'vitest';
import { apply, defineOp, f32, gradient, input, mul, type Node, square, sum } from '../../src/graph/index.ts';
import { compile } from '../../src/runtime/node.ts';

const cubeOp = defineOp({
  name: 'cube',
  infer: ([x]) => ({ dtype: x!.dtype, shape: x!.shape }),
  onnx: (emitter, [x]) => emitter.node('Mul', [emitter.node('Mul', [x!, x!]), x!]),
  // d(x³) = 3 x² dx
  vjp: (dy, y) => [mul(dy, mul(square(y.inputs[0]!), 3))],
});
const cube = (x: Node): Node => apply(cubeOp, [x]);

test('cube: values, and its gradient against differences', async () => {
  const x = input('x', ['b', 2]);
  const loss = sum(cube(x));
  const program = await compile({ y: cube(x), loss, dx: gradient(loss, [x])[0]! }, { threads: 1 });
  const at = async (values: number[]) => program.run({ x: f32(values, [2, 2]) });

  const values = [1, -2, 0.5, 3];
  const { y, dx } = await at(values);
  expect([...y!.data]).toEqual([1, -8, 0.125, 27]);
  const step = 1e-2;
  for (const [i, slope] of [...(dx!.data as Float32Array)].entries()) {
    const moved = (by: number) => at(values.map((v, j) => (j === i ? v + by : v)));
    const [up, down] = [await moved(step), await moved(-step)];
    const difference = Number(up.loss!.data[0]) - Number(down.loss!.data[0]);
    expect(slope).toBeCloseTo(difference / (2 * step), 1);
  }
  await program.release();
});
