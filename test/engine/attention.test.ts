/** Attention in runs leaves out what is above the diagonal, and gives the same values and gradients as the whole of it. */
import { expect, test } from 'vitest';
import { attention, f32, gradient, input, mul, type Node, sum, type Tensor } from '../../src/graph/index.ts';
import { causalBias } from '../../src/models/batch.ts';
import { attend, causalBlocks, mergeHeads, splitHeads } from '../../src/nn/layers.ts';
import { devices } from '../../src/onnx/device.ts';
import { Random } from '../../src/random.ts';
import { compile, engineFor } from '../../src/runtime/node.ts';

const [b, h, l, k] = [2, 3, 11, 4];

test('runs of positions: equal values and gradients, whatever the runs', async () => {
  const random = new Random(1);
  const draw = () => f32(random.normals(b * h * l * k), [b, h, l, k]);
  const feeds = { q: draw(), k: draw(), v: draw(), weight: draw(), bias: causalBias(b, l) };
  const results: Record<string, Tensor>[] = [];
  for (const blocks of [undefined, [l], [4, l], [1, 2, 7, l], [4, 'l']]) {
    const of = (name: string): Node => input(name, ['b', h, blocks?.at(-1) === 'l' ? 'l' : l, k]);
    const [q, key, v] = [of('q'), of('k'), of('v')];
    const length = q.dim(2);
    const y = attend(q, key, v, 0.5, input('bias', ['b', 1, length, length]), blocks);
    const [dq, dk, dv] = gradient(sum(mul(y, of('weight'))), [q, key, v]) as [Node, Node, Node];
    const program = await compile({ y, dq, dk, dv }, { threads: 1 });
    results.push(await program.run(feeds));
    await program.release();
  }
  for (const other of results.slice(1)) {
    for (const [name, t] of Object.entries(results[0]!)) {
      const [a, z] = [t.data as Float32Array, other[name]!.data as Float32Array];
      expect(Math.max(...a.map((x, i) => Math.abs(x - z[i]!))), name).toBeLessThan(1e-5);
    }
  }
});

test('attention without a bias: equal values and gradients by the kernel, and where a device has none', async () => {
  const random = new Random(2);
  const draw = (length: number) => f32(random.normals(b * length * h * k), [b, length, h * k]);
  const feeds = { q: draw(l), k: draw(5), v: draw(5), weight: draw(l) };
  const [q, key, v] = [input('q', ['b', 'l', h * k]), input('k', ['b', 'm', h * k]), input('v', ['b', 'm', h * k])];
  const of = (y: Node): Record<string, Node> => {
    const [dq, dk, dv] = gradient(sum(mul(y, input('weight', ['b', 'l', h * k]))), [q, key, v]) as [Node, Node, Node];
    return { y, dq, dk, dv };
  };
  const expected = of(mergeHeads(attend(splitHeads(q, h), splitHeads(key, h), splitHeads(v, h), 0.5)));
  const results: Record<string, Tensor>[] = [];
  for (const [lacks, outputs] of [
    [[], expected],
    [[], of(attention(q, key, v, h, 0.5))],
    [['MultiHeadAttention'], of(attention(q, key, v, h, 0.5))],
  ] as const) {
    const program = await engineFor({ ...devices.cpu, lacks: new Set(lacks) }).compile(outputs, { threads: 1 });
    results.push(await program.run(feeds));
    await program.release();
  }
  for (const other of results.slice(1))
    for (const [name, t] of Object.entries(results[0]!)) {
      const [a, z] = [t.data as Float32Array, other[name]!.data as Float32Array];
      expect(Math.max(...a.map((x, i) => Math.abs(x - z[i]!))), name).toBeLessThan(1e-5);
    }
});

test('short sequences have no runs, long ones runs of about equal length that end at the end', () => {
  expect(causalBlocks(37)).toEqual([]);
  expect(causalBlocks(287)).toEqual([]);
  expect(causalBlocks(577)).toEqual([144, 289, 433, 577]);
});
