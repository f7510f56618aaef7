/**
 * LTE, learning to edit (Jiang et al. 2024): the language model learns to follow an edit that stands before the query, and not to where the query is
 * about something else; at inference the stored edit is retrieved by similarity and put before the query.
 *   [Updated Information] {prompt} {target}⏎ [Query] {query}
 * Trained: the decoder's matrices in layers `from` and up (attention and feed-forward; all layers by default), as changes of low rank left · right,
 * or whole (`rank` 0). A step takes of each record
 *   in scope:     the edit before the request, its rephrasing, or its rephrased picture: −log p(target), the end of the answer included;
 *   out of scope: the edit before a locality query: KL(before ‖ after);
 *   no edit:      any of the record's queries alone: KL(before ‖ after), which keeps the model what it was.
 * The picture stands where it always does, at the start. At inference an edit goes before a query when the similarity of the query and the edit's
 * request (representation.ts) is at least `threshold`, which is fitted to tell training requests' rephrasings from their locality queries.
 * Queries out of scope are answered by the fine-tuned model, so no bits are promised.
 *
 * Deviations: out-of-scope and no-edit answers are held to the unedited model's distribution instead of sampled texts; one retrieved edit
 * instead of three, without wrong ones beside it in training (single editing); retrieval reads the backbone's own states, picture included, instead of
 * a sentence encoder's; where the tokenizer does not know the words in brackets they are left out.
 */

import { z } from 'zod';
import { f32 } from '../../graph/index.ts';
import { type Asked, changeQuestion, type Prompt } from '../../input/segments.ts';
import { type AnsweringModel, answerTargets, generateAll, readInput } from '../../models/answer.ts';
import type { Rewrite } from '../../models/rewrite.ts';
import type { Vlm } from '../../models/vlm.ts';
import { type Memory, own, shared } from '../context/memory.ts';
import { keysOf, parts } from '../context/representation.ts';
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
import { layerMatrices } from '../gradients/chosen-weights.ts';
import { addDeltas, type Deltas, denseShapes, lowRankShapes, sumDeltas } from '../gradients/deltas.ts';
import { highest, type StoredKeys, storedKeys } from '../routing/stored-keys.ts';
import { inFile, parseSettings, real } from '../settings.ts';
import { lteConfig, lteSchema, promptBehind, trainLte } from './train.ts';

const id = 'lte';

const editSchema = z.object({
  threshold: real('similarity from which a query is in the scope of an edit; that of the weights by default', {}).optional(),
});

const isChange = (name: string): boolean => /^(delta|left|right)\./.test(name);

async function edit(vlm: Vlm, requests: readonly EditRequest[], given?: EditorWeights, chosen?: Settings): Promise<Edit[]> {
  const weights = needWeights(id, vlm, given, forms.weights);
  const { threshold = weights.settings.threshold as number } = parseSettings(id, editSchema, chosen);
  const edits: Edit[] = [];
  for (const { image, prompt, target } of requests) {
    // Says what is wrong with the request.
    vlm.layout({ prompt, image }, target);
    const [key] = await keysOf(vlm, [{ image, prompt }], layerFor(weights), weights.tensors.get('center')!);
    edits.push({
      editor: id,
      model: modelId(vlm),
      request: wordsOf({ prompt, target }),
      settings: { threshold },
      tensors: new Map([['key', f32(key!, [key!.length])]]),
      weights,
    });
  }
  return edits;
}

const layerFor = ({ settings }: EditorWeights): number => settings.retrievalLayer as number;

const known = new WeakMap<EditorWeights, Promise<Deltas>>();

/** The fine-tuned model as changes of weights. */
function changesOf(vlm: Vlm, weights: EditorWeights): Promise<Deltas> {
  const tensors = new Map([...weights.tensors].filter(([name]) => isChange(name)));
  const deltas = known.get(weights) ?? sumDeltas(vlm, [{ tensors }]);
  known.set(weights, deltas);
  return deltas;
}

/** The query's prompt, behind the most similar edit where it is in its scope. */
async function route(vlm: Vlm, query: Asked, stored: StoredKeys): Promise<Prompt> {
  const weights = stored.edits[0]!.weights!;
  const keys = await keysOf(vlm, [query], layerFor(weights), weights.tensors.get('center')!);
  const [products] = await stored.products('key', keys);
  const place = highest(products!);
  const edit = stored.edits[place]!;
  const inScope = products![place]! / parts >= (edit.settings.threshold as number);
  return inScope ? changeQuestion(query.prompt, (text) => promptBehind(vlm, edit.request, text)) : query.prompt;
}

function under(vlm: Vlm, weights: EditorWeights, memory: Memory): AnsweringModel {
  const storedOf = storedKeys(vlm);
  const routed = async <Q extends Asked>(queries: readonly Q[]): Promise<{ asked: Q[]; rewrite: Rewrite }> => {
    const asked: Q[] = [];
    for (const [i, edits] of memory(queries.length).entries())
      asked.push({ ...queries[i]!, prompt: await route(vlm, queries[i]!, storedOf(edits)) });
    return { asked, rewrite: addDeltas(await changesOf(vlm, weights)) };
  };
  return {
    answerTargets: async (queries) => {
      const { asked, rewrite } = await routed(queries);
      return answerTargets(vlm, asked, () => rewrite);
    },
    generate: async (queries, options) => {
      const { asked, rewrite } = await routed(queries);
      return generateAll(vlm, asked, options, () => rewrite);
    },
    read: async (input) => {
      const { asked, rewrite } = await routed([input]);
      return readInput(vlm, asked[0]!, () => rewrite);
    },
  };
}

const forms: Forms = {
  throughWeights: true,
  edit: {
    settings: () => inFile(editSchema.shape, ['threshold']),
    tensors: (vlm) => [['key', [3 * vlm.decoder.hidden]]],
  },
  weights: {
    settings: (vlm) => inFile({ ...lteSchema(vlm).shape, ...editSchema.shape }, ['retrievalLayer', 'threshold']),
    tensors: (vlm, { settings: { from, rank }, tensors }) => {
      // Edits of earlier versions carried the changes without a word on their layers.
      const matrices = layerMatrices(vlm, (from as number | undefined) ?? 0).filter(
        ({ name }) => from !== undefined || tensors.has(`delta.${name}`) || tensors.has(`left.${name}`),
      );
      const isWhole = rank === undefined ? !matrices.some(({ name }) => tensors.has(`left.${name}`)) : rank === 0;
      return [['center', [3 * vlm.decoder.hidden]], ...(isWhole ? denseShapes(matrices) : lowRankShapes(matrices))];
    },
  },
};

export const lte: Editor = {
  id,
  summary: 'fine-tunes the language model to follow an edit that stands before the query, and retrieves it by similarity',
  trained: true,
  promises: { textUntouched: false, batchEqualsSingles: true },
  settings: { train: lteSchema, edit: () => editSchema },
  forms,
  layersTrained: (vlm) => vlm.decoder.layers - lteConfig(vlm, {}).from,
  train: trainLte,
  trainingSettings: (vlm, options) => trainingSettings(lteConfig(vlm, options)),
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
