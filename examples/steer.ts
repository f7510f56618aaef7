/** A new editor: `steer` adds one vector to the last layer's output, found for each edit by descent. */
import {
  type AnsweringModel,
  answerTargets,
  checkEdits,
  defineRewrite,
  descend,
  type Edit,
  type Editor,
  type EditRequest,
  generateAll,
  graph,
  modelId,
  type Patch,
  prefixOf,
  type Rewrite,
  readInput,
  type Settings,
  Sites,
  settings,
  stateBefore,
  tailFeeds,
  tailLogits,
  targetLoss,
  type Vlm,
  Weights,
  wordsOf,
} from 'visedit';
import { z } from 'zod';

const { add, f32, input } = graph;

const id = 'steer';
const schema = z.object(settings.descentSettings({ steps: 40, rate: 1e-1, decay: 0, until: 1e-2 }));
const siteOf = (vlm: Vlm): string => `layers.${vlm.decoder.layers - 1}.out`;

/** The loss of a model whose last layer's output has the vector `s` added; `prefix` is where the pictures' part of the input ends. */
function steerLoss(vlm: Vlm, prefix: graph.Dim): { loss: graph.Node; trained: graph.Node[] } {
  const s = input('s', [vlm.decoder.hidden]);
  const sites = new Sites(new Map<string, Patch>([[siteOf(vlm), (h) => add(h, s)]]));
  return { loss: targetLoss(tailLogits(vlm, vlm.decoder.layers - 1, prefix, new Weights(), sites)), trained: [s] };
}

async function edit(vlm: Vlm, requests: readonly EditRequest[], _weights?: unknown, given?: Settings): Promise<Edit[]> {
  const own = settings.parseSettings(id, schema, given);
  const { layers, hidden: d } = vlm.decoder;
  const edits: Edit[] = [];
  for (const request of requests) {
    const state = await stateBefore(vlm, request, layers - 1);
    const { values, loss } = await descend(vlm, {
      build: steerLoss,
      args: [vlm.prefixDim(prefixOf(state.sequence))],
      initial: new Map([['s', f32(new Float32Array(d), [d])]]),
      feeds: tailFeeds(vlm, [state]),
      settings: own,
    });
    edits.push({
      editor: id,
      model: modelId(vlm),
      request: wordsOf(request),
      settings: { ...own, loss },
      tensors: values,
    });
  }
  return edits;
}

/** What a rewrite changes follows from its structure alone, so that equal structures are one compiled program. */
const addVector = defineRewrite(({ site, d }: { site: string; d: number }) => {
  const patches = (): Map<string, Patch> => new Map([[site, (h) => add(h, input('steer.s', ['b', 1, d]))]]);
  // `steps`: generated tokens are steered, too.
  return { patches, steps: patches };
});

/** Row i of a batch gets the vectors of edits[i]. */
function rewrite(vlm: Vlm, rows: readonly (readonly Edit[])[]): Rewrite {
  const d = vlm.decoder.hidden;
  const data = new Float32Array(rows.length * d);
  rows.forEach((edits, i) => {
    for (const { tensors } of edits) {
      const { data: s } = tensors.get('s')!;
      for (let j = 0; j < d; j++) data[i * d + j]! += s[j]!;
    }
  });
  return addVector({ site: siteOf(vlm), d }, { 'steer.s': f32(data, [rows.length, 1, d]) });
}

function steered(vlm: Vlm, edits: readonly Edit[], of: (row: number) => readonly Edit[]): AnsweringModel {
  checkEdits(id, vlm, edits);
  const rows = (chosen: readonly number[]): Rewrite => rewrite(vlm, chosen.map(of));
  return {
    answerTargets: (queries) => answerTargets(vlm, queries, rows),
    generate: (queries, options) => generateAll(vlm, queries, options, rows),
    read: (asked) => readInput(vlm, asked, rows),
  };
}

export const steer: Editor = {
  id,
  summary: "adds a vector to the last layer's output, found for each edit",
  trained: false,
  settings: { edit: () => schema },
  promises: { textUntouched: false, batchEqualsSingles: true },
  edit,
  with: (vlm, edits) => steered(vlm, edits, (row) => [edits.length === 1 ? edits[0]! : edits[row]!]),
  chain: (vlm, edits) => steered(vlm, edits, () => edits),
};
