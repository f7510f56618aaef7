/**
 * MEND (Mitchell et al. 2022): a small network turns the gradient of the edit's loss into a change of weights. For each feed-forward matrix of the
 * last three decoder layers ∇_W = Σ_t δ_t x_tᵀ; the network reads each position's pair (x_t, δ_t) and gives another, (x̃_t, δ̃_t):
 *   z = [norm(x); norm(δ)]                                     norm: zero mean, unit deviation of each element over the training edits
 *   h = z + relu(s₁ ⊙ (U₁ V₁ z + c₁) + o₁),   [x̃; δ̃] = h + s₂ ⊙ (U₂ V₂ h + c₂) + o₂             (their Eq. 3)
 *   W̃ = W − α Σ_t δ̃_t x̃_tᵀ
 * U, V, c are shared by matrices of one shape; s, o and the step size α are of each matrix. U, c, o start at 0 and s at 1, so the network starts as
 * the identity. Trained on  0.1 (−log p(target | rephrased prompt)) + 0.1 (−log p(target | rephrased picture)) + KL(before ‖ after) on the picture
 * and on the text locality sample, the coefficients of Cheng et al. (2023); Adam; α with a rate of its own.
 * The edit is the factors: left = −α δ̃ᵀ [out, t], right = x̃ [t, in].
 *
 * Deviations: the request itself is one more term with weight 0.1 (`reliability`; the published losses have its rephrasings alone); means and
 * deviations come from a sample of training edits before the training instead of from a running count; all matrices of the module are edited (for
 * LLaMA Cheng et al. leave out the gate).
 */

import { z } from 'zod';
import {
  abs,
  add,
  cast,
  concat,
  div,
  f32,
  greater,
  input,
  matmul,
  maximum,
  mul,
  type Node,
  parameter,
  slice,
  sub,
  sum,
  type Tensor,
  transpose,
} from '../graph/index.ts';
import { decodeImage } from '../input/image/decode.ts';
import type { EditRecord } from '../input/records.ts';
import type { Vlm } from '../models/vlm.ts';
import { zeros } from '../nn/optimizers.ts';
import { type LowRank, Weights } from '../nn/weights.ts';
import { Random } from '../random.ts';
import { trainingSettings } from './context/training.ts';
import {
  type Edit,
  type Editor,
  type EditorWeights,
  type EditRequest,
  modelId,
  needWeights,
  type Settings,
  type TrainOptions,
  wordsOf,
} from './editor.ts';
import type { Forms } from './forms.ts';
import { changesOf } from './gradients/changes.ts';
import type { NamedWeight } from './gradients/chosen-weights.ts';
import {
  chainDeltas,
  type Deltas,
  lowRankOutputs,
  lowRankShapes,
  lowRankTensors,
  sequenceOfDeltas,
  withDeltas,
} from './gradients/deltas.ts';
import { stateBefore } from './gradients/edit-loss.ts';
import { type Factors, factorFeeds, factorInputs, gradientFactors, lastMatrices } from './gradients/factors.ts';
import { metaTerms } from './gradients/meta-objective.ts';
import { trainHyperNetwork } from './gradients/meta-training.ts';
import {
  clipping,
  inFile,
  layerOf,
  microBatch,
  noSettings,
  real,
  recordTraining,
  size,
  trainingConfig,
  withMicroBatch,
} from './settings.ts';

const id = 'mend';

const schema = (vlm: Vlm) =>
  z.object({
    from: layerOf(vlm, 'the first decoder layer that it acts on, from 0', { option: '--layer' }).default(
      Math.max(0, vlm.decoder.layers - 3),
    ),
    rank: size('rank of U V').default(1920),
    stepSize: real('step size α at the start').default(1e-4),
    stepRate: real('rate of α').default(1e-4),
    reliability: real("weight of the request's own loss").default(0.1),
    generality: real('weight of the rephrasings').default(0.1),
    locality: real('weight of the locality losses').default(1),
    normRecords: size('training edits that means and deviations are taken from').default(128),
    ...recordTraining({ steps: 2000, batch: 1, rate: 1e-6, hold: 1, lastRate: 1, budget: 1e9 }),
    clip: clipping(100),
    microBatch: microBatch(),
  });

const configOf = (vlm: Vlm, options: Partial<TrainOptions>) => withMicroBatch(trainingConfig(id, schema(vlm), options));

/** Matrices of one shape, which share a network. */
interface Group {
  key: string;
  out: number;
  in: number;
  members: readonly string[];
}

function groupsOf(matrices: readonly NamedWeight[]): Group[] {
  const groups = new Map<string, string[]>();
  for (const { name, shape } of matrices) groups.set(shape.join('x'), [...(groups.get(shape.join('x')) ?? []), name]);
  return [...groups].map(([key, members]) => {
    const [out, inWidth] = key.split('x').map(Number) as [number, number];
    return { key, out, in: inWidth, members };
  });
}

const moments = ['xMean', 'xDeviation', 'deltaMean', 'deltaDeviation'] as const;
const sideOf = (moment: string): 'x' | 'delta' => (moment.startsWith('x') ? 'x' : 'delta');

/** Names and shapes of the network's weights, of what is trained and of the moments. */
function shapes(
  groups: readonly Group[],
  rank: number,
): { trained: Map<string, readonly number[]>; fixed: Map<string, readonly number[]> } {
  const trained = new Map<string, readonly number[]>([['stepSizes', [groups.flatMap((g) => g.members).length]]]);
  const fixed = new Map<string, readonly number[]>();
  for (const { key, out, in: inWidth, members } of groups) {
    const z = inWidth + out;
    for (const i of [1, 2]) {
      trained.set(`${key}.u${i}`, [z, rank]);
      trained.set(`${key}.v${i}`, [rank, z]);
      trained.set(`${key}.c${i}`, [z]);
      trained.set(`${key}.s${i}`, [members.length, z]);
      trained.set(`${key}.o${i}`, [members.length, z]);
    }
    for (const moment of moments) fixed.set(`${key}.${moment}`, [sideOf(moment) === 'x' ? inWidth : out]);
  }
  return { trained, fixed };
}

/** −α δ̃ᵀ [e, out, t] and x̃ [e, t, in] of every matrix, from the inputs x:{name} and d:{name}. */
function editedFactors(groups: readonly Group[], rank: number, w: Weights): Map<string, LowRank> {
  const { trained, fixed } = shapes(groups, rank);
  const get = (name: string): Node => w.get(name, trained.get(name) ?? fixed.get(name)!);
  const out = new Map<string, LowRank>();
  for (const group of groups) {
    const { key, out: outWidth, in: inWidth, members } = group;
    const norm = (x: Node, side: string): Node =>
      div(sub(x, get(`${key}.${side}Mean`)), add(get(`${key}.${side}Deviation`), 1e-7));
    members.forEach((name, mode) => {
      const { x, delta } = factorInputs({ name, shape: [outWidth, inWidth] });
      const layer = (i: 1 | 2, y: Node): Node => {
        const low = matmul(y, get(`${key}.v${i}`), false, true);
        const all = add(matmul(low, get(`${key}.u${i}`), false, true), get(`${key}.c${i}`));
        const row = (part: string): Node => slice(get(`${key}.${part}${i}`), 0, mode, mode + 1);
        return add(mul(all, row('s')), row('o'));
      };
      const z = concat([norm(x, 'x'), norm(delta, 'delta')], 2);
      // maximum(0, y) has a gradient at 0, where every y starts.
      const h = add(z, maximum(0, layer(1, z)));
      const y = add(h, layer(2, h));
      const mask = cast(greater(sum(abs(delta), 2, true), 0), 'float32');
      const place = groups.flatMap((g) => g.members).indexOf(name);
      const alpha = slice(get('stepSizes'), 0, place, place + 1);
      out.set(name, {
        left: transpose(mul(mul(slice(y, 2, inWidth, inWidth + outWidth), mask), mul(alpha, -1)), [0, 2, 1]),
        right: slice(y, 2, 0, inWidth),
      });
    });
  }
  return out;
}

/** Means and deviations of each element over the positions with a gradient. */
function momentsOf(groups: readonly Group[], all: readonly ReadonlyMap<string, Factors>[]): Map<string, Tensor<'float32'>> {
  const out = new Map<string, Tensor<'float32'>>();
  for (const { key, in: inWidth, out: outWidth, members } of groups) {
    const sums = { x: new Float64Array(2 * inWidth), delta: new Float64Array(2 * outWidth) };
    let count = 0;
    for (const factors of all) {
      for (const name of members) {
        const { x, delta } = factors.get(name)!;
        for (let t = 0; t < x.shape[1]!; t++) {
          const own = {
            x: x.data.subarray(t * inWidth, (t + 1) * inWidth),
            delta: delta.data.subarray(t * outWidth, (t + 1) * outWidth),
          };
          if (own.delta.every((v) => v === 0)) continue;
          count++;
          for (const side of ['x', 'delta'] as const) {
            own[side].forEach((v, i) => {
              sums[side][i]! += v;
              sums[side][own[side].length + i]! += v * v;
            });
          }
        }
      }
    }
    for (const moment of moments) {
      const side = sums[sideOf(moment)];
      const width = side.length / 2;
      const values = Float32Array.from({ length: width }, (_, i) => {
        const mean = side[i]! / count;
        return moment.endsWith('Mean') ? mean : Math.sqrt(Math.max(0, side[width + i]! / count - mean * mean));
      });
      out.set(`${key}.${moment}`, f32(values, [width]));
    }
  }
  return out;
}

async function train(vlm: Vlm, records: readonly EditRecord[], options: TrainOptions): Promise<EditorWeights> {
  const config = configOf(vlm, options);
  const { from, rank } = config;
  const groups = groupsOf(lastMatrices(vlm, from));
  const random = new Random(`${options.seed}/mend`);
  const some = random.shuffle(records.map((_, i) => i)).slice(0, config.normRecords);
  const found: ReadonlyMap<string, Factors>[] = [];
  for (const i of some) {
    const { image, prompt, target } = records[i]!.request;
    const request = await stateBefore(vlm, { image: await decodeImage(image), prompt, target }, from);
    found.push(await gradientFactors(vlm, from, [request]));
  }
  const { trained, fixed } = shapes(groups, rank);
  const initial = new Map(
    [...trained].map(([name, shape]): [string, Tensor<'float32'>] => {
      if (name === 'stepSizes') return [name, f32(new Float32Array(shape[0]!).fill(config.stepSize), shape)];
      if (/\.v\d$/.test(name))
        return [name, f32(random.fork(name).normals(shape[0]! * shape[1]!, (2 / (shape[0]! + shape[1]!)) ** 0.5), shape)];
      const zero = zeros(shape);
      return [name, /\.s\d$/.test(name) ? f32(zero.data.fill(1), shape) : zero];
    }),
  );
  // What stays as it is becomes part of the compiled step.
  const w = new Weights(new Map([...fixed].map(([name, shape]) => [name, () => parameter(name, shape)])));
  const { smoothed: _, ...terms } = metaTerms(vlm, from, editedFactors(groups, rank, w));
  const weighted: [Node, number][] = [
    [terms.reliability, config.reliability],
    [terms.textGenerality, config.generality],
    [terms.modalGenerality, config.generality],
    [terms.modalLocality, config.locality],
    [terms.textLocality, config.locality],
  ];
  return trainHyperNetwork(
    vlm,
    records,
    {
      editor: id,
      config,
      loss: weighted.map(([term, weight]) => mul(term, weight)).reduce((a, b) => add(a, b)),
      metrics: terms,
      initial,
      fixed: momentsOf(groups, found),
      rule: (name) => ({ rule: 'adam', rate: name === 'stepSizes' ? config.stepRate / config.rate : 1 }),
    },
    options,
  );
}

async function edit(vlm: Vlm, requests: readonly EditRequest[], given?: EditorWeights, chosen?: Settings): Promise<Edit[]> {
  noSettings(id, chosen);
  const weights = needWeights(id, vlm, given, forms.weights);
  const edits: Edit[] = [];
  for (const request of requests) edits.push(await editOne(vlm, request, weights));
  return edits;
}

function changeGraph(_: Vlm, groups: ReturnType<typeof groupsOf>, rank: number): Record<string, Node> {
  const { trained, fixed } = shapes(groups, rank);
  const w = new Weights();
  for (const [name, shape] of [...trained, ...fixed]) w.bind(name, input(name, shape));
  return lowRankOutputs(editedFactors(groups, rank, w));
}

/** @param earlier changes that the model has already */
async function editOne(vlm: Vlm, request: EditRequest, { tensors, settings }: EditorWeights, earlier?: Deltas): Promise<Edit> {
  const [from, rank] = [settings.from as number, settings.rank as number];
  const matrices = lastMatrices(vlm, from);
  const groups = groupsOf(matrices);
  const program = await vlm.program(changeGraph, groups, rank);
  const factors = await gradientFactors(vlm, from, [await stateBefore(vlm, request, from)], earlier);
  const out = await program.run({ ...factorFeeds(factors), ...Object.fromEntries(tensors) });
  return {
    editor: id,
    model: modelId(vlm),
    request: wordsOf(request),
    settings: { from },
    tensors: lowRankTensors(matrices, out),
  };
}

const forms: Forms = {
  edit: {
    settings: (vlm) => inFile({ from: schema(vlm).shape.from }, ['from']),
    tensors: (vlm, { settings }) => lowRankShapes(lastMatrices(vlm, settings.from as number)),
  },
  weights: {
    settings: (vlm) => inFile(schema(vlm).shape, ['from', 'rank']),
    tensors: (vlm, { settings: { from, rank } }) => {
      const { trained, fixed } = shapes(groupsOf(lastMatrices(vlm, from as number)), rank as number);
      return [...trained, ...fixed];
    },
  },
};

export const mend: Editor = {
  id,
  summary: 'a trained network maps the gradient factors of the last feed-forward matrices to their change',
  trained: true,
  promises: { textUntouched: false, batchEqualsSingles: true },
  settings: { train: schema },
  forms,
  layersTrained: (vlm) => vlm.decoder.layers - configOf(vlm, {}).from,
  train,
  trainingSettings: (vlm, options) => trainingSettings(configOf(vlm, options)),
  edit,
  with: (vlm, edits) => withDeltas(id, vlm, edits, forms),
  chain: (vlm, edits) => chainDeltas(id, vlm, edits, forms),
  changes: changesOf,
  sequence: (vlm, given, chosen, made = []) => {
    noSettings(id, chosen);
    const weights = needWeights(id, vlm, given, forms.weights);
    return sequenceOfDeltas(vlm, made, (request, earlier) => editOne(vlm, request, weights, earlier));
  },
};
