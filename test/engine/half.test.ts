/**
 * Half precision for frozen layers: which values are held in it, how many conversions that takes, and how far the results are from float32. The
 * programs run on the processor, which computes each operator in float32 and rounds its result.
 */
import { expect, test } from 'vitest';
import { toFloat16 } from '../../src/files/half.ts';
import * as g from '../../src/graph/index.ts';
import { causalBias } from '../../src/models/batch.ts';
import { llama } from '../../src/models/llama.ts';
import { Sites } from '../../src/models/sites.ts';
import { Weights } from '../../src/nn/weights.ts';
import { devices } from '../../src/onnx/device.ts';
import { emit } from '../../src/onnx/emit.ts';
import { Random } from '../../src/random.ts';
import { compile, engineFor } from '../../src/runtime/node.ts';
import { count } from './onnx-nodes.ts';

const [d, vocabulary, l] = [64, 40, 12];
const halfDevice = { ...devices.cpu, half: true };

/** A stack of layers over hidden states, the loss of a label, and the gradients of a trained row that is added to the states. */
function stack(layers: number): Record<string, g.Node> {
  const decoder = llama(
    {
      ...{ hidden_size: d, intermediate_size: 96, num_hidden_layers: layers, num_attention_heads: 4, num_key_value_heads: 4 },
      ...{ vocab_size: vocabulary, hidden_act: 'silu', rms_norm_eps: 1e-5, rope_theta: 1e4, rope_scaling: null },
      ...{ max_position_embeddings: 64, tie_word_embeddings: false, attention_bias: false, mlp_bias: false },
    },
    '',
  );
  const weights = new Weights();
  const context = {
    weights,
    sites: new Sites(),
    positions: g.input('positions', ['b', 'l'], 'int64'),
    bias: g.input('bias', ['b', 1, 'l', 'l']),
  };
  const adapter = g.parameter('adapter', [d, d]);
  const hidden = g.input('hidden', ['b', 'l', d]);
  let x = g.add(hidden, g.matmul(hidden, adapter, false, true));
  for (let i = 0; i < layers; i++) x = decoder.layer(i, x, context);
  const logits = decoder.head(x, weights);
  const loss = g.mean(g.crossEntropy(logits, g.input('labels', ['b', 'l'], 'int64')));
  return { logits, loss, dAdapter: g.gradient(loss, [adapter])[0]! };
}

const random = new Random('half');
const normal = (shape: number[], scale = 1): g.Tensor<'float32'> => g.f32(random.normals(g.sizeOf(shape), scale), shape);
const floats = new Map<string, g.Tensor<'float32'>>();
const floatWeight = (name: string, shape: readonly number[]): g.Tensor<'float32'> => {
  let weight = floats.get(name);
  if (weight === undefined) {
    weight = shape.length === 1 ? g.f32(new Float32Array(shape[0]!).fill(1), shape) : normal([...shape], 0.8 / Math.sqrt(d));
    floats.set(name, weight);
  }
  return weight;
};

function sources(outputs: Record<string, g.Node>) {
  const shapes = new Map(
    g
      .topological(Object.values(outputs))
      .filter(({ op }) => op === g.parameterOp)
      .map((node) => [g.nameOf(node), node.shape as number[]]),
  );
  const frozen = (name: string) => (name === 'adapter' ? undefined : floatWeight(name, shapes.get(name)!));
  return {
    wide: frozen,
    half: (name: string) => {
      const weight = frozen(name);
      return weight && { dtype: 'float16' as const, shape: weight.shape, data: toFloat16(weight.data) };
    },
  };
}

test('a layer takes a fixed number of conversions, and its products are in half precision', () => {
  const bytesOf = (layers: number, outputs: string[]): Uint8Array => {
    const all = stack(layers);
    const { half } = sources(all);
    return emit(new Map(outputs.map((name) => [name, all[name]!])), half, {}, halfDevice).bytes;
  };
  const perLayer = (outputs: string[], op: string): number => count(bytesOf(3, outputs), op) - count(bytesOf(2, outputs), op);
  // forward: of the norms' two results and of the two products that are added to the float32 stream; the other two are of the norms' weights,
  // once, when the program is opened
  expect(perLayer(['logits'], 'Cast')).toBe(6);
  expect(perLayer(['loss', 'dAdapter'], 'Cast')).toBe(12);
});

test('logits, loss and gradient are those of float32 up to rounding', async () => {
  const outputs = stack(4);
  const { wide, half } = sources(outputs);
  const feeds = {
    hidden: normal([2, l, d]),
    adapter: normal([d, d], 0.02),
    positions: g.i64(
      Array.from({ length: 2 * l }, (_, i) => i % l),
      [2, l],
    ),
    bias: causalBias(2, l),
    labels: g.i64(
      Array.from({ length: 2 * l }, () => random.int(vocabulary)),
      [2, l],
    ),
  };
  const exact = await compile(outputs, { weights: wide, threads: 1 });
  const rounded = await engineFor(halfDevice).compile(outputs, { weights: half, threads: 1 });
  const [a, b] = [await exact.run(feeds), await rounded.run(feeds)];
  const distance = (name: string): number => {
    const [x, y] = [a[name]!.data as Float32Array, b[name]!.data as Float32Array];
    const square = (of: (i: number) => number) => Math.sqrt(x.reduce((sum, _, i) => sum + of(i) ** 2, 0));
    return square((i) => x[i]! - y[i]!) / square((i) => x[i]!);
  };
  const found = Object.fromEntries(Object.keys(outputs).map((name) => [name, distance(name)]));
  console.log('half precision against float32:', found);
  expect(b.logits!.dtype).toBe('float32');
  for (const name of Object.keys(outputs)) {
    expect(found[name]).toBeGreaterThan(0);
    expect(found[name]).toBeLessThan(4e-3);
  }
  await exact.release();
  await rounded.release();
});
