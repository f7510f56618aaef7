/** Every op's gradient against central differences, and every op's inferred shape and dtype against the runtime's. */
import { expect, test } from 'vitest';
import * as g from '../../src/graph/index.ts';
import { Random } from '../../src/random.ts';
import { compile } from '../../src/runtime/node.ts';

type Case = {
  inputs: Record<string, { shape: number[]; symbolic?: g.Dim[]; positive?: boolean; integers?: number; distinct?: boolean }>;
  build: (x: Record<string, g.Node>) => g.Node;
};

const d2 = { x: { shape: [2, 3], symbolic: ['b', 3] } };
const ab = (a: number[], b: number[], extra = {}) => ({ a: { shape: a, ...extra }, b: { shape: b, ...extra } });

/** One or more cases for every differentiable op in the table; a missing op fails the last test. */
const cases: Record<string, Case[]> = {
  add: [{ inputs: ab([2, 3], [3]), build: ({ a, b }) => g.add(a!, b!) }],
  sub: [{ inputs: ab([2, 3], [2, 1]), build: ({ a, b }) => g.sub(a!, b!) }],
  mul: [
    { inputs: ab([2, 1, 3], [4, 1]), build: ({ a, b }) => g.mul(a!, b!) },
    {
      inputs: { a: { shape: [2, 3], symbolic: ['b', 3] }, b: { shape: [2, 1], symbolic: ['b', 1] } },
      build: ({ a, b }) => g.mul(a!, b!),
    },
  ],
  div: [{ inputs: ab([2, 3], [3], { positive: true }), build: ({ a, b }) => g.div(a!, b!) }],
  maximum: [{ inputs: ab([2, 3], [3]), build: ({ a, b }) => g.maximum(a!, b!) }],
  neg: [{ inputs: d2, build: ({ x }) => g.neg(x!) }],
  exp: [{ inputs: d2, build: ({ x }) => g.exp(x!) }],
  log: [{ inputs: { x: { shape: [2, 3], positive: true } }, build: ({ x }) => g.log(x!) }],
  sqrt: [{ inputs: { x: { shape: [2, 3], positive: true } }, build: ({ x }) => g.sqrt(x!) }],
  square: [{ inputs: d2, build: ({ x }) => g.square(x!) }],
  tanh: [{ inputs: d2, build: ({ x }) => g.tanh(x!) }],
  sigmoid: [{ inputs: d2, build: ({ x }) => g.sigmoid(x!) }],
  softplus: [{ inputs: d2, build: ({ x }) => g.softplus(x!) }],
  relu: [{ inputs: d2, build: ({ x }) => g.relu(x!) }],
  abs: [{ inputs: d2, build: ({ x }) => g.abs(x!) }],
  erf: [{ inputs: d2, build: ({ x }) => g.erf(x!) }],
  sin: [{ inputs: d2, build: ({ x }) => g.sin(x!) }],
  cos: [{ inputs: d2, build: ({ x }) => g.cos(x!) }],
  gelu: [{ inputs: d2, build: ({ x }) => g.gelu(x!) }],
  silu: [{ inputs: d2, build: ({ x }) => g.silu(x!) }],
  geluTanh: [{ inputs: d2, build: ({ x }) => g.geluTanh(x!) }],
  quickGelu: [{ inputs: d2, build: ({ x }) => g.quickGelu(x!) }],
  where: [{ inputs: ab([2, 3], [3]), build: ({ a, b }) => g.where(g.greater(a!, 0), a!, b!) }],
  cast: [{ inputs: d2, build: ({ x }) => g.cast(x!, 'float32') }],
  reshape: [
    { inputs: { x: { shape: [2, 3, 4], symbolic: ['b', 'l', 4] } }, build: ({ x }) => g.reshape(x!, [g.mulDim('b', 'l'), 4]) },
  ],
  transpose: [{ inputs: { x: { shape: [2, 3, 4] } }, build: ({ x }) => g.transpose(x!, [2, 0, 1]) }],
  concat: [
    {
      inputs: { a: { shape: [2, 3], symbolic: ['b', 'v'] }, b: { shape: [2, 2], symbolic: ['b', 't'] } },
      build: ({ a, b }) => g.concat([a!, b!, a!], 1),
    },
  ],
  slice: [{ inputs: { x: { shape: [2, 5], symbolic: ['b', 'l'] } }, build: ({ x }) => g.slice(x!, 1, 1, g.addDim('l', -1)) }],
  pad: [{ inputs: { x: { shape: [2, 3] } }, build: ({ x }) => g.pad(x!, 1, 2, 1) }],
  expand: [{ inputs: { x: { shape: [1, 3] } }, build: ({ x }) => g.expand(x!, [4, 3]) }],
  // Rows 0 and 2 of four stay; values 0 and 1 of three take the places 1 and 3, the third takes none.
  place: [
    {
      inputs: { a: { shape: [4, 3] }, b: { shape: [3, 3] } },
      build: ({ a, b }) =>
        g.place(a!, b!, {
          place: g.constant(g.i64([0, 4, 2, 5], [4])),
          rows: g.constant(g.i64([1, 3, 0], [3])),
          mask: g.constant(g.f32([1, 1, 0], [3, 1])),
          words: g.constant(g.f32([1, 0, 1, 0], [4, 1])),
        }),
    },
  ],
  gather: [{ inputs: { x: { shape: [4, 3] }, i: { shape: [2, 3], integers: 4 } }, build: ({ x, i }) => g.gather(x!, i!) }],
  scatterAdd: [
    { inputs: { u: { shape: [2, 3, 2] }, i: { shape: [2, 3], integers: 5 } }, build: ({ u, i }) => g.scatterAdd(i!, u!, [5, 2]) },
  ],
  takeLast: [{ inputs: { x: { shape: [3, 4] }, i: { shape: [3, 1], integers: 4 } }, build: ({ x, i }) => g.takeLast(x!, i!) }],
  putLast: [
    { inputs: { u: { shape: [3, 1] }, i: { shape: [3, 1], integers: 4 } }, build: ({ u, i }) => g.putLast(i!, u!, [3, 4]) },
  ],
  matmul: [
    { inputs: ab([2, 3, 4], [4, 2]), build: ({ a, b }) => g.matmul(a!, b!) },
    { inputs: ab([2, 3, 4], [5, 4]), build: ({ a, b }) => g.matmul(a!, b!, false, true) },
    { inputs: ab([2, 1, 3, 4], [1, 3, 4, 2]), build: ({ a, b }) => g.matmul(a!, b!) },
    { inputs: ab([2, 4, 3], [2, 4, 2]), build: ({ a, b }) => g.matmul(a!, b!, true, false) },
    { inputs: ab([2, 4, 3], [2, 5, 4]), build: ({ a, b }) => g.matmul(a!, b!, true, true) },
    {
      inputs: { a: { shape: [3, 4], symbolic: ['r', 4] }, b: { shape: [5, 4] } },
      build: ({ a, b }) => g.matmul(a!, b!, false, true),
    },
  ],
  sum: [{ inputs: { x: { shape: [2, 3, 4] } }, build: ({ x }) => g.sum(x!, [0, 2]) }],
  mean: [
    { inputs: { x: { shape: [2, 3, 4] } }, build: ({ x }) => g.mean(x!, -1) },
    { inputs: { x: { shape: [2, 3], symbolic: ['b', 'l'] } }, build: ({ x }) => g.mean(x!, 1) },
  ],
  softmax: [{ inputs: d2, build: ({ x }) => g.softmax(x!) }],
  attention: [
    {
      inputs: {
        q: { shape: [2, 3, 4], symbolic: ['b', 'l', 4] },
        k: { shape: [2, 5, 4], symbolic: ['b', 'm', 4] },
        v: { shape: [2, 5, 6], symbolic: ['b', 'm', 6] },
      },
      build: ({ q, k, v }) => g.attention(q!, k!, v!, 2, 0.7),
    },
  ],
  logSoftmax: [{ inputs: d2, build: ({ x }) => g.logSoftmax(x!) }],
  crossEntropy: [
    { inputs: { x: { shape: [3, 4] }, i: { shape: [3], integers: 4 } }, build: ({ x, i }) => g.crossEntropy(x!, i!) },
  ],
  layerNorm: [
    {
      inputs: { x: { shape: [2, 3, 4] }, s: { shape: [4] }, c: { shape: [4] } },
      build: ({ x, s, c }) => g.layerNorm(x!, s!, c!),
    },
  ],
  rmsNorm: [{ inputs: { x: { shape: [2, 3, 4] }, s: { shape: [4] } }, build: ({ x, s }) => g.rmsNorm(x!, s!) }],
  rotary: [
    {
      inputs: { x: { shape: [2, 2, 3, 4] }, p: { shape: [2, 3], integers: 6 } },
      build: ({ x, p }) => {
        const angles = Array.from({ length: 12 }, (_, i) => Math.floor(i / 2) * 10 ** -(i % 2));
        const table = (f: (x: number) => number) => g.constant(g.f32(angles.map(f), [6, 2]));
        return g.rotary(x!, p!, table(Math.cos), table(Math.sin));
      },
    },
  ],
};

for (const [name, list] of Object.entries(cases)) {
  list.forEach((c, index) => {
    test(`${name} ${index}: gradient, shape and dtype`, async () => {
      const random = new Random(`${name}/${index}`);
      const feeds: Record<string, g.Tensor> = {};
      const nodes: Record<string, g.Node> = {};
      for (const [key, s] of Object.entries(c.inputs)) {
        const n = g.sizeOf(s.shape);
        nodes[key] = g.input(key, s.symbolic ?? s.shape, s.integers === undefined ? 'float32' : 'int64');
        feeds[key] =
          s.integers === undefined
            ? g.f32(
                Float32Array.from({ length: n }, () => (s.positive ? 0.5 + random.uniform() : random.normal())),
                s.shape,
              )
            : g.i64(
                Array.from({ length: n }, () => random.int(s.integers!)),
                s.shape,
              );
      }
      const y = c.build(nodes);
      // A random weighting, so that every element of the output counts differently; its shape is the output's at run time.
      const shape = y.shape.map((d) =>
        g.bindDim(d, new Map(Object.entries({ b: 2, l: name === 'slice' ? 5 : 3, v: 3, t: 2, r: 3 }))),
      );
      feeds.w = g.f32(random.normals(g.sizeOf(shape)), shape);
      const loss = g.sum(
        g.mul(
          y,
          g.input(
            'w',
            y.shape
              .map((d, i) => (typeof d === 'number' ? d : `w${i}`))
              .map((d, i) => (typeof y.shape[i] === 'number' ? d : y.shape[i]!)),
          ),
        ),
      );
      const targets = Object.entries(nodes).filter(([, n]) => n.dtype === 'float32');
      const gradients = g.gradient(
        loss,
        targets.map(([, n]) => n),
      );
      const outputs: Record<string, g.Node> = { y, loss };
      targets.forEach(([key], i) => {
        outputs[`d${key}`] = gradients[i]!;
      });
      const program = await compile(outputs, { threads: 1 });
      const result = await program.run(feeds);
      expect(result.y!.shape).toEqual(shape);
      expect(result.y!.dtype).toBe(y.dtype);
      for (const [key] of targets) {
        const dx = result[`d${key}`]!;
        expect(dx.shape).toEqual(feeds[key]!.shape);
        const data = feeds[key]!.data as Float32Array;
        for (let i = 0; i < data.length; i++) {
          const at = data[i]!;
          const step = 4e-3;
          const lossAt = async (v: number): Promise<number> => {
            data[i] = v;
            const out = await program.run(feeds);
            data[i] = at;
            return (out.loss!.data as Float32Array)[0]!;
          };
          const slope = ((await lossAt(at + step)) - (await lossAt(at - step))) / (2 * step);
          expect(Math.abs(slope - (dx.data as Float32Array)[i]!), `d loss / d ${key}[${i}]`).toBeLessThan(
            4e-3 * Math.max(1, Math.abs(slope)) + 2e-3,
          );
        }
      }
      await program.release();
    });
  });
}

test('every op has a gradient case or is declared not differentiable', () => {
  const missing = [...g.opTable.values()].filter((op) => op.vjp !== null && cases[op.name] === undefined).map((op) => op.name);
  expect(missing).toEqual([]);
});
