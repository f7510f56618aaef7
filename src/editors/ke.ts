/**
 * KE, KnowledgeEditor (De Cao et al. 2021): a hyper-network reads the edit as text and gates the gradient of its loss. A bidirectional LSTM reads
 * the frozen word embeddings of  prompt ‖ sep ‖ old answer ‖ sep ‖ target;  its two last states h give, for each feed-forward matrix W [n, m] of
 * the last three decoder layers, through tanh and two linear maps, α, β ∈ R^m, γ, δ ∈ R^n and η ∈ R (their Eq. 5-6):
 *   W̃ = W + σ(η) (Â ⊙ ∇_W + B̂),   Â = softmax(γ) αᵀ,   B̂ = softmax(δ) βᵀ
 * ∇_W is the gradient of −log p(target | image, prompt); gates and gradient are sums of rank-one terms (factors.ts), and so is the edit.
 * Trained to lower the loss of request and rephrasings subject to KL(before ‖ after) < margin on the locality samples: the loss is
 * ℓ + λ (KL − margin), λ ≥ 0 starts at 1 and follows its own ascent (RMSprop, rate 0.1), the margin is annealed from 1e-3 to 1e-5 by factors of
 * 0.8, each when most edits succeed. AdamW's decay 1e-2, rate 3e-4, label smoothing 0.1, LSTM width 128, condition width 1024 as published.
 *
 * Deviations: α starts at −2 n `start` instead of near 0, so that an untrained editor makes a step of `start` down the gradient; only matrices of the last three layers
 * are edited, as the paper's setting of Cheng et al. (2023) for MEND has it, not all; the old answer is what the model generates for the request, cut to the
 * target's length; the text is cut to its last `window` tokens; success is measured on training batches (smoothed), not on a validation set; linear
 * maps have no weight normalisation.
 */

import { z } from 'zod';
import {
  add,
  concat,
  type Dim,
  f32,
  i64,
  input,
  matmul,
  mul,
  mulDim,
  type Node,
  reshape,
  sigmoid,
  sizeOf,
  slice,
  softmax,
  sub,
  type Tensor,
  tanh,
  transpose,
} from '../graph/index.ts';
import type { EditRecord } from '../input/records.ts';
import { textOf } from '../input/segments.ts';
import type { Query } from '../models/answer.ts';
import { generate } from '../models/generate.ts';
import type { Vlm } from '../models/vlm.ts';
import { linear } from '../nn/layers.ts';
import { zeros } from '../nn/optimizers.ts';
import { type LowRank, Weights } from '../nn/weights.ts';
import { Random } from '../random.ts';
import type { Feeds } from '../runtime/program.ts';
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
  addDeltas,
  chainDeltas,
  type Deltas,
  lowRankOutputs,
  lowRankShapes,
  lowRankTensors,
  sequenceOfDeltas,
  withDeltas,
} from './gradients/deltas.ts';
import { stateBefore } from './gradients/edit-loss.ts';
import { factorFeeds, factorInputs, gradientFactors, lastMatrices } from './gradients/factors.ts';
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

const id = 'ke';
/** steps between two narrowings of the margin, at least */
const PATIENCE = 50;

const schema = (vlm: Vlm) =>
  z.object({
    from: layerOf(vlm, 'the first decoder layer that it acts on, from 0', { option: '--layer' }).default(
      Math.max(0, vlm.decoder.layers - 3),
    ),
    lstm: size('width of each direction of the LSTM').default(128),
    condition: size('width between the LSTM and the gates').default(1024),
    window: size('tokens of the text of an edit that are read').default(64),
    start: real('step down the gradient that an untrained editor makes').default(1e-4),
    smoothing: real('label smoothing', { min: 0, max: 1 }).default(0.1),
    decay: real('decoupled weight decay').default(1e-2),
    marginMax: real('margin of KL at the start').default(1e-3),
    marginMin: real('margin of KL at the end').default(1e-5),
    multiplierRate: real('rate of the multiplier λ').default(0.1),
    success: real('mean −log p of requests below which the margin is narrowed').default(0.3),
    ...recordTraining({ steps: 2000, batch: 1, rate: 3e-4, hold: 1, lastRate: 1, budget: 1e9 }),
    clip: clipping(100),
    microBatch: microBatch(),
  });

const configOf = (vlm: Vlm, options: Partial<TrainOptions>) => withMicroBatch(trainingConfig(id, schema(vlm), options));
type KeConfig = ReturnType<typeof configOf>;

type Sizes = Pick<KeConfig, 'lstm' | 'condition' | 'window'>;

/** Names and shapes of the hyper-network's weights. */
function shapes(vlm: Vlm, matrices: readonly NamedWeight[], { lstm: h, condition: c }: Sizes): Map<string, readonly number[]> {
  const out = new Map<string, readonly number[]>([['separator', [1, vlm.decoder.hidden]]]);
  // Forward and backward.
  out.set('lstm.input', [2, 4 * h, vlm.decoder.hidden]);
  out.set('lstm.bias', [2, 1, 4 * h]);
  out.set('lstm.state', [2, 4 * h, h]);
  for (const { name, shape } of matrices) {
    const [n, m] = shape as [number, number];
    out.set(`${name}.in.weight`, [c, 2 * h]);
    out.set(`${name}.in.bias`, [c]);
    out.set(`${name}.out.weight`, [2 * (n + m) + 1, c]);
    out.set(`${name}.out.bias`, [2 * (n + m) + 1]);
  }
  return out;
}

/**
 * The last states of both directions, [e, 2h]. Inputs: ke.ids, ke.mask and ke.separators [2, e, window], the text as it is and reversed, with
 * padding before it where the mask is 0.
 */
function readEdit(vlm: Vlm, w: Weights, { lstm: h, window }: Sizes): Node {
  const d = vlm.decoder.hidden;
  const mask = input('ke.mask', [2, 'e', window]);
  const separators = reshape(input('ke.separators', [2, 'e', window]), [2, 'e', window, 1]);
  const words = vlm.decoder.embed(input('ke.ids', [2, 'e', window], 'int64'), new Weights());
  const text = add(mul(words, sub(1, separators)), mul(separators, w.get('separator', [1, d])));
  const given = add(
    matmul(reshape(text, [2, mulDim('e', window), d]), w.get('lstm.input', [2, 4 * h, d]), false, true),
    w.get('lstm.bias', [2, 1, 4 * h]),
  );
  const steps = reshape(given, [2, 'e', window, 4 * h]);
  const recurrent = w.get('lstm.state', [2, 4 * h, h]);
  let state: { hidden: Node; cell: Node } | undefined;
  for (let t = 0; t < window; t++) {
    const own = reshape(slice(steps, 2, t, t + 1), [2, 'e', 4 * h]);
    const gates = state === undefined ? own : add(own, matmul(state.hidden, recurrent, false, true));
    const open = sigmoid(slice(gates, 2, 0, 3 * h));
    const gate = (k: number): Node => slice(open, 2, k * h, (k + 1) * h);
    const written = mul(gate(0), tanh(slice(gates, 2, 3 * h, 4 * h)));
    const cell = state === undefined ? written : add(mul(gate(1), state.cell), written);
    const hidden = mul(gate(2), tanh(cell));
    // Padding leaves the state at 0, where it starts.
    const m = slice(mask, 2, t, t + 1);
    state = { hidden: mul(hidden, m), cell: mul(cell, m) };
  }
  return reshape(transpose(state!.hidden, [1, 0, 2]), ['e', 2 * h]);
}

/** The change of every matrix as left [e, n, t + 1] and right [e, t + 1, m]. */
function changes(vlm: Vlm, matrices: readonly NamedWeight[], sizes: Sizes, w: Weights): Map<string, LowRank> {
  const h = readEdit(vlm, w, sizes);
  return new Map(
    matrices.map((matrix) => {
      const [n, m] = matrix.shape as [number, number];
      const condition = tanh(linear(w, `${matrix.name}.in`, h, 2 * sizes.lstm, sizes.condition));
      const parts = linear(w, `${matrix.name}.out`, condition, sizes.condition, 2 * (n + m) + 1);
      const ends = [m, m, n, n, 1].map((_, i, all) => all.slice(0, i + 1).reduce((a, b) => a + b, 0));
      const [alpha, beta, gamma, delta, eta] = ends.map((end, i) => slice(parts, 1, i === 0 ? 0 : ends[i - 1]!, end)) as [
        Node,
        Node,
        Node,
        Node,
        Node,
      ];
      const row = (x: Node, width: Dim): Node => reshape(x, ['e', 1, width]);
      const scale = row(sigmoid(eta), 1);
      const { x, delta: dy } = factorInputs(matrix);
      const terms = mul(mul(dy, row(softmax(gamma), n)), scale);
      const offset = mul(row(softmax(delta), n), scale);
      return [
        matrix.name,
        {
          left: transpose(concat([terms, offset], 1), [0, 2, 1]),
          right: concat([mul(x, row(alpha, m)), row(beta, m)], 1),
        },
      ];
    }),
  );
}

function initialWeights(
  vlm: Vlm,
  matrices: readonly NamedWeight[],
  sizes: Sizes,
  start: number,
  random: Random,
): Map<string, Tensor<'float32'>> {
  const widths = new Map(matrices.map(({ name, shape }) => [name, shape as [number, number]]));
  return new Map(
    [...shapes(vlm, matrices, sizes)].map(([name, shape]): [string, Tensor<'float32'>] => {
      if (name.endsWith('.out.bias')) {
        const [n, m] = widths.get(name.slice(0, -'.out.bias'.length))!;
        const t = zeros(shape);
        // softmax(γ) starts at 1/n, σ(η) at one half.
        t.data.fill(-2 * n * start, 0, m);
        return [name, t];
      }
      if (name === 'lstm.bias') {
        const t = zeros(shape);
        // Forget gates start open.
        for (const direction of [0, 4 * sizes.lstm]) t.data.fill(1, direction + sizes.lstm, direction + 2 * sizes.lstm);
        return [name, t];
      }
      if (name.endsWith('.bias')) return [name, zeros(shape)];
      const scale = (name.endsWith('.out.weight') ? 0.1 : 1) / Math.sqrt(shape.at(-1)!);
      return [name, f32(random.fork(name).normals(sizeOf(shape), scale), shape)];
    }),
  );
}

/**
 * What the hyper-network reads of edits: −1 is the separator. Old answers are generated together.
 * @param earlier changes that the model has already
 */
async function conditionsOf(vlm: Vlm, requests: readonly Query[], earlier: Deltas = new Map()): Promise<number[][]> {
  const sequences = requests.map((request) => vlm.layout(request, request.target));
  const asked = requests.map((request) => vlm.layout(request));
  const maxNewTokens = Math.max(...sequences.map(({ targetIds }) => targetIds.length));
  const changed = earlier.size === 0 ? {} : { rewrite: addDeltas(earlier) };
  const old = await generate(vlm, await vlm.batch(asked), { maxNewTokens, ...changed });
  return requests.map(({ prompt }, i) => {
    const { targetIds } = sequences[i]!;
    return [...vlm.codec.encode(textOf(prompt), { special: false }), -1, ...old[i]!.slice(0, targetIds.length), -1, ...targetIds];
  });
}

function conditionFeeds(conditions: readonly (readonly number[])[], window: number): Feeds {
  const shape = [2, conditions.length, window];
  const ids = new BigInt64Array(sizeOf(shape));
  const [mask, separators] = [new Float32Array(sizeOf(shape)), new Float32Array(sizeOf(shape))];
  const texts = conditions.map((condition) => condition.slice(-window));
  [...texts, ...texts.map((text) => [...text].reverse())].forEach((tokens, n) => {
    tokens.forEach((token, i) => {
      const at = (n + 1) * window - tokens.length + i;
      ids[at] = BigInt(Math.max(0, token));
      mask[at] = 1;
      separators[at] = token < 0 ? 1 : 0;
    });
  });
  return { 'ke.ids': i64(ids, shape), 'ke.mask': f32(mask, shape), 'ke.separators': f32(separators, shape) };
}

async function train(vlm: Vlm, records: readonly EditRecord[], options: TrainOptions): Promise<EditorWeights> {
  const config = configOf(vlm, options);
  const { from } = config;
  const matrices = lastMatrices(vlm, from);
  const { smoothed, ...terms } = metaTerms(vlm, from, changes(vlm, matrices, config, new Weights()));
  const target = mul(
    Object.values(smoothed(config.smoothing)).reduce((a: Node, b: Node) => add(a, b)),
    1 / 3,
  );
  const kl = mul(add(terms.modalLocality, terms.textLocality), 0.5);
  // λ ascends its own gradient, KL − margin, by RMSprop as in torch.
  const multiplier = { lambda: 1, square: 0, margin: config.marginMax, success: config.success + 1, waited: 0 };
  return trainHyperNetwork(
    vlm,
    records,
    {
      editor: id,
      config,
      loss: add(target, mul(sub(kl, input('ke.margin', [])), input('ke.lambda', []))),
      metrics: { ...terms, target, kl },
      initial: initialWeights(vlm, matrices, config, config.start, new Random(`${options.seed}/ke`)),
      fixed: new Map(),
      rule: () => ({ rule: 'adam', decay: config.decay }),
      conditions: (some, pictures) =>
        conditionsOf(
          vlm,
          some.map(({ request }) => ({ ...request, image: pictures.get(request.image)! })),
        ),
      feeds: (part, whole) => ({
        ...conditionFeeds(
          part.map(({ condition }) => condition),
          config.window,
        ),
        'ke.margin': f32([(multiplier.margin * part.length) / whole.length], []),
        'ke.lambda': f32([multiplier.lambda], []),
      }),
      state: {
        after: (metrics) => {
          const ascent = metrics.kl! - multiplier.margin;
          multiplier.square = 0.99 * multiplier.square + 0.01 * ascent * ascent;
          multiplier.lambda = Math.max(
            0,
            multiplier.lambda + (config.multiplierRate * ascent) / (Math.sqrt(multiplier.square) + 1e-8),
          );
          multiplier.success = 0.95 * multiplier.success + 0.05 * metrics.reliability!;
          multiplier.waited++;
          if (multiplier.success > config.success || multiplier.waited < PATIENCE) return;
          multiplier.margin = Math.max(config.marginMin, 0.8 * multiplier.margin);
          multiplier.waited = 0;
        },
        save: () => ({ ...multiplier }),
        restore: (s) => Object.assign(multiplier, Object.fromEntries(Object.keys(multiplier).map((k) => [k, s[k]]))),
      },
      judged: (metrics) => metrics.target! + metrics.kl!,
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

function changeGraph(vlm: Vlm, matrices: readonly NamedWeight[], sizes: Parameters<typeof shapes>[2]): Record<string, Node> {
  const w = new Weights();
  for (const [name, shape] of shapes(vlm, matrices, sizes)) w.bind(name, input(`ke:${name}`, shape));
  return lowRankOutputs(changes(vlm, matrices, sizes, w));
}

/** @param earlier changes that the model has already: its gradient and its old answer are under them */
async function editOne(vlm: Vlm, request: EditRequest, { tensors, settings }: EditorWeights, earlier?: Deltas): Promise<Edit> {
  const { from, lstm, condition, window } = settings as unknown as KeConfig;
  const matrices = lastMatrices(vlm, from);
  const sizes = { lstm, condition, window };
  const program = await vlm.program(changeGraph, matrices, sizes);
  const { prompt, target } = request;
  const factors = await gradientFactors(vlm, from, [await stateBefore(vlm, request, from)], earlier);
  const texts = await conditionsOf(vlm, [request], earlier);
  const out = await program.run({
    ...factorFeeds(factors),
    ...conditionFeeds(texts, window),
    ...Object.fromEntries([...tensors].map(([name, t]) => [`ke:${name}`, t])),
  });
  return {
    editor: id,
    model: modelId(vlm),
    request: wordsOf({ prompt, target }),
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
    settings: (vlm) => inFile(schema(vlm).shape, ['from', 'lstm', 'condition', 'window']),
    tensors: (vlm, { settings }) => {
      const { from, ...sizes } = settings as unknown as KeConfig;
      return shapes(vlm, lastMatrices(vlm, from), sizes);
    },
  },
};

export const ke: Editor = {
  id,
  summary: 'an LSTM reads the edit and gates the gradient of the last feed-forward matrices',
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
