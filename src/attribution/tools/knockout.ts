/**
 * Knock-out of attention edges (Geva et al. 2023): in a window of layers the queries of one group of positions do not see the keys of another, and
 * the probability of the key token falls by as much as flowed there.
 */

import { z } from 'zod';
import { cutEdges } from '../cut.ts';
import { nextToken } from '../next-token.ts';
import { defineTool, fixed, groupsOf, keyOf, layersOf } from './tool.ts';

const ways = ['picture → last', 'picture → words', 'words → last'] as const;

export const knockout = defineTool({
  id: 'knockout',
  summary: 'which way the answer flows: attention edges are cut in a window of layers',
  details:
    'Cuts the attention from the position that the answer is read from, or from the words of the prompt, to the visual tokens or to the words, in a window of layers, and measures by how much the probability of the key token falls. With --layers the edges are cut in all these layers at once.',
  ofPlaces: true,
  options: z.object({
    window: z.int().min(1).optional().describe('layers that are cut together (default: a third of them)'),
    layers: z.string().optional().describe('cut in all these layers at once, such as 3-5 or all, instead of window by window'),
  }),
  async run(subject, { window: given, layers: together }, { onProgress, signal }) {
    const { vlm, reading } = subject;
    const key = await keyOf(subject);
    const count = vlm.decoder.layers;
    const { picture, words, last } = groupsOf(reading.batch.sequences[0]!);
    const window = Math.min(count, given ?? Math.max(1, Math.round(count / 3)));
    const windows =
      together === undefined
        ? Array.from({ length: count - window + 1 }, (_, i) => Array.from({ length: window }, (_, j) => i + j))
        : [layersOf(together, count)];
    const edges = {
      'picture → last': [last, picture],
      'picture → words': [words, picture],
      'words → last': [last, words],
    } as const;
    const rows = ways.filter((way) => edges[way].every((places) => places.length > 0));
    const values: number[][] = rows.map(() => []);
    let done = 0;
    for (const [r, way] of rows.entries()) {
      const [queries, keys] = edges[way];
      for (const layers of windows) {
        signal?.throwIfAborted();
        const next = await nextToken(vlm, reading.batch, cutEdges(vlm, reading, { queries, keys, layers }));
        values[r]!.push(key.probability - next.probability(key.id));
        onProgress?.(++done, rows.length * windows.length);
      }
    }
    const columns = windows.map((layers) => (layers.length === 1 ? `${layers[0]}` : `${layers[0]}-${layers.at(-1)}`));
    const matrix = { rows, columns, values, what: `fall of p(“${key.text}”)` };
    const worst = rows.map((way, r) => {
      const most = Math.max(...values[r]!);
      return most > 0.05
        ? `${way}: the probability falls by ${most.toFixed(2)} when cut in layers ${columns[values[r]!.indexOf(most)]}.`
        : `${way}: no window of layers matters alone.`;
    });
    return {
      key,
      said: [`Probability of “${key.text}” with all edges: ${key.probability.toFixed(3)}.`, ...worst],
      table: {
        head: ['edges cut', ...columns],
        rows: values.map((row, i) => [rows[i]!, ...row.map((value) => fixed(value, 3))]),
      },
      matrix,
      data: { windows, cut: rows.map((way, r) => ({ edges: way, fall: values[r] })) },
      panels: [
        {
          kind: 'matrix',
          data: {
            ...{ rows, columns, values, title: 'Cut attention edges', rowTitle: 'Edges', columnTitle: 'Layers' },
            scaleTitle: `Fall of the probability of “${key.text}”`,
          },
        },
      ],
    };
  },
});
