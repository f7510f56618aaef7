/** A new op: `cube`, y = x³, with its gradient against differences. */
import { compile, graph } from 'visedit';

const { apply, defineOp, f32, gradient, input, mul, square, sum } = graph;

const cubeOp = defineOp({
  name: 'cube',
  infer: ([x]) => ({ dtype: x!.dtype, shape: x!.shape }),
  onnx: (emitter, [x]) => emitter.node('Mul', [emitter.node('Mul', [x!, x!]), x!]),
  // d(x³) = 3 x² dx
  vjp: (dy, y) => [mul(dy, mul(square(y.inputs[0]!), 3))],
});
const cube = (x: graph.Node): graph.Node => apply(cubeOp, [x]);

const x = input('x', ['b', 2]);
const loss = sum(cube(x));
const program = await compile({ y: cube(x), loss, dx: gradient(loss, [x])[0]! }, { threads: 1 });
const at = (values: number[]) => program.run({ x: f32(values, [2, 2]) });

const values = [1, -2, 0.5, 3];
const { y, dx } = await at(values);
if (Array.from(y!.data, Number).join() !== '1,-8,0.125,27') throw new Error(`wrong values: ${y!.data}`);

const step = 1e-2;
for (const [i, slope] of Array.from(dx!.data, Number).entries()) {
  const moved = (by: number) => at(values.map((v, j) => (j === i ? v + by : v)));
  const [up, down] = [await moved(step), await moved(-step)];
  const difference = (Number(up.loss!.data[0]) - Number(down.loss!.data[0])) / (2 * step);
  if (Math.abs(slope - difference) > 0.05) throw new Error(`wrong gradient: ${slope}, by differences ${difference}`);
}
await program.release();
console.log('values and gradient agree');
