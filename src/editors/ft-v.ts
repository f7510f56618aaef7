/**
 * FT-V: for each edit, fine-tunes the vision-to-language part on −log p(target | image, prompt) (VisEdit A.3 after Cheng et al. 2023). Trained are
 * all weights between the image encoder's features and the visual tokens: LLaVA's two-layer projector; the query tokens, Q-Former and projection
 * of BLIP2-OPT and MiniGPT-4. Image encoder and language model stay as they are, so text-only inputs pass untouched.
 *
 * The edit is the change of each of these weights, whole: Adam's steps are of no low rank. AdamW, and nothing is learned before the edit.
 * Deviations: the paper gives no steps and rates, those of FT-L's published setting are taken. The steps end early once the loss is below `until`.
 */

import { z } from 'zod';
import { concat, f32, gather, input, mulDim, type Node, reshape, slice, type Tensor } from '../graph/index.ts';
import { type AnsweringModel, answerTargets, generateAll, type RewriteRows, readInput } from '../models/answer.ts';
import { Sites } from '../models/sites.ts';
import { type RgbImage, stack, type Vlm } from '../models/vlm.ts';
import { Weights } from '../nn/weights.ts';
import { checkEdits, type Edit, type Editor, type EditRequest, modelId, type Settings } from './editor.ts';
import { connector, connectorWeights, readWeights } from './gradients/chosen-weights.ts';
import { addDeltas, type Deltas, denseTensors, sumDeltas, tunedOn, underOwnEdits, whenAsked } from './gradients/deltas.ts';
import { type DescentSettings, descend } from './gradients/descend.ts';
import { targetFeeds, targetLoss } from './gradients/edit-loss.ts';
import { descentSettings, parseSettings } from './settings.ts';

const id = 'ft-v';

const schema = z.object(descentSettings({ steps: 25, rate: 1e-3, decay: 1e-2, until: 1e-2 }));

/** Features of pictures by the frozen image encoder, [1, n, e] each. */
async function features(vlm: Vlm, image: RgbImage): Promise<Tensor<'float32'>> {
  const program = await vlm.program('vision.features', () => {
    const sites = new Sites();
    vlm.architecture.vision(input('pixels', ['b', 3, ...vlm.architecture.imageSize]), new Weights(), sites);
    return { features: sites.get('vision.features') };
  });
  const pixels = vlm.processor(image);
  return (await program.run({ pixels: { ...pixels, shape: [1, ...pixels.shape] } })).features as Tensor<'float32'>;
}

/** Logits at `rows` from the words' ids and the pictures' features. */
function logits(vlm: Vlm, weights: Weights): Node {
  const { decoder, visualTokens: v } = vlm.architecture;
  const positions = input('positions', ['b', 'l'], 'int64');
  const frozen = new Weights();
  const words = decoder.embed(input('ids', ['b', 'l'], 'int64'), frozen);
  const start = vlm.visualStart;
  const embeddings = concat([slice(words, 1, 0, start), connector(vlm, weights), slice(words, 1, start + v, 'l')], 1);
  let x = decoder.enter(embeddings, positions, frozen);
  const context = { weights: frozen, sites: new Sites(), positions, bias: input('bias', ['b', 1, 'l', 'l']) };
  for (let i = 0; i < decoder.layers; i++) x = decoder.layer(i, x, context);
  return decoder.head(gather(reshape(x, [mulDim('b', 'l'), decoder.hidden]), input('rows', ['r'], 'int64')), frozen);
}

/** @param before the connector that the edit starts from @returns the edit, and the connector it ends with */
async function tune(
  vlm: Vlm,
  { image, prompt, target }: EditRequest,
  before: Deltas,
  settings: DescentSettings,
): Promise<{ edit: Edit; after: Deltas }> {
  const weights = connectorWeights(vlm);
  const sequence = vlm.layout(prompt, true, target);
  const batch = await vlm.batch([sequence], [image]);
  const { values, steps, loss } = await descend(vlm, {
    key: id,
    build: () => {
      const trained = weights.map(({ name, shape }) => input(name, shape));
      const own = new Weights(new Map(weights.map(({ name }, i) => [name, () => trained[i]!])));
      return { loss: targetLoss(logits(vlm, own)), trained };
    },
    initial: before,
    feeds: { ...batch.feeds, features: await features(vlm, image), ...targetFeeds([{ sequence }], batch.length) },
    settings,
  });
  const edit: Edit = {
    editor: id,
    model: modelId(vlm),
    request: { prompt, target },
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

/** The model with a changed connector: queries with a picture get its visual tokens, the decoder's programs are those of the unedited model. */
function changed(vlm: Vlm, deltas: Deltas): AnsweringModel {
  const { key, replace, feeds } = addDeltas(deltas);
  const known = new WeakMap<RgbImage, Promise<Tensor<'float32'>>>();
  const visual = async (image: RgbImage): Promise<Tensor<'float32'>> => {
    const program = await vlm.program(`connector|${key}`, () => ({ visual: connector(vlm, new Weights(replace)) }));
    const out = await program.run({ features: await features(vlm, image), ...feeds });
    return f32(out.visual!.data as Float32Array, out.visual!.shape.slice(1));
  };
  const rewriteRows = async (queries: readonly { image?: RgbImage | undefined }[]): Promise<RewriteRows> => {
    const tokens = new Map<number, Tensor<'float32'>>();
    for (const [i, { image }] of queries.entries()) {
      if (image === undefined) continue;
      if (!known.has(image)) known.set(image, visual(image));
      tokens.set(i, await known.get(image)!);
    }
    return (rows, batch) =>
      batch.image
        ? { key: '', patches: () => new Map(), replace: new Map(), feeds: { visual: stack(rows.map((i) => tokens.get(i)!)) } }
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

export const ftV: Editor = {
  id,
  summary: 'fine-tunes the vision-to-language part (projector, Q-Former) for each edit',
  trained: false,
  promises: { textUntouched: true, batchEqualsSingles: true },
  settings: { edit: () => schema },
  edit,
  with: (vlm, edits) => {
    checkEdits(id, vlm, edits);
    const models = new Map<Edit, AnsweringModel>();
    return underOwnEdits(edits, (one) => {
      const model = models.get(one) ?? under(vlm, [one]);
      models.set(one, model);
      return model;
    });
  },
  chain: (vlm, edits) => {
    checkEdits(id, vlm, edits);
    return under(vlm, edits);
  },
  sequence: (vlm, _weights, given) => {
    const settings = parseSettings(id, schema, given);
    return tunedOn(
      () => readWeights(vlm, connectorWeights(vlm)),
      (request, before) => tune(vlm, request, before, settings),
    );
  },
};
