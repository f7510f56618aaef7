/**
 * FT-L: for each edit, fine-tunes a matrix of the last decoder layer on −log p(target | image, prompt) (VisEdit A.3; the setting of the authors'
 * later work: the layer's down projection alone, for OPT `fc2`; AdamW, rate 1e-3, 25 steps. The release has no decay; here it is AdamW's default, 1e-2).
 *
 * The edit is the matrix's change Δ [d, m]. Nothing else is trained, and nothing is learned before the edit.
 * As there, the steps end once the loss is below `until`.
 */

import { z } from 'zod';
import { type Dim, input, type Node } from '../graph/index.ts';
import { prefixOf } from '../models/sequence.ts';
import type { Vlm } from '../models/vlm.ts';
import { Weights } from '../nn/weights.ts';
import { type Edit, type Editor, type EditRequest, modelId, type Settings, wordsOf } from './editor.ts';
import type { Forms } from './forms.ts';
import { changesOf } from './gradients/changes.ts';
import { feedForward, type NamedWeight, readWeights } from './gradients/chosen-weights.ts';
import { chainDeltas, type Deltas, denseShapes, denseTensors, tunedOn, withDeltas } from './gradients/deltas.ts';
import { type DescentSettings, descend } from './gradients/descend.ts';
import { stateBefore, tailFeeds, tailLogits, targetLoss } from './gradients/edit-loss.ts';
import { descentSettings, inFile, parseSettings } from './settings.ts';

const id = 'ft-l';

const schema = z.object(descentSettings({ steps: 25, rate: 1e-3, decay: 1e-2, until: 1e-2 }));

const matrixOf = (vlm: Vlm): NamedWeight => feedForward(vlm, vlm.decoder.layers - 1).at(-1)!;

function matrixLoss(vlm: Vlm, layer: number, prefix: Dim, { name, shape }: NamedWeight): { loss: Node; trained: Node[] } {
  const trained = input(name, shape);
  const weights = new Weights(new Map([[name, () => trained]]));
  return { loss: targetLoss(tailLogits(vlm, layer, prefix, weights)), trained: [trained] };
}

/** @param before the matrix that the edit starts from @returns the edit, and the matrix it ends with */
async function tune(
  vlm: Vlm,
  request: EditRequest,
  before: Deltas,
  settings: DescentSettings,
): Promise<{ edit: Edit; after: Deltas }> {
  const layer = vlm.decoder.layers - 1;
  const matrix = matrixOf(vlm);
  const state = await stateBefore(vlm, request, layer);
  const { values, steps, loss } = await descend(vlm, {
    build: matrixLoss,
    args: [layer, vlm.prefixDim(prefixOf(state.sequence)), matrix],
    initial: before,
    feeds: tailFeeds(vlm, [state]),
    settings,
  });
  const edit: Edit = {
    editor: id,
    model: modelId(vlm),
    request: wordsOf(request),
    settings: { ...settings, weight: matrix.name, stepsTaken: steps, loss },
    tensors: denseTensors(before, values),
  };
  return { edit, after: values };
}

async function edit(vlm: Vlm, requests: readonly EditRequest[], _weights?: unknown, given?: Settings): Promise<Edit[]> {
  const settings = parseSettings(id, schema, given);
  const before = await readWeights(vlm, [matrixOf(vlm)]);
  const edits: Edit[] = [];
  for (const request of requests) edits.push((await tune(vlm, request, before, settings)).edit);
  return edits;
}

const forms: Forms = {
  edit: { settings: () => inFile(schema.shape), tensors: (vlm) => denseShapes([matrixOf(vlm)]) },
};

export const ftL: Editor = {
  id,
  summary: "fine-tunes the last decoder layer's down projection for each edit",
  trained: false,
  promises: { textUntouched: false, batchEqualsSingles: true },
  settings: { edit: () => schema },
  forms,
  edit,
  with: (vlm, edits) => withDeltas(id, vlm, edits, forms),
  chain: (vlm, edits) => chainDeltas(id, vlm, edits, forms),
  changes: changesOf,
  sequence: (vlm, _weights, given, earlier = []) => {
    const settings = parseSettings(id, schema, given);
    return tunedOn(
      vlm,
      earlier,
      () => readWeights(vlm, [matrixOf(vlm)]),
      (request, before) => tune(vlm, request, before, settings),
    );
  },
};
