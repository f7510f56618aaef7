/**
 * SERAC, semi-parametric editing with a retrieval-augmented counterfactual model (Mitchell et al. 2022b): edits are kept in a memory as they are; a
 * scope classifier (scope.ts) says whether a query is about a stored edit. If it is, a small counterfactual model (counterfactual.ts) answers from the edit
 * and the query; if not, the unedited model answers, bit for bit. Trained on the training edits, together: −log p of the right decision and −log p of
 * the target, the end of the answer included; the backbone is frozen.
 *   in scope: a request, its rephrasing, its rephrased picture
 *   out of scope: the picture locality, and the same picture with another question where the data have one
 * Inputs without a picture are out of the scope of an edit about one: a rule, no decision of the classifier.
 *
 * As published (Cheng et al. 2023 for pictures) the classifier reads texts: the same question about another picture is in scope. Beyond the paper, with
 * `pictures` it reads the picture as well, and learns that question, and the queries of the other records of a batch, as out of scope.
 *
 * Deviations: the classifier reads pooled states of the backbone's middle layer instead of a sentence encoder of its own; the counterfactual model is
 * trained from the start on the backbone's word embeddings instead of a small pretrained model, and reads no picture; both are trained with the
 * right decision given (the supervised form of the paper), not through a mixture of both models' answers.
 */

import { z } from 'zod';
import type { Node, Tensor } from '../../graph/index.ts';
import { f32, input } from '../../graph/index.ts';
import { type Asked, pictureCount } from '../../input/segments.ts';
import { type AnsweringModel, readAnswers, type TargetAnswer, unedited } from '../../models/answer.ts';
import { chooseToken, forRows, type GenerateOptions } from '../../models/generate.ts';
import type { Sequence } from '../../models/sequence.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { Weights } from '../../nn/weights.ts';
import { best, inGroups, type Memory, own, shared, tensorOf } from '../context/memory.ts';
import { keysOf } from '../context/representation.ts';
import { trainingSettings } from '../context/training.ts';
import {
  checkEdits,
  type Edit,
  type Editor,
  type EditorWeights,
  type EditRequest,
  modelId,
  needWeights,
  type Settings,
  wordsOf,
} from '../editor.ts';
import type { Forms } from '../forms.ts';
import { inFile, noSettings } from '../settings.ts';
import {
  type CounterfactualInput,
  type CounterfactualShape,
  counterfactualFeeds,
  counterfactualLogits,
  counterfactualShapes,
} from './counterfactual.ts';
import { embedKeys, keyRows, type ScopeShape, scopeLogit, scopeShapes } from './scope.ts';
import {
  boundWeights,
  counterfactualShapeOf,
  type SeracConfig,
  scopeShapeOf,
  seracConfig,
  seracSchema,
  seracShape,
  textsOf,
  trainSerac,
} from './train.ts';

const id = 'serac';

/** Weights are inputs of the run: one program serves every SERAC of these shapes. */
const asInputs = (shapes: ReadonlyMap<string, readonly number[]>): Weights =>
  boundWeights(shapes, (name, shape): Node => input(`serac:${name}`, shape));

type Tensors = ReadonlyMap<string, Tensor<'float32'>>;

const feedsOf = (tensors: Tensors, prefix: 'scope.' | 'counterfactual.'): Record<string, Tensor> =>
  Object.fromEntries(
    [...tensors]
      .filter(([name]) => name.startsWith(prefix))
      .map(([name, t]) => [`serac:${prefix === 'scope.' ? name : name.slice(prefix.length)}`, t]),
  );

const scopeGraph = (_: Vlm, shape: ScopeShape): Record<string, Node> => ({
  e: embedKeys(asInputs(scopeShapes(shape)), shape, input('keys', ['q', shape.input])),
});

const counterfactualGraph = (vlm: Vlm, shape: CounterfactualShape): Record<string, Node> => ({
  logits: counterfactualLogits(vlm, asInputs(counterfactualShapes(shape)), shape),
});

const configOf = ({ settings }: EditorWeights): SeracConfig => settings as unknown as SeracConfig;

/** E(x) of queries. */
async function embeddings(vlm: Vlm, queries: readonly Asked[], weights: EditorWeights): Promise<Float32Array[]> {
  const { tensors } = weights;
  const config = configOf(weights);
  const read = queries.map(({ prompt, image }) => ({ prompt, image: config.pictures ? image : undefined }));
  const keys = await keysOf(vlm, read, config.layer, tensors.get('center')!);
  const shape = scopeShapeOf(vlm, config);
  const program = await vlm.program(scopeGraph, shape);
  const { e } = await program.run({ keys: keyRows(keys), ...feedsOf(tensors, 'scope.') });
  return queries.map((_, i) => (e!.data as Float32Array).slice(i * shape.output, (i + 1) * shape.output));
}

const forms: Forms = {
  throughWeights: true,
  edit: {
    settings: () => z.object({}),
    tensors: (_, { weights }) => [['embedding', [weights!.settings.scopeOutput as number]]],
  },
  weights: {
    settings: (vlm) => inFile(seracSchema(vlm).shape, Object.keys(seracShape(vlm))),
    tensors: (vlm, { settings }) => {
      const config = settings as unknown as SeracConfig;
      const counterfactual = counterfactualShapes(counterfactualShapeOf(vlm, config));
      return [
        ['center', [3 * vlm.decoder.hidden]],
        ...scopeShapes(scopeShapeOf(vlm, config)),
        ...[...counterfactual].map(([name, shape]) => [`counterfactual.${name}`, shape] as const),
      ];
    },
    problem: (_, { settings: { width, heads } }) =>
      (width as number) % (heads as number) === 0 ? undefined : `the setting heads must divide width ${width}, got ${heads}`,
  },
};

async function edit(vlm: Vlm, requests: readonly EditRequest[], given?: EditorWeights, chosen?: Settings): Promise<Edit[]> {
  const weights = needWeights(id, vlm, given, forms.weights);
  noSettings(id, chosen);
  const { window } = configOf(weights);
  const edits: Edit[] = [];
  for (const request of requests) {
    const { prompt, target } = request;
    const { targetIds } = vlm.layout(request, target);
    if (targetIds.length > window)
      throw new Error(`the target has ${targetIds.length} tokens; these weights of ${id} read at most ${window}`);
    const [e] = await embeddings(vlm, [request], weights);
    edits.push({
      editor: id,
      model: modelId(vlm),
      request: wordsOf({ prompt, target }),
      settings: {},
      tensors: new Map([['embedding', f32(e!, [e!.length])]]),
      weights,
    });
  }
  return edits;
}

/** The stored edit in whose scope each query is; undefined: in none's. */
async function route(
  vlm: Vlm,
  queries: readonly Asked[],
  weights: EditorWeights,
  memory: readonly (readonly Edit[])[],
): Promise<(Edit | undefined)[]> {
  const routes: (Edit | undefined)[] = queries.map(() => undefined);
  const asked = queries.map((_, i) => i).filter((i) => pictureCount(queries[i]!) > 0);
  if (asked.length === 0) return routes;
  const own = await embeddings(
    vlm,
    asked.map((i) => queries[i]!),
    weights,
  );
  const number = (name: string): number => weights.tensors.get(name)!.data[0]!;
  asked.forEach((i, n) => {
    const { edit, score } = best(memory[i]!, (e) =>
      scopeLogit(own[n]!, tensorOf(e, 'embedding').data, number('scope.alpha'), number('scope.beta')),
    );
    routes[i] = score > 0 ? edit : undefined;
  });
  return routes;
}

/** Logits [r, n] of the counterfactual model, where each input's answer is predicted. */
async function counterfactual(
  vlm: Vlm,
  inputs: readonly CounterfactualInput[],
  weights: EditorWeights,
): Promise<Tensor<'float32'>> {
  const shape = counterfactualShapeOf(vlm, configOf(weights));
  const program = await vlm.program(counterfactualGraph, shape);
  const { logits } = await program.run({
    ...counterfactualFeeds(inputs, shape.window),
    ...feedsOf(weights.tensors, 'counterfactual.'),
  });
  return logits as Tensor<'float32'>;
}

/** Teacher-forced answers of the counterfactual model; it is asked about the end after the last token, too, which is not read here. */
async function answers(vlm: Vlm, inputs: readonly CounterfactualInput[], weights: EditorWeights): Promise<TargetAnswer[]> {
  const { window } = configOf(weights);
  for (const { answer } of inputs)
    if (answer.length > window)
      throw new Error(`the target has ${answer.length} tokens; the counterfactual model of this edit says at most ${window}`);
  const given = inputs.map((one) => ({ ...one, answer: one.answer.slice(0, -1) }));
  const logits = await counterfactual(vlm, given, weights);
  const sequences = inputs.map(({ answer }): Sequence => ({ ids: [], pictures: [], spans: [], promptEnd: 0, targetIds: answer }));
  return readAnswers(sequences, logits);
}

async function generated(
  vlm: Vlm,
  inputs: readonly CounterfactualInput[],
  weights: EditorWeights,
  { maxNewTokens = 32, eosIds = vlm.eosIds, ...options }: GenerateOptions = {},
): Promise<{ text: string; tokenIds: number[] }[]> {
  const { window } = configOf(weights);
  const n = vlm.decoder.vocabulary;
  const said: number[][] = inputs.map(() => []);
  let open = inputs.map((_, i) => i);
  for (let t = 0; t < Math.min(maxNewTokens, window + 1) && open.length > 0; t++) {
    options.signal?.throwIfAborted();
    const logits = await counterfactual(
      vlm,
      open.map((i) => ({ ...inputs[i]!, answer: said[i]! })),
      weights,
    );
    const next = open.map((i, at) => {
      // Each input's last row is the new token's.
      const row = (at + 1) * (t + 1) - 1;
      const scores = logits.data.subarray(row * n, (row + 1) * n);
      return { i, token: chooseToken(scores, options), scores };
    });
    open = [];
    for (const { i, token, scores } of next) {
      if (eosIds.includes(token)) continue;
      said[i]!.push(token);
      if (options.onToken?.(i, token, scores) !== true) open.push(i);
    }
  }
  return said.map((tokenIds) => ({ tokenIds, text: vlm.codec.decode(tokenIds).trim() }));
}

function under(vlm: Vlm, weights: EditorWeights, memory: Memory): AnsweringModel {
  const plain = unedited(vlm);
  const answer = async <Q extends Asked, A>(
    queries: readonly Q[],
    outside: (queries: Q[], rows: readonly number[]) => Promise<A[]>,
    inside: (inputs: CounterfactualInput[], rows: readonly number[]) => Promise<A[]>,
  ): Promise<A[]> => {
    const routes = await route(vlm, queries, weights, memory(queries.length));
    const inScope = routes.map((edit) => edit !== undefined);
    return inGroups(inScope, (rows) => {
      if (!inScope[rows[0]!])
        return outside(
          rows.map((i) => queries[i]!),
          rows,
        );
      const inputs = rows.map((i) => textsOf(vlm, routes[i]!.request, queries[i]!));
      return inside(inputs, rows);
    });
  };
  return {
    answerTargets: (queries) =>
      answer(
        queries,
        (some) => plain.answerTargets(some),
        (inputs) => answers(vlm, inputs, weights),
      ),
    generate: (queries, options = {}) =>
      answer(
        queries,
        (some, rows) => plain.generate(some, forRows(options, rows)),
        (inputs, rows) => generated(vlm, inputs, weights, forRows(options, rows)),
      ),
  };
}

export const serac: Editor = {
  id,
  summary: 'keeps edits in a memory; a scope classifier sends queries about them to a small counterfactual model',
  trained: true,
  promises: { textUntouched: true, batchEqualsSingles: true, explains: false },
  settings: { train: seracSchema },
  forms,
  train: trainSerac,
  trainingSettings: (vlm, options) => trainingSettings(seracConfig(vlm, options)),
  edit,
  with: (vlm, edits) => {
    checkEdits(id, vlm, edits, forms);
    return under(vlm, edits[0]!.weights!, own(edits));
  },
  chain: (vlm, edits) => {
    checkEdits(id, vlm, edits, forms);
    return under(vlm, edits[0]!.weights!, shared(edits));
  },
};
