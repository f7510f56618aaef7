/** The visual tokens of a program's inputs: read out of states [b, l, d], and written back, wherever they stand. */

import type { Dim } from '../graph/dim.ts';
import { gather, input, mulDim, type Node, place, reshape } from '../graph/index.ts';

/** Where visual tokens stand, as inputs of a program: see `spanFeeds`. */
export interface Spans {
  /** int64 [b, v], places among the rows [b * l]; v is that of the input with the most */
  readonly rows: Node;
  /** [b, v, 1]: 0 where an input has no such token */
  readonly mask: Node;
  /** int64 [b, l]: a column's own place, or b * l and the visual token's place among [b * v] */
  readonly place: Node;
  /** [b, l, 1]: 0 at visual tokens */
  readonly words: Node;
}

/** @param v visual tokens of the input with the most */
export const spanInputs = (b: Dim, l: Dim, v: Dim = 'v'): Spans => ({
  rows: input('visual.rows', [b, v], 'int64'),
  mask: input('visual.mask', [b, v, 1]),
  place: input('visual.place', [b, l], 'int64'),
  words: input('visual.words', [b, l, 1]),
});

const rowsOf = (x: Node): Node => {
  const [b, l, d] = x.shape as [Dim, Dim, number];
  return reshape(x, [mulDim(b, l), d]);
};

/** The visual tokens [b, v, d] of states [b, l, d]. */
export const readVisual = (x: Node, { rows }: Spans): Node => gather(rowsOf(x), rows);

/** States [b, l, d] with other visual tokens [b, v, d]. */
export const writeVisual = (x: Node, visual: Node, spans: Spans): Node => place(rowsOf(x), rowsOf(visual), spans);
