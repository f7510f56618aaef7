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
import { f32, type Tensor } from '../../graph/index.ts';
import { type Asked, changeQuestion, type Prompt } from '../../input/segments.ts';
import { type AnsweringModel, answerTargets, generateAll, readInput } from '../../models/answer.ts';
import { forRows } from '../../models/generate.ts';
import type { Rewrite } from '../../models/rewrite.ts';
import type { Vlm } from '../../models/vlm.ts';
import { best, inGroups, type Memory, own, shared, tensorOf } from '../context/memory.ts';
import { keysOf, similarity } from '../context/representation.ts';
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
import { addDeltas, type Deltas, sumDeltas } from '../gradients/deltas.ts';
import { parseSettings, real } from '../settings.ts';
import { lteConfig, lteSchema, promptBehind, trainLte } from './train.ts';

const id = 'lte';

const editSchema = z.object({
  threshold: real('similarity from which a query is in the scope of an edit; that of the weights by default', {}).optional(),
});

const isChange = (name: string): boolean => /^(delta|left|right)\./.test(name);

async function edit(vlm: Vlm, requests: readonly EditRequest[], given?: EditorWeights, chosen?: Settings): Promise<Edit[]> {
  const { tensors, settings } = needWeights(id, vlm, given);
  const own = parseSettings(id, editSchema, chosen);
  const center = tensors.get('center')!;
  const edits: Edit[] = [];
  for (const { image, prompt, target } of requests) {
    // Says what is wrong with the request.
    vlm.layout({ prompt, image }, target);
    const [key] = await keysOf(vlm, [{ image, prompt }], settings.retrievalLayer as number, center);
    edits.push({
      editor: id,
      model: modelId(vlm),
      request: wordsOf({ prompt, target }),
      settings: {
        retrievalLayer: settings.retrievalLayer!,
        threshold: settings.threshold!,
        rank: settings.rank!,
        ...(own.threshold === undefined ? {} : { threshold: own.threshold }),
      },
      tensors: new Map([['key', f32(key!, [key!.length])], ...tensors]),
    });
  }
  return edits;
}

const known = new WeakMap<Tensor, Promise<Deltas>>();

/** The fine-tuned model of an edit as changes of weights; edits that were made together share them. */
function changesOf(vlm: Vlm, { tensors, ...edit }: Edit): { by: Tensor; deltas: Promise<Deltas> } {
  const own = new Map([...tensors].filter(([name]) => isChange(name)));
  const by = [...own.values()][0]!;
  const deltas = known.get(by) ?? sumDeltas(vlm, [{ ...edit, tensors: own }]);
  known.set(by, deltas);
  return { by, deltas };
}

/** The edit that a query is under and, where it is in its scope, the query's prompt behind it. */
async function route(vlm: Vlm, query: Asked, edits: readonly Edit[]): Promise<{ edit: Edit; prompt: Prompt }> {
  const { settings } = edits[0]!;
  const [key] = await keysOf(vlm, [query], settings.retrievalLayer as number, tensorOf(edits[0]!, 'center'));
  const { edit, score } = best(edits, (e) => similarity(key!, tensorOf(e, 'key').data));
  const inScope = score >= (edit.settings.threshold as number);
  return { edit, prompt: inScope ? changeQuestion(query.prompt, (text) => promptBehind(vlm, edit.request, text)) : query.prompt };
}

function under(vlm: Vlm, memory: Memory): AnsweringModel {
  const answer = async <Q extends Asked, A>(
    queries: readonly Q[],
    ask: (queries: Q[], rewrite: Rewrite, rows: readonly number[]) => Promise<A[]>,
  ): Promise<A[]> => {
    const routes: { edit: Edit; prompt: Prompt }[] = [];
    for (const [i, edits] of memory(queries.length).entries()) routes.push(await route(vlm, queries[i]!, edits));
    return inGroups(
      routes.map(({ edit }) => changesOf(vlm, edit).by),
      async (rows) => {
        const { deltas } = changesOf(vlm, routes[rows[0]!]!.edit);
        const rewrite = addDeltas(await deltas);
        return ask(
          rows.map((i) => ({ ...queries[i]!, prompt: routes[i]!.prompt })),
          rewrite,
          rows,
        );
      },
    );
  };
  return {
    answerTargets: (queries) => answer(queries, (asked, rewrite) => answerTargets(vlm, asked, () => rewrite)),
    generate: (queries, options = {}) =>
      answer(queries, (asked, rewrite, rows) => generateAll(vlm, asked, forRows(options, rows), () => rewrite)),
    read: async (input) => (await answer([input], async ([asked], rewrite) => [await readInput(vlm, asked!, () => rewrite)]))[0]!,
  };
}

export const lte: Editor = {
  id,
  summary: 'fine-tunes the language model to follow an edit that stands before the query, and retrieves it by similarity',
  trained: true,
  promises: { textUntouched: false, batchEqualsSingles: true },
  settings: { train: lteSchema, edit: () => editSchema },
  train: trainLte,
  trainingSettings: (vlm, options) => trainingSettings(lteConfig(vlm, options)),
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
