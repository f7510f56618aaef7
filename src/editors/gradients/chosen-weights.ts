/**
 * Which weights an editor changes, found in the graph of any architecture instead of listed by name: the connector is what lies between the sites
 * `vision.features` and `visual`, the feed-forward matrices of a layer are those between `layers.{i}.mlp.in` and `layers.{i}.mlp.out`.
 */

import { input, type Node, nameOf, parameter, parameterOp, type Tensor, topological } from '../../graph/index.ts';
import { placeInputs, walk } from '../../models/forward.ts';
import { Sites } from '../../models/sites.ts';
import { connector } from '../../models/vision.ts';
import type { Vlm } from '../../models/vlm.ts';
import { Weights } from '../../nn/weights.ts';

export interface NamedWeight {
  readonly name: string;
  readonly shape: readonly number[];
}

const named = (node: Node): NamedWeight => ({ name: nameOf(node), shape: node.shape as number[] });

/** LLaVA: the projector. BLIP2-OPT and MiniGPT-4: the Q-Former with its query tokens, and the projection. */
export function connectorWeights(vlm: Vlm): NamedWeight[] {
  return topological([connector(vlm, new Weights())])
    .filter((node) => node.op === parameterOp)
    .map(named);
}

/** Matrices [out, in] of a layer's feed-forward module in the order of their use: LLaMA gate, up, down; OPT fc1, fc2. */
export function feedForward(vlm: Vlm, layer: number): NamedWeight[] {
  const sites = new Sites(new Map([[`layers.${layer}.mlp.in`, (x: Node) => input('mlp.in', x.shape)]]));
  layersOf(vlm, layer, layer + 1, sites);
  return productsOf(sites.get(`layers.${layer}.mlp.out`)).map(({ inputs }) => named(inputs[1]!));
}

/** Matrices [out, in] of attention and feed-forward modules in layers `from` and up. */
export function layerMatrices(vlm: Vlm, from: number): NamedWeight[] {
  return productsOf(layersOf(vlm, from, vlm.decoder.layers, new Sites())).map(({ inputs }) => named(inputs[1]!));
}

/** Layers [from, to) over any states. */
function layersOf({ decoder }: Vlm, from: number, to: number, sites: Sites): Node {
  const { positions, bias } = placeInputs(decoder, undefined);
  return walk(decoder, from, to, input('x', ['b', 'l', decoder.hidden]), { weights: new Weights(), sites, positions, bias });
}

/** Products with a chosen matrix on the right, in the order of the graph; by default with any stored one. */
export function productsOf(output: Node, chosen = (matrix: Node): boolean => matrix.op === parameterOp): Node[] {
  return topological([output]).filter(({ op, inputs }) => op.name === 'matmul' && chosen(inputs[1]!));
}

const storedValues = (_: Vlm, weights: readonly NamedWeight[]): Record<string, Node> =>
  Object.fromEntries(weights.map(({ name, shape }) => [name, parameter(name, shape)]));

/** Stored values, as float32. */
export async function readWeights(vlm: Vlm, weights: readonly NamedWeight[]): Promise<Map<string, Tensor<'float32'>>> {
  const program = await vlm.program(storedValues, weights);
  return new Map(Object.entries(await program.run({})) as [string, Tensor<'float32'>][]);
}
