/** Attributes of ONNX operators keep their types under any name. */
import { expect, test } from 'vitest';
import { apply, defineOp, f32, float, input, type Node } from '../../src/graph/index.ts';
import { compile } from '../../src/runtime/node.ts';

const leakyOp = defineOp({
  name: 'test.hardSigmoid',
  infer: ([x]) => ({ dtype: x!.dtype, shape: x!.shape }),
  onnx: (e, [x]) => e.node('HardSigmoid', [x!], { alpha: float(0.25), beta: float(1) }),
  vjp: null,
});
const wrongOp = defineOp({ ...leakyOp, name: 'test.wrong', onnx: (e, [x]) => e.node('HardSigmoid', [x!], { beta: 0.5 }) });

test('a float attribute is a float whatever its name and value', async () => {
  const x = input('x', [3]);
  const program = await compile({ y: apply(leakyOp, [x]) }, { threads: 1 });
  const { y } = await program.run({ x: f32([-2, -1, 0], [3]) });
  // max(0, min(1, x / 4 + 1))
  expect([...y!.data]).toEqual([0.5, 0.75, 1]);
  await program.release();
});

test('a fraction that is not written as a float is an error that says so', async () => {
  const y: Node = apply(wrongOp, [input('x', [3])]);
  await expect(compile({ y })).rejects.toThrow('ONNX attribute beta: 0.5 is not a whole number; write float(0.5)');
});
