/**
 * Gradient factors of the edit's loss. For a matrix W [out, in] that reads x_t and whose output has the gradient δ_t, ∇_W = Σ_t δ_t x_tᵀ: one
 * rank-one term a position (Mitchell et al. 2022, Section 3.1). x and δ are what the hyper-networks of MEND and KE read; both treat them as given,
 * so no gradient of a gradient is ever needed.
 */

import { concat, type Dim, gradient, input, type Node, type Tensor } from '../../graph/index.ts';
import { batchShape } from '../../models/batch.ts';
import type { Rewrite } from '../../models/rewrite.ts';
import type { Vlm } from '../../models/vlm.ts';
import { Weights } from '../../nn/weights.ts';
import type { Feeds } from '../../runtime/program.ts';
import type { Sample } from '../context/states.ts';
import { feedForward, type NamedWeight, productsOf } from './chosen-weights.ts';
import { addDeltas, type Deltas } from './deltas.ts';
import { tailFeeds, tailLogits, targetLoss } from './edit-loss.ts';

/** Factors of one matrix for a batch of edits. Rows of padding have δ = 0. */
export interface Factors {
  /** [e, t, in] */
  x: Tensor<'float32'>;
  /** [e, t, out] */
  delta: Tensor<'float32'>;
}

/** The factors of one matrix as inputs `x:{name}` [e, t, in] and `d:{name}` [e, t, out] of a program. */
export function factorInputs({ name, shape }: NamedWeight): { x: Node; delta: Node } {
  const [out, inWidth] = shape as [number, number];
  // A length of its own: in the last layer only words have a gradient.
  const t = `t_${name.replace(/\W/g, '_')}`;
  return { x: input(`x:${name}`, ['e', t, inWidth]), delta: input(`d:${name}`, ['e', t, out]) };
}

/** Feeds of `factorInputs`. */
export function factorFeeds(factors: ReadonlyMap<string, Factors>): Feeds {
  return Object.fromEntries(
    [...factors].flatMap(([name, { x, delta }]) => [[`x:${name}`, x] as const, [`d:${name}`, delta] as const]),
  );
}

/** Feed-forward matrices of layers `from` and up. */
export function lastMatrices(vlm: Vlm, from: number): NamedWeight[] {
  const layers = Array.from({ length: vlm.decoder.layers - from }, (_, i) => from + i);
  return layers.flatMap((layer) => feedForward(vlm, layer));
}

function factorGraph(
  vlm: Vlm,
  from: number,
  prefix: Dim,
  matrices: readonly string[],
  { replace }: Rewrite,
): Record<string, Node> {
  const weights = new Weights(replace);
  const loss = targetLoss(tailLogits(vlm, from, prefix, weights));
  const nodes = new Map(matrices.map((name) => [weights.entries().get(name)!, name]));
  const products = productsOf(loss, (matrix) => nodes.has(matrix));
  const deltas = gradient(loss, products);
  const outputs: Record<string, Node> = {};
  for (const name of matrices) {
    // The picture and the words pass a layer apart, by one and the same matrix.
    const uses = products.flatMap((p, i) => (nodes.get(p.inputs[1]!) === name ? [{ x: p.inputs[0]!, delta: deltas[i]! }] : []));
    const joined = (parts: readonly Node[]): Node => concat(parts, 1);
    outputs[`x:${name}`] = joined(uses.map(({ x }) => x));
    outputs[`d:${name}`] = joined(uses.map(({ delta }) => delta));
  }
  return outputs;
}

/**
 * @param samples states before layer `from` of the edits' own inputs
 * @param earlier changes of the matrices that the model has already
 */
export async function gradientFactors(
  vlm: Vlm,
  from: number,
  samples: readonly Sample[],
  earlier: Deltas = new Map(),
): Promise<Map<string, Factors>> {
  const matrices = lastMatrices(vlm, from).map(({ name }) => name);
  const rewrite = addDeltas(earlier);
  const prefix = vlm.prefixDim(batchShape(samples.map(({ sequence }) => sequence)).prefix);
  const program = await vlm.program(factorGraph, from, prefix, matrices, rewrite);
  const out = await program.run({ ...tailFeeds(vlm, samples), ...rewrite.feeds });
  return new Map(
    matrices.map((name) => [name, { x: out[`x:${name}`] as Tensor<'float32'>, delta: out[`d:${name}`] as Tensor<'float32'> }]),
  );
}
