/**
 * TP, Transformer-Patcher (Huang et al. 2023): for each edit, new key-value neurons in the last feed-forward layer. With q the layer's normalised
 * input, the layer's output becomes  FFN(q) + Σ_j relu(q · k_j + b_j) v_j.  Trained are k, b and v of this edit, on (their Eq. 5-9)
 *   l = l_e + l_a + 10 (l_m1 + l_m2)
 *   l_e  = −log p(target | image, prompt)
 *   l_a  = mean exp(−(q_e · k + b))                         the neuron is active where the target is predicted
 *   l_m1 = mean exp((q · k + b) − (q_e · k + b) + γ), γ = 3  and less so at other queries q of the memory
 *   l_m2 = mean exp((q · k + b) − β), β = −3                 where it should not be active at all
 * As published: k starts at q_e / |q_e|² and b at 0, so that a neuron starts with activation 1; v = 10 p with p trained; Adam with rate and decay
 * 1e-2; one neuron for each of the target's tokens, at most 5 (`neurons`: 1 gives one for the whole target).
 *
 * With `moduleForm` the neurons are those that VisEdit's authors give TP: of the feed-forward module's own form (LLaMA: silu(q · g + c) (q · k + b) v),
 * all weights begin at 0, v is trained as it is, and
 *   l = l_e + λ_a Σ mean exp(−x) + λ_m Σ mean exp(relu(x at the memory))     over x = q · k + b and x = q · g + c
 * with λ = 1e-4, one neuron, 25 steps at 1e-2, no decay and a memory of text alone (theirs is one passage of WikiText drawn at each step).
 *
 * The memory holds q at the answers of locality queries of the training split, drawn by `train`, which learns nothing else.
 * Deviations: 1 000 queries are kept, so the published mean over the 1 000 largest terms of each loss is the mean over all; p starts at 0 instead
 * of at random; the neuron's activation is ReLU on every backbone (the published ones have GELU without a gate, LLaMA's has a gate and no bias);
 * `steps` are fixed instead of stopped by a validation set; tokens past the fifth share the neurons in turn.
 */

import { z } from 'zod';
import {
  add,
  type Dim,
  exp,
  f32,
  gather,
  input,
  matmul,
  mean,
  mul,
  mulDim,
  type Node,
  neg,
  pad,
  relu,
  reshape,
  silu,
  sub,
  sum,
  type Tensor,
} from '../graph/index.ts';
import { decodeImage } from '../input/image/decode.ts';
import type { EditRecord, RecordQuery } from '../input/records.ts';
import { type AnsweringModel, answerTargets, generateAll, readInput, targetRows } from '../models/answer.ts';
import { defineRewrite, type Rewrite } from '../models/rewrite.ts';
import { prefixOf } from '../models/sequence.ts';
import { type Patch, Sites } from '../models/sites.ts';
import type { Vlm } from '../models/vlm.ts';
import { Weights } from '../nn/weights.ts';
import { Random } from '../random.ts';
import type { Feeds } from '../runtime/program.ts';
import {
  checkEdits,
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
import { trainedWeights, writeEditorWeights } from './files.ts';
import type { Forms } from './forms.ts';
import { feedForward } from './gradients/chosen-weights.ts';
import { descend } from './gradients/descend.ts';
import { stateBefore, tailFeeds, tailLogits, targetLoss } from './gradients/edit-loss.ts';
import { descentSettings, flag, inFile, layerOf, parseSettings, real, size, trainingConfig } from './settings.ts';

const id = 'tp';
const AMPLIFY = 10;
const MARGIN_MEMORY = -3;
const MARGIN_EDIT = 3;

const editSchema = z.object({
  ...descentSettings({ steps: 100, rate: 1e-2, decay: 1e-2, until: 0 }),
  neurons: size('most neurons of an edit').default(5),
  activationLoss: real('weight of l_a').default(1),
  memoryLoss: real('weight of l_m1 and l_m2').default(10),
  moduleForm: flag("neurons of the feed-forward module's own form that begin at 0, as VisEdit's authors run it").default(false),
});
type TpSettings = z.output<typeof editSchema>;

const trainSchema = z.object({
  memory: size('queries that the memory holds').default(1000),
  pictures: flag('whether the memory holds queries about pictures, too').default(true),
});

/** Keys [n, d], biases [n] and values [n, d]; with rows of their own [b, n, d], [b, 1, n] and [b, n, d]. */
interface Neurons {
  readonly keys: Node;
  readonly biases: Node;
  readonly values: Node;
  /** of neurons with a gate: keys and biases of their gates */
  readonly gates?: Linear;
}

interface Linear {
  readonly keys: Node;
  readonly biases: Node;
}

/** Neurons of edits that are made, as inputs. */
const storedNeurons = (d: number, gated: boolean): Neurons => ({
  keys: input('tp.keys', ['b', 'tp_n', d]),
  biases: input('tp.biases', ['b', 1, 'tp_n']),
  values: input('tp.values', ['b', 'tp_n', d]),
  ...(gated ? { gates: { keys: input('tp.gateKeys', ['b', 'tp_n', d]), biases: input('tp.gateBiases', ['b', 1, 'tp_n']) } } : {}),
});

const before = (q: Node, { keys, biases }: Linear): Node => add(matmul(q, keys, false, true), biases);

const activation = (q: Node, neuron: Neurons): Node =>
  neuron.gates === undefined ? relu(before(q, neuron)) : mul(silu(before(q, neuron.gates)), before(q, neuron));

/** Whether neurons of the feed-forward module's own form have gates. */
const hasGates = (vlm: Vlm): boolean => feedForward(vlm, vlm.decoder.layers - 1).length > 2;

/** Whether the neurons of edits have gates; those of one model are alike. */
function gatesOf(edits: readonly Edit[]): boolean {
  const gated = edits.filter(({ tensors }) => tensors.has('gateKeys')).length;
  if (gated > 0 && gated < edits.length)
    throw new Error(`neurons with and without gates do not combine; make the edits of ${id} with one value of moduleForm`);
  return gated > 0;
}

/** Feeds of `storedNeurons`: row i has those of rows[i]. */
function neuronFeeds(rows: readonly (readonly Edit[])[], d: number): Feeds {
  const b = rows.length;
  const n = Math.max(...rows.map((edits) => edits.reduce((total, e) => total + e.tensors.get('biases')!.data.length, 0)));
  const shapes = {
    ...{ keys: [b, n, d], biases: [b, 1, n], values: [b, n, d] },
    ...(gatesOf(rows.flat()) ? { gateKeys: [b, n, d], gateBiases: [b, 1, n] } : {}),
  };
  const feeds = Object.entries(shapes).map(([name, shape]): [string, Tensor] => {
    // Neurons that a row lacks stay zero and so are never active.
    const data = new Float32Array(shape.reduce((a, c) => a * c, 1));
    rows.forEach((edits, i) => {
      let at = (i * data.length) / b;
      for (const { tensors } of edits) {
        data.set(tensors.get(name)!.data, at);
        at += tensors.get(name)!.data.length;
      }
    });
    return [`tp.${name}`, f32(data, shape)];
  });
  return Object.fromEntries(feeds);
}

/** The patch: what the layer reads is seen at one site and added at another. */
function neurons(layer: number, all: readonly Neurons[], seen: (q: Node) => void = () => {}): Map<string, Patch> {
  let q: Node | undefined;
  return new Map<string, Patch>([
    [
      `layers.${layer}.mlp.in`,
      (x) => {
        q = x;
        seen(x);
        return x;
      },
    ],
    [`layers.${layer}.mlp.out`, (m) => all.reduce((out, neuron) => add(out, matmul(activation(q!, neuron), neuron.values)), m)],
  ]);
}

/**
 * Inputs beside those of `tailLogits`: keys, p [n, d], biases [n], memory [m, d], assigned [r, n] with sum 1; with gates gateKeys [n, d] and gateBiases [n].
 * @param patched whether the model has neurons already
 */
function patchLoss(
  vlm: Vlm,
  prefix: Dim,
  { activationLoss, memoryLoss, moduleForm }: Pick<TpSettings, 'activationLoss' | 'memoryLoss' | 'moduleForm'>,
  patched: boolean,
): { loss: Node; trained: Node[] } {
  const { decoder } = vlm;
  const d = decoder.hidden;
  const layer = decoder.layers - 1;
  const [keys, biases, p] = [input('keys', ['n', d]), input('biases', ['n']), input('p', ['n', d])];
  const gated = moduleForm && hasGates(vlm);
  const gates = gated ? { keys: input('gateKeys', ['n', d]), biases: input('gateBiases', ['n']) } : undefined;
  const fresh: Neurons = { keys, biases, values: moduleForm ? p : mul(p, AMPLIFY), ...(gates && { gates }) };
  let q: Node | undefined;
  const sites = new Sites(
    neurons(layer, [...(patched ? [storedNeurons(d, gated)] : []), fresh], (x) => {
      q = x;
    }),
  );
  const edit = targetLoss(tailLogits(vlm, layer, prefix, new Weights(), sites));
  const all = pad(q!, 1, prefix, 0);
  const rowsOf = reshape(all, [mulDim(all.dim(0), all.dim(1)), d]);
  const asked = gather(rowsOf, input('rows', ['r'], 'int64'));
  const memory = input('memory', ['m', d]);
  if (moduleForm) {
    const inputs = [fresh, ...(gates === undefined ? [] : [gates])];
    const total = (terms: readonly Node[]): Node => terms.reduce((a, b) => add(a, b));
    const la = total(inputs.map((one) => mean(exp(neg(before(asked, one))))));
    const lm = total(inputs.map((one) => mean(exp(relu(before(memory, one))))));
    return {
      loss: add(add(edit, mul(la, activationLoss)), mul(lm, memoryLoss)),
      trained: [keys, biases, p, ...(gates === undefined ? [] : [gates.keys, gates.biases])],
    };
  }
  const here = before(asked, fresh);
  const elsewhere = before(memory, fresh);
  const assigned = input('assigned', ['r', 'n']);
  const la = sum(mul(assigned, exp(neg(here))));
  // exp((q k + b) − (q_e k + b) + γ) is a product of what depends on q and what depends on q_e.
  const lm1 = sum(mul(assigned, mul(exp(sub(MARGIN_EDIT, here)), mean(exp(elsewhere), 0, true))));
  const lm2 = mean(exp(sub(elsewhere, MARGIN_MEMORY)));
  return { loss: add(add(edit, mul(la, activationLoss)), mul(add(lm1, lm2), memoryLoss)), trained: [keys, biases, p] };
}

/** q at the rows where the target's tokens are predicted, [r × d]. */
async function queriesAt(vlm: Vlm, { prompt, image, target }: RecordQuery): Promise<Float32Array> {
  const asked = { prompt, image: image === null ? undefined : await decodeImage(image) };
  return readAt(vlm, await vlm.batch([vlm.layout(asked, target)]));
}

async function readAt(vlm: Vlm, batch: Awaited<ReturnType<Vlm['batch']>>): Promise<Float32Array> {
  const { layers, hidden: d } = vlm.decoder;
  const site = `layers.${layers - 1}.mlp.in`;
  const data = (await vlm.run({ from: 0, to: layers, read: [site] }, batch))[site]!.data as Float32Array;
  const rows = targetRows(batch);
  const out = new Float32Array(rows.length * d);
  rows.forEach((row, i) => {
    out.set(data.subarray(row * d, (row + 1) * d), i * d);
  });
  return out;
}

/** Draws the memory: locality queries of the training split in random order, until it is full. */
async function train(vlm: Vlm, records: readonly EditRecord[], options: TrainOptions): Promise<EditorWeights> {
  const { memory: most, pictures } = trainingConfig(id, trainSchema, options);
  const d = vlm.decoder.hidden;
  const asked = new Random(`${options.seed}/tp`).shuffle(
    records.flatMap(({ queries: { textLocality, modalLocality } }) =>
      pictures ? [textLocality, modalLocality] : [textLocality],
    ),
  );
  const memory = new Float32Array(most * d);
  let filled = 0;
  for (let i = 0; i < asked.length && filled < most && !options.signal?.aborted; i++) {
    const found = await queriesAt(vlm, asked[i]!);
    const taken = Math.min(most - filled, found.length / d);
    memory.set(found.subarray(0, taken * d), filled * d);
    filled += taken;
    options.onStep?.({ step: filled, steps: most, loss: 0, metrics: {} });
  }
  const weights: EditorWeights = {
    editor: id,
    model: modelId(vlm),
    settings: { memory: filled, pictures, seed: String(options.seed), records: records.length },
    tensors: new Map([['memory', f32(memory.slice(0, filled * d), [filled, d])]]),
  };
  writeEditorWeights(trainedWeights(options.out), weights);
  return weights;
}

async function edit(vlm: Vlm, requests: readonly EditRequest[], given?: EditorWeights, chosen?: Settings): Promise<Edit[]> {
  const weights = needWeights(id, vlm, given, forms.weights);
  const settings = parseSettings(id, editSchema, chosen);
  const edits: Edit[] = [];
  for (const request of requests) edits.push(await editOne(vlm, request, weights, settings));
  return edits;
}

/** @param earlier edits whose neurons the model has already */
async function editOne(
  vlm: Vlm,
  request: EditRequest,
  { tensors }: EditorWeights,
  settings: TpSettings,
  earlier: readonly Edit[] = [],
): Promise<Edit> {
  const { layers, hidden: d } = vlm.decoder;
  const patched = earlier.length > 0;
  const sample = await stateBefore(vlm, request, layers - 1);
  const q = await readAt(vlm, await vlm.batch([sample.sequence]));
  const r = q.length / d;
  const n = Math.max(1, Math.min(settings.neurons, r));
  const { moduleForm } = settings;
  const zeros = (shape: readonly number[]): Tensor<'float32'> => f32(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
  const gated = moduleForm && hasGates(vlm);
  const { values, loss } = await descend(vlm, {
    build: patchLoss,
    args: [
      vlm.prefixDim(prefixOf(sample.sequence)),
      { activationLoss: settings.activationLoss, memoryLoss: settings.memoryLoss, moduleForm },
      patched,
    ] as Parameters<typeof patchLoss> extends [Vlm, ...infer A] ? A : never,
    initial: new Map([
      ['keys', moduleForm ? zeros([n, d]) : f32(startingKeys(q, n, d), [n, d])],
      ['biases', zeros([n])],
      ['p', zeros([n, d])],
      ...(gated
        ? ([
            ['gateKeys', zeros([n, d])],
            ['gateBiases', zeros([n])],
          ] as const)
        : []),
    ]),
    feeds: {
      ...tailFeeds(vlm, [sample]),
      memory: tensors.get('memory')!,
      ...(moduleForm ? {} : { assigned: f32(assignment(r, n), [r, n]) }),
      ...(patched ? neuronFeeds([earlier], d) : {}),
    },
    settings,
  });
  return {
    editor: id,
    model: modelId(vlm),
    request: wordsOf(request),
    settings: { ...settings, layer: layers - 1, loss },
    tensors: new Map([
      ['keys', values.get('keys')!],
      ['biases', values.get('biases')!],
      [
        'values',
        f32(
          values.get('p')!.data.map((x) => (moduleForm ? x : AMPLIFY * x)),
          [n, d],
        ),
      ],
      ...(gated ? (['gateKeys', 'gateBiases'] as const).map((name) => [name, values.get(name)!] as const) : []),
    ]),
  };
}

/** Token i belongs to neuron i mod n. */
function assignment(r: number, n: number): Float32Array {
  const out = new Float32Array(r * n);
  for (let i = 0; i < r; i++) out[i * n + (i % n)] = 1 / r;
  return out;
}

/** q / |q|² of each neuron's first token. */
function startingKeys(q: Float32Array, n: number, d: number): Float32Array {
  const out = q.slice(0, n * d);
  for (let j = 0; j < n; j++) {
    const row = out.subarray(j * d, (j + 1) * d);
    const square = row.reduce((total, x) => total + x * x, 0);
    for (let i = 0; i < d; i++) row[i]! /= square;
  }
  return out;
}

const withNeurons = defineRewrite(({ layer, d, gated }: { layer: number; d: number; gated: boolean }) => {
  const patches = (): Map<string, Patch> => neurons(layer, [storedNeurons(d, gated)]);
  return { patches, steps: patches };
});

/** Row i of a batch under the neurons of all edits in rows[i]. */
function rewrite(vlm: Vlm, rows: readonly (readonly Edit[])[]): Rewrite {
  const { layers, hidden: d } = vlm.decoder;
  return withNeurons({ layer: layers - 1, d, gated: gatesOf(rows.flat()) }, neuronFeeds(rows, d));
}

function patched(vlm: Vlm, all: readonly Edit[], editsOf: (row: number) => readonly Edit[]): AnsweringModel {
  checkEdits(id, vlm, all, forms);
  const rewriteRows = (rows: readonly number[]): Rewrite => rewrite(vlm, rows.map(editsOf));
  return {
    answerTargets: (queries) => answerTargets(vlm, queries, rewriteRows),
    generate: (queries, options) => generateAll(vlm, queries, options, rewriteRows),
    read: (input) => readInput(vlm, input, rewriteRows),
  };
}

const forms: Forms = {
  edit: {
    settings: (vlm) => {
      const last = vlm.decoder.layers - 1;
      return inFile({ ...editSchema.shape, layer: layerOf(vlm, 'the last one', { min: last }) }, ['layer']);
    },
    tensors: (vlm, { settings }) => {
      const { hidden: d } = vlm.decoder;
      const gates = [
        ['gateKeys', ['neurons', d]],
        ['gateBiases', ['neurons']],
      ] as const;
      return [
        ['keys', ['neurons', d]],
        ['biases', ['neurons']],
        ['values', ['neurons', d]],
        ...(settings.moduleForm === true && hasGates(vlm) ? gates : []),
      ];
    },
  },
  weights: {
    settings: () => inFile(trainSchema.shape),
    tensors: (vlm) => [['memory', ['queries', vlm.decoder.hidden]]],
  },
};

export const tp: Editor = {
  id,
  summary: 'Transformer-Patcher: new neurons in the last feed-forward layer, trained for each edit',
  trained: true,
  promises: { textUntouched: false, batchEqualsSingles: true },
  settings: { train: () => trainSchema, edit: () => editSchema },
  forms,
  train,
  edit,
  with: (vlm, edits) => patched(vlm, edits, (row) => [edits.length === 1 ? edits[0]! : edits[row]!]),
  chain: (vlm, edits) => patched(vlm, edits, () => edits),
  sequence: (vlm, given, chosen, before = []) => {
    const weights = needWeights(id, vlm, given, forms.weights);
    const settings = parseSettings(id, editSchema, chosen);
    const earlier = [...before];
    return async (request) => {
      const made = await editOne(vlm, request, weights, settings, earlier);
      earlier.push(made);
      return made;
    };
  },
};
