/** Attention edges that are cut: queries at some positions do not see keys at some others, in chosen layers. */

import { f32, type Tensor } from '../graph/dtype.ts';
import { add, constant, gather, i64, input, mul, reshape } from '../graph/index.ts';
import type { Reading } from '../models/answer.ts';
import { MASKED } from '../models/batch.ts';
import { defineRewrite, type Rewrite } from '../models/rewrite.ts';
import type { Patch } from '../models/sites.ts';
import type { Vlm } from '../models/vlm.ts';
import { under } from './tools/tool.ts';

/** One program for all layers: which of them are cut is an input. */
const cutting = defineRewrite(({ layers }: { layers: number }) => ({
  patches: () =>
    new Map(
      Array.from({ length: layers }, (_, i): [string, Patch] => [
        `layers.${i}.attn.bias`,
        (bias) => {
          const edges = input('cut.edges', [bias.dim(0), 1, bias.dim(2), bias.dim(3)]);
          const on = reshape(gather(input('cut.layers', [layers]), constant(i64([i], [1]))), []);
          return add(bias, mul(edges, on));
        },
      ]),
    ),
}));

/** What does not see what, where. */
export interface Cut {
  readonly queries: readonly number[];
  readonly keys: readonly number[];
  readonly layers: readonly number[];
}

/** The rewrite of a reading whose edges are cut; a position always sees itself. */
export function cutEdges(vlm: Vlm, reading: Reading, { queries, keys, layers }: Cut): Rewrite {
  const l = reading.batch.length;
  const edges = new Float32Array(l * l);
  for (const query of queries) for (const key of keys) if (key !== query) edges[query * l + key] = MASKED;
  const count = vlm.decoder.layers;
  const on = Float32Array.from({ length: count }, (_, i) => Number(layers.includes(i)));
  const feeds: Record<string, Tensor> = { 'cut.edges': f32(edges, [1, 1, l, l]), 'cut.layers': f32(on, [count]) };
  return under(reading, cutting({ layers: count }, feeds));
}
