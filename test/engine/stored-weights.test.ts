/** Weights in blocks of whole numbers and in half precision: products and gradients are those of the floats that they stand for. */
import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { type BlockBits, type Blocks, blockFor, dequantizeBlocks, quantizeBlocks } from '../../src/files/blocks.ts';
import { fromFloat16, toFloat16 } from '../../src/files/half.ts';
import { openSafetensors, writeSafetensors } from '../../src/files/safetensors.ts';
import { type DType, f32, i64, type Tensor } from '../../src/graph/dtype.ts';
import { add, gather, gradient, input, matmul, mul, type Node, parameter, sum } from '../../src/graph/index.ts';
import type { BlockWeight, WeightLocation, WeightSource } from '../../src/onnx/emit.ts';
import { Random } from '../../src/random.ts';
import { compile } from '../../src/runtime/node.ts';
import type { CompileOptions } from '../../src/runtime/program.ts';

const folder = realpathSync(mkdtempSync(join(tmpdir(), 'visedit-stored-')));
afterAll(() => rmSync(folder, { recursive: true }));

const rows = 48;
const columns = 128;
const values = new Random('weights').normals(rows * columns, 0.1);
const x = f32(new Random('x').normals(5 * columns, 1), [1, 5, columns]);

function blockWeight(bits: BlockBits, block: number, onDisk: boolean): { source: BlockWeight; floats: Tensor<'float32'> } {
  const blocks = quantizeBlocks(values, rows, columns, bits, block);
  const floats = f32(dequantizeBlocks(blocks, bits), [rows, columns]);
  const parts = onDisk ? located(blocks, `${bits}-${block}`) : { ...blocks };
  return { source: { bits, block, shape: [rows, columns], parts: () => parts }, floats };
}

function located(blocks: Blocks, name: string): Record<keyof Blocks, WeightLocation> {
  const path = join(folder, `${name}.safetensors`);
  writeSafetensors(path, { ...blocks });
  const file = openSafetensors(path);
  const at = (part: keyof Blocks, dtype: DType): WeightLocation => {
    const { begin, bytes, shape } = file.entry(part);
    return { file: path, offset: begin, bytes, dtype, shape };
  };
  return { data: at('data', 'uint8'), scales: at('scales', 'float32'), zeros: at('zeros', 'uint8') };
}

async function run(
  outputs: Record<string, Node>,
  weights: WeightSource,
  feeds: Record<string, Tensor>,
  options: CompileOptions = {},
) {
  const program = await compile(outputs, { weights, threads: 1, ...options });
  const out = await program.run(feeds);
  await program.release();
  return Object.fromEntries(Object.entries(out).map(([name, t]) => [name, t.data as Float32Array]));
}

/** |a − b| / |b| */
function distance(a: Float32Array | undefined, b: Float32Array | undefined): number {
  let difference = 0;
  let size = 0;
  b!.forEach((y, i) => {
    difference += (a![i]! - y) ** 2;
    size += y ** 2;
  });
  return Math.sqrt(difference / size);
}

const X = input('x', ['b', 'l', columns]);
const W = parameter('w', [rows, columns]);
const y = matmul(X, W, false, true);
const [dx] = gradient(sum(mul(y, y)), [X]);

describe.each([
  [4, 32, true],
  [4, 16, false],
  [8, 32, true],
  [8, 16, false],
] as const)('%i bits in blocks of %i, on disk: %s', (bits, block, onDisk) => {
  const { source, floats } = blockWeight(bits, block, onDisk);
  const feeds = { x };

  test('the product, with and without packing', async () => {
    const expected = await run({ y }, () => floats, feeds);
    const packed = await run({ y }, () => source, feeds);
    // Packed products round activations to 8 bits, in blocks: about 0.4 % each.
    expect(distance(packed.y, expected.y)).toBeLessThan(0.01);
    const mapped = await run({ y }, () => source, feeds, { prepack: false });
    expect(distance(mapped.y, expected.y)).toBeLessThan(1e-6);
  });

  test('the gradient is exactly that of the floats', async () => {
    const dy = input('dy', ['b', 'l', rows]);
    const [exact] = gradient(sum(mul(y, dy)), [X]);
    const both = { ...feeds, dy: f32(new Random('dy').normals(5 * rows, 1), [1, 5, rows]) };
    for (const prepack of [true, false]) {
      const found = await run({ exact: exact! }, () => source, both, { prepack });
      const expected = await run({ exact: exact! }, () => floats, both);
      expect(distance(found.exact, expected.exact)).toBeLessThan(1e-6);
    }
  });

  test('the gradient through product and loss is that of finite differences', async () => {
    const loss = sum(mul(y, y));
    const program = await compile({ loss, dx: dx! }, { weights: () => source, threads: 1, prepack: false });
    const { dx: given } = await program.run(feeds);
    for (const i of [0, 17, 3 * columns + 5, 5 * columns - 1]) {
      const step = 0.05;
      const at = async (by: number): Promise<number> => {
        const moved = x.data.slice();
        moved[i]! += by;
        return ((await program.run({ x: f32(moved, x.shape) })).loss!.data as Float32Array)[0]!;
      };
      // The loss is quadratic, so central differences are exact but for rounding.
      const difference = ((await at(step)) - (await at(-step))) / (2 * step);
      expect((given!.data as Float32Array)[i]).toBeCloseTo(difference, 1);
    }
    await program.release();
  });

  test('where a use needs floats it gets them: a weight with something added', async () => {
    const edited = matmul(X, add(W, 0.25), false, true);
    const expected = await run({ edited }, () => floats, feeds);
    expect(distance((await run({ edited }, () => source, feeds)).edited, expected.edited)).toBeLessThan(1e-6);
  });
});

test('half precision: once or at each use, rows of a table before they are widened', async () => {
  const half = toFloat16(values);
  const stored: Tensor = { dtype: 'float16', shape: [rows, columns], data: half };
  const floats = f32(fromFloat16(half), [rows, columns]);
  const table = gather(W, input('ids', ['i'], 'int64'));
  const outputs = { y, dx: dx!, table };
  const feeds = { x, ids: i64([3, 0, 47, 3], [4]) };
  const expected = await run(outputs, () => floats, feeds);
  for (const options of [{}, { half: 'perUse', prepack: false }] as const) {
    const found = await run(outputs, () => stored, feeds, options);
    expect(distance(found.y, expected.y)).toBeLessThan(1e-6);
    expect(distance(found.dx, expected.dx)).toBeLessThan(1e-6);
    expect(found.table).toEqual(expected.table);
  }
});

describe('rounding', () => {
  const numbers = fc.array(fc.float({ noNaN: true, noDefaultInfinity: true, min: -1e4, max: 1e4 }), {
    minLength: 64,
    maxLength: 64,
  });
  test('every number is within half a step of its own, and zero stays zero', () => {
    fc.assert(
      fc.property(numbers, fc.constantFrom(4 as const, 8 as const), fc.nat(63), (list, bits, hole) => {
        const given = Float32Array.from(list);
        given[hole] = 0;
        const blocks = quantizeBlocks(given, 2, 32, bits, 32);
        const back = dequantizeBlocks(blocks, bits);
        expect(Math.abs(back[hole]!)).toBe(0);
        // The zero point is rounded too, which moves the ends of the range by up to half a step.
        for (let i = 0; i < back.length; i++)
          expect(Math.abs(back[i]! - given[i]!)).toBeLessThanOrEqual(blocks.scales.data[i >> 5]! * 1.0001);
      }),
    );
  });

  test('two halves of a matrix are the matrix', () => {
    const whole = quantizeBlocks(values, rows, columns, 4, 32);
    const half = quantizeBlocks(values.slice(0, values.length / 2), rows / 2, columns, 4, 32);
    expect(whole.data.data.slice(0, half.data.data.length)).toEqual(half.data.data);
    expect(whole.zeros.data.slice(0, half.zeros.data.length)).toEqual(half.zeros.data);
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])('%s is refused', (bad) => {
    const given = new Float32Array(32);
    given[9] = bad;
    expect(() => quantizeBlocks(given, 1, 32, 8, 32)).toThrow('not a finite number');
  });

  test.each([
    [4096, 4, 32],
    [96, 4, 16],
    [96, 8, 32],
    [48, 4, undefined],
    [48, 8, 16],
    [20, 8, undefined],
  ] as const)('rows of %i in %i bits: blocks of %s', (width, bits, block) => {
    expect(blockFor(width, bits)).toBe(block);
  });
});
