/**
 * What single neurons of the MLPs do at one position: neuron j of layer l adds r = act_j W_down[:, j] to the residual stream, times the factors of the
 * norm behind the module where there is one. What it does to the log odds of a token is measured in two ways: to first order, g · r with g the gradient
 * of the log odds at the last residual stream h, for all neurons at once; and exactly, for chosen ones, by taking r out of h.
 */

import { f32, i64, type Tensor } from '../graph/dtype.ts';
import {
  abs,
  add,
  div,
  gradient,
  input,
  less,
  logSoftmax,
  mul,
  type Node,
  oneHot,
  stopGradient,
  sub,
  sum,
  where,
} from '../graph/index.ts';
import type { Reading } from '../models/answer.ts';
import type { Decoder } from '../models/architecture.ts';
import { MASKED } from '../models/batch.ts';
import { placeInputs, walk } from '../models/forward.ts';
import type { Rewrite } from '../models/rewrite.ts';
import { Sites } from '../models/sites.ts';
import type { Vlm } from '../models/vlm.ts';
import { Weights } from '../nn/weights.ts';

/** Neurons of one layer at one position. */
export interface NeuronParts {
  readonly layer: number;
  /** [wide] */
  readonly activations: Float32Array;
  /** by how much the log odds fall without each, to first order [wide] */
  readonly firstOrder: Float32Array;
  /** what some of them add to the residual stream [n, d] */
  partsOf(neurons: readonly number[]): Promise<Tensor<'float32'>>;
}

/** Neurons of one layer's MLP. */
export function neuronCount(decoder: Decoder, layer: number): number {
  const sites = new Sites();
  const { positions, bias } = placeInputs(decoder, undefined);
  const x = input('hidden', ['b', 'l', decoder.hidden]);
  walk(decoder, layer, layer + 1, x, { weights: new Weights(), sites, positions, bias });
  return sites.get(`layers.${layer}.mlp.neurons`).dim(-1) as number;
}

/** Gradient of log p / (1 − p) of the token `key` by the last residual stream, [1, d]. */
function slopeGraph({ decoder }: Vlm, rewrite: Rewrite | undefined): Record<string, Node> {
  const state = input('state', [1, decoder.hidden]);
  const logits = decoder.head(state, new Weights(rewrite?.replace));
  const own = oneHot(input('key', [1], 'int64'), decoder.vocabulary);
  // log (1 − p) + log of all is the log sum of the others, which is one of them less its log share among them.
  const one = oneHot(input('other', [1], 'int64'), decoder.vocabulary);
  const others = add(logits, mul(own, MASKED));
  const logSum = sub(sum(mul(others, one)), sum(mul(logSoftmax(others), one)));
  return { slope: gradient(sub(sum(mul(logits, own)), logSum), [state])[0]! };
}

/** The module's output, and what is added to the residual stream of it as factors of its elements. */
function moduleOf(decoder: Decoder, layer: number, w: Weights, wide: number): { neurons: Node; factors: Node; output: Node } {
  const neurons = input('neurons', [1, wide]);
  const output = decoder.down(layer, neurons, w);
  const factors = where(less(abs(output), 1e-12), 0, div(input('added', [1, decoder.hidden]), output));
  return { neurons, output, factors: stopGradient(factors) };
}

function firstOrderGraph({ decoder }: Vlm, layer: number, wide: number, rewrite: Rewrite | undefined): Record<string, Node> {
  const { neurons, factors, output } = moduleOf(decoder, layer, new Weights(rewrite?.replace), wide);
  const along = sum(mul(mul(output, factors), input('slope', [1, decoder.hidden])));
  return { firstOrder: mul(neurons, gradient(along, [neurons])[0]!) };
}

function partsGraph({ decoder }: Vlm, layer: number, wide: number, rewrite: Rewrite | undefined): Record<string, Node> {
  const w = new Weights(rewrite?.replace);
  const { neurons, factors } = moduleOf(decoder, layer, w, wide);
  const alone = mul(oneHot(input('chosen', ['n'], 'int64'), wide), neurons);
  return { parts: mul(sub(decoder.down(layer, alone, w), decoder.down(layer, mul(alone, 0), w)), factors) };
}

/** Floats of one run's outputs: more layers than fit are read in several runs. */
const RUN_FLOATS = 64e6;

/** Neurons of several layers, and the last residual stream [d] at a position. */
export async function neuronParts(
  vlm: Vlm,
  { batch, rewrite }: Reading,
  layers: readonly number[],
  position: number,
  keyId: number,
): Promise<{ neurons: NeuronParts[]; last: Float32Array }> {
  const { hidden: d, layers: count } = vlm.decoder;
  const replace = rewrite !== undefined && rewrite.replace.size > 0 ? rewrite : undefined;
  const rowOf = ({ data, shape }: Tensor): Tensor<'float32'> => {
    const width = shape.at(-1)!;
    return f32((data as Float32Array).slice(position * width, (position + 1) * width), [1, width]);
  };
  const read = (to: number, names: readonly string[]) => vlm.run({ from: 0, to, read: names }, batch, {}, rewrite);
  const final = `layers.${count - 1}.out`;
  const last = rowOf((await read(count, [final]))[final]!);
  const { slope } = await (await vlm.program(slopeGraph, replace)).run({
    ...rewrite?.feeds,
    ...{ state: last, key: i64([keyId], [1]), other: i64([keyId === 0 ? 1 : 0], [1]) },
  });
  const widest = neuronCount(vlm.decoder, layers[0]!);
  const perRun = Math.max(1, Math.floor(RUN_FLOATS / (batch.length * (widest + d))));
  const neurons: NeuronParts[] = [];
  for (let at = 0; at < layers.length; at += perRun) {
    const some = layers.slice(at, at + perRun);
    const names = some.flatMap((layer) => [`layers.${layer}.mlp.neurons`, `layers.${layer}.mlp.out`]);
    const states = await read(Math.max(...some) + 1, names);
    for (const layer of some) {
      const own = rowOf(states[`layers.${layer}.mlp.neurons`]!);
      const wide = own.shape[1]!;
      const feeds = { ...rewrite?.feeds, neurons: own, added: rowOf(states[`layers.${layer}.mlp.out`]!) };
      const program = await vlm.program(firstOrderGraph, layer, wide, replace);
      const { firstOrder } = await program.run({ ...feeds, slope: slope! });
      neurons.push({
        ...{ layer, activations: own.data, firstOrder: firstOrder!.data as Float32Array },
        async partsOf(chosen) {
          const parts = await vlm.program(partsGraph, layer, wide, replace);
          return (await parts.run({ ...feeds, chosen: i64(chosen, [chosen.length]) })).parts as Tensor<'float32'>;
        },
      });
    }
  }
  return { neurons, last: last.data };
}
