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
import { noSettings } from '../settings.ts';
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

/** E(x) of queries. */
async function embeddings(vlm: Vlm, queries: readonly Asked[], tensors: Tensors, config: SeracConfig): Promise<Float32Array[]> {
  const read = queries.map(({ prompt, image }) => ({ prompt, image: config.pictures ? image : undefined }));
  const keys = await keysOf(vlm, read, config.layer, tensors.get('center')!);
  const shape = scopeShapeOf(vlm, config);
  const program = await vlm.program(scopeGraph, shape);
  const { e } = await program.run({ keys: keyRows(keys), ...feedsOf(tensors, 'scope.') });
  return queries.map((_, i) => (e!.data as Float32Array).slice(i * shape.output, (i + 1) * shape.output));
}

async function edit(vlm: Vlm, requests: readonly EditRequest[], given?: EditorWeights, chosen?: Settings): Promise<Edit[]> {
  const { tensors, settings } = needWeights(id, vlm, given);
  noSettings(id, chosen);
  const config = settings as unknown as SeracConfig;
  const edits: Edit[] = [];
  for (const request of requests) {
    const { prompt, target } = request;
    const { targetIds } = vlm.layout(request, target);
    if (targetIds.length > config.window)
      throw new Error(`the target has ${targetIds.length} tokens; these weights of ${id} read at most ${config.window}`);
    const [e] = await embeddings(vlm, [request], tensors, config);
    edits.push({
      editor: id,
      model: modelId(vlm),
      request: wordsOf({ prompt, target }),
      settings,
      tensors: new Map([['embedding', f32(e!, [e!.length])], ...tensors]),
    });
  }
  return edits;
}

/** The stored edit in whose scope each query is; undefined: in none's. */
async function route(vlm: Vlm, queries: readonly Asked[], memory: readonly (readonly Edit[])[]): Promise<(Edit | undefined)[]> {
  const routes: (Edit | undefined)[] = queries.map(() => undefined);
  const asked = queries.map((_, i) => i).filter((i) => pictureCount(queries[i]!) > 0);
  // Edits that were made with the same weights are asked about together.
  const weightsOf = (i: number): Tensor => tensorOf(memory[i]![0]!, 'scope.hidden.weight');
  await inGroups(asked.map(weightsOf), async (rows) => {
    const some = rows.map((row) => asked[row]!);
    const { tensors, settings } = memory[some[0]!]![0]!;
    const config = settings as unknown as SeracConfig;
    const own = await embeddings(
      vlm,
      some.map((i) => queries[i]!),
      tensors,
      config,
    );
    const number = (name: string): number => tensors.get(name)!.data[0]!;
    some.forEach((i, n) => {
      const { edit, score } = best(memory[i]!, (e) =>
        scopeLogit(own[n]!, tensorOf(e, 'embedding').data, number('scope.alpha'), number('scope.beta')),
      );
      routes[i] = score > 0 ? edit : undefined;
    });
    return rows;
  });
  return routes;
}

/** Logits [r, n] of the counterfactual model, where each input's answer is predicted. */
async function counterfactual(vlm: Vlm, inputs: readonly CounterfactualInput[], edit: Edit): Promise<Tensor<'float32'>> {
  const config = edit.settings as unknown as SeracConfig;
  const shape = counterfactualShapeOf(vlm, config);
  const program = await vlm.program(counterfactualGraph, shape);
  const { logits } = await program.run({
    ...counterfactualFeeds(inputs, shape.window),
    ...feedsOf(edit.tensors, 'counterfactual.'),
  });
  return logits as Tensor<'float32'>;
}

/** Teacher-forced answers of the counterfactual model; it is asked about the end after the last token, too, which is not read here. */
async function answers(vlm: Vlm, inputs: readonly CounterfactualInput[], edit: Edit): Promise<TargetAnswer[]> {
  const window = (edit.settings as unknown as SeracConfig).window;
  for (const { answer } of inputs)
    if (answer.length > window)
      throw new Error(`the target has ${answer.length} tokens; the counterfactual model of this edit says at most ${window}`);
  const given = inputs.map((one) => ({ ...one, answer: one.answer.slice(0, -1) }));
  const logits = await counterfactual(vlm, given, edit);
  const sequences = inputs.map(({ answer }): Sequence => ({ ids: [], pictures: [], spans: [], promptEnd: 0, targetIds: answer }));
  return readAnswers(sequences, logits);
}

async function generated(
  vlm: Vlm,
  inputs: readonly CounterfactualInput[],
  edit: Edit,
  { maxNewTokens = 32, eosIds = vlm.eosIds, ...options }: GenerateOptions = {},
): Promise<{ text: string; tokenIds: number[] }[]> {
  const { window } = edit.settings as unknown as SeracConfig;
  const n = vlm.decoder.vocabulary;
  const said: number[][] = inputs.map(() => []);
  let open = inputs.map((_, i) => i);
  for (let t = 0; t < Math.min(maxNewTokens, window + 1) && open.length > 0; t++) {
    options.signal?.throwIfAborted();
    const logits = await counterfactual(
      vlm,
      open.map((i) => ({ ...inputs[i]!, answer: said[i]! })),
      edit,
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

function under(vlm: Vlm, memory: Memory): AnsweringModel {
  const plain = unedited(vlm);
  const answer = async <Q extends Asked, A>(
    queries: readonly Q[],
    outside: (queries: Q[], rows: readonly number[]) => Promise<A[]>,
    inside: (inputs: CounterfactualInput[], edit: Edit, rows: readonly number[]) => Promise<A[]>,
  ): Promise<A[]> => {
    const routes = await route(vlm, queries, memory(queries.length));
    const groups = routes.map((edit) => (edit === undefined ? undefined : tensorOf(edit, 'counterfactual.in.weight')));
    return inGroups(groups, (rows) => {
      const some = rows.map((i) => queries[i]!);
      const first = routes[rows[0]!];
      if (first === undefined) return outside(some, rows);
      const inputs = some.map((query, n) => textsOf(vlm, routes[rows[n]!]!.request, query));
      return inside(inputs, first, rows);
    });
  };
  return {
    answerTargets: (queries) =>
      answer(
        queries,
        (some) => plain.answerTargets(some),
        (inputs, edit) => answers(vlm, inputs, edit),
      ),
    generate: (queries, options = {}) =>
      answer(
        queries,
        (some, rows) => plain.generate(some, forRows(options, rows)),
        (inputs, edit, rows) => generated(vlm, inputs, edit, forRows(options, rows)),
      ),
  };
}

export const serac: Editor = {
  id,
  summary: 'keeps edits in a memory; a scope classifier sends queries about them to a small counterfactual model',
  trained: true,
  promises: { textUntouched: true, batchEqualsSingles: true, explains: false },
  settings: { train: seracSchema },
  train: trainSerac,
  trainingSettings: (vlm, options) => trainingSettings(seracConfig(vlm, options)),
  edit,
  with: (vlm, edits) => {
    checkEdits(id, vlm, edits);
    return under(vlm, own(edits));
  },
  chain: (vlm, edits) => {
    checkEdits(id, vlm, edits);
    return under(vlm, shared(edits));
  },
};
