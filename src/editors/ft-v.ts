/**
 * FT-V: for each edit, fine-tunes the vision-to-language part on −log p(target | image, prompt) (VisEdit A.3 after Cheng et al. 2023). Trained are
 * all weights between the image encoder's features and the visual tokens: LLaVA's two-layer projector; the query tokens, Q-Former and projection
 * of BLIP2-OPT and MiniGPT-4. Image encoder and language model stay as they are, so text-only inputs pass untouched.
 *
 * The edit is the change of each of these weights, whole: Adam's steps are of no low rank. AdamW, and nothing is learned before the edit.
 * Deviations: the paper gives no steps and rates, those of FT-L's published setting are taken.
 */

import { z } from 'zod';
import { f32, gather, input, mulDim, type Node, reshape, type Tensor } from '../graph/index.ts';
import type { Asked, Picture } from '../input/segments.ts';
import { type AnsweringModel, answerTargets, generateAll, type RewriteRows, readInput } from '../models/answer.ts';
import { joined } from '../models/batch.ts';
import { placeVisual, visualFeedsOf } from '../models/deep.ts';
import { placeInputs, walk } from '../models/forward.ts';
import { defineRewrite, type Rewrite } from '../models/rewrite.ts';
import type { Sequence } from '../models/sequence.ts';
import { Sites } from '../models/sites.ts';
import { spanInputs } from '../models/spans.ts';
import { connector, connectorInputs } from '../models/vision.ts';
import type { Vlm } from '../models/vlm.ts';
import { Weights } from '../nn/weights.ts';
import type { Feeds } from '../runtime/program.ts';
import { checkEdits, type Edit, type Editor, type EditRequest, modelId, type Settings, wordsOf } from './editor.ts';
import type { Forms } from './forms.ts';
import { changesOf } from './gradients/changes.ts';
import { connectorWeights, type NamedWeight, readWeights } from './gradients/chosen-weights.ts';
import {
  addDeltas,
  type Deltas,
  denseShapes,
  denseTensors,
  sumDeltas,
  tunedOn,
  underOwnEdits,
  whenAsked,
} from './gradients/deltas.ts';
import { type DescentSettings, descend } from './gradients/descend.ts';
import { targetFeeds, targetLoss } from './gradients/edit-loss.ts';
import { descentSettings, inFile, parseSettings } from './settings.ts';

const id = 'ft-v';

const schema = z.object(descentSettings({ steps: 25, rate: 1e-3, decay: 1e-2, until: 1e-2 }));

/** What the connector reads of a picture. */
async function features(vlm: Vlm, { prepared }: Picture): Promise<Feeds> {
  if (prepared === undefined) throw new Error('an edit of what leads to the visual tokens needs the pictures themselves');
  return connectorInputs(vlm, prepared);
}

/** Logits at `rows` from the ids of the words and the features of the picture of each input. */
function logits(vlm: Vlm, weights: Weights): Node {
  const { decoder } = vlm;
  const frozen = new Weights();
  const { length: l, positions, bias } = placeInputs(decoder, undefined);
  const words = decoder.embed(input('ids', ['b', l], 'int64'), frozen);
  const visual = connector(vlm, weights);
  const { embeddings, deep } = placeVisual(decoder, words, visual, spanInputs('b', l, visual.dim(1)));
  const start = decoder.enter(embeddings, positions, frozen);
  const x = walk(decoder, 0, decoder.layers, start, { weights: frozen, sites: new Sites(), positions, bias, deep });
  return decoder.head(gather(reshape(x, [mulDim('b', l), decoder.hidden]), input('rows', ['r'], 'int64')), frozen);
}

function connectorLoss(vlm: Vlm, weights: readonly NamedWeight[]): { loss: Node; trained: Node[] } {
  const trained = weights.map(({ name, shape }) => input(name, shape));
  const own = new Weights(new Map(weights.map(({ name }, i) => [name, () => trained[i]!])));
  return { loss: targetLoss(logits(vlm, own)), trained };
}

/** The picture of a request. @throws Error when it has none, or several */
function pictureOf({ pictures: [picture, ...more] }: Sequence): Picture {
  if (picture === undefined || more.length > 0)
    throw new Error(`${id} edits an answer about one picture; this one is about ${more.length === 0 ? 'none' : more.length + 1}`);
  return picture;
}

/** @param before the connector that the edit starts from @returns the edit, and the connector it ends with */
async function tune(
  vlm: Vlm,
  { image, prompt, target }: EditRequest,
  before: Deltas,
  settings: DescentSettings,
): Promise<{ edit: Edit; after: Deltas }> {
  const sequence = vlm.layout({ prompt, image }, target);
  const batch = await vlm.batch([sequence]);
  const { values, steps, loss } = await descend(vlm, {
    build: connectorLoss,
    args: [connectorWeights(vlm)],
    initial: before,
    feeds: { ...batch.feeds, ...(await features(vlm, pictureOf(sequence))), ...targetFeeds(batch) },
    settings,
  });
  const edit: Edit = {
    editor: id,
    model: modelId(vlm),
    request: wordsOf({ prompt, target }),
    settings: { ...settings, stepsTaken: steps, loss },
    tensors: denseTensors(before, values),
  };
  return { edit, after: values };
}

async function edit(vlm: Vlm, requests: readonly EditRequest[], _weights?: unknown, given?: Settings): Promise<Edit[]> {
  const settings = parseSettings(id, schema, given);
  const before = await readWeights(vlm, connectorWeights(vlm));
  const edits: Edit[] = [];
  for (const request of requests) edits.push((await tune(vlm, request, before, settings)).edit);
  return edits;
}

const changedConnector = (vlm: Vlm, { replace }: Rewrite): Record<string, Node> => ({
  visual: connector(vlm, new Weights(replace)),
});

const otherTokens = defineRewrite(() => ({}));

/** The model with a changed connector: queries with a picture get its visual tokens, the decoder's programs are those of the unedited model. */
function changed(vlm: Vlm, deltas: Deltas): AnsweringModel {
  const change = addDeltas(deltas);
  const known = new Map<string, Promise<Tensor<'float32'>>>();
  const visual = async (picture: Picture): Promise<Tensor<'float32'>> => {
    const program = await vlm.program(changedConnector, change);
    const out = await program.run({ ...(await features(vlm, picture)), ...change.feeds });
    return f32(out.visual!.data as Float32Array, out.visual!.shape.slice(1));
  };
  const see = (picture: Picture): Promise<Tensor<'float32'>> => {
    const tokens = known.get(picture.key) ?? visual(picture);
    known.set(picture.key, tokens);
    return tokens;
  };
  const seen = new Map<string, Tensor<'float32'>>();
  const rewriteRows = async (queries: readonly Asked[]): Promise<RewriteRows> => {
    for (const query of queries) for (const picture of vlm.layout(query).pictures) seen.set(picture.key, await see(picture));
    return (_, batch) =>
      batch.image
        ? otherTokens(
            null,
            visualFeedsOf(
              vlm.decoder,
              batch,
              batch.sequences.map(({ pictures }) => joined(pictures.map(({ key }) => seen.get(key)!))),
            ),
          )
        : undefined;
  };
  return {
    answerTargets: async (queries) => answerTargets(vlm, queries, await rewriteRows(queries)),
    generate: async (queries, options) => generateAll(vlm, queries, options, await rewriteRows(queries)),
    read: async (input) => readInput(vlm, input, await rewriteRows([input])),
  };
}

const under = (vlm: Vlm, edits: readonly Edit[]): AnsweringModel =>
  whenAsked(async () => changed(vlm, await sumDeltas(vlm, edits)));

const forms: Forms = {
  edit: { settings: () => inFile(schema.shape), tensors: (vlm) => denseShapes(connectorWeights(vlm)) },
};

export const ftV: Editor = {
  id,
  summary: 'fine-tunes the vision-to-language part (projector, Q-Former) for each edit',
  trained: false,
  promises: { textUntouched: true, batchEqualsSingles: true },
  settings: { edit: () => schema },
  forms,
  edit,
  with: (vlm, edits) => {
    checkEdits(id, vlm, edits, forms);
    const models = new Map<Edit, AnsweringModel>();
    return underOwnEdits(edits, (one) => {
      const model = models.get(one) ?? under(vlm, [one]);
      models.set(one, model);
      return model;
    });
  },
  chain: (vlm, edits) => {
    checkEdits(id, vlm, edits, forms);
    return under(vlm, edits);
  },
  changes: changesOf,
  sequence: (vlm, _weights, given, earlier = []) => {
    const settings = parseSettings(id, schema, given);
    return tunedOn(
      vlm,
      earlier,
      () => readWeights(vlm, connectorWeights(vlm)),
      (request, before) => tune(vlm, request, before, settings),
    );
  },
};
