/**
 * The two adapters of DualEdit (2025): VEAD's cross-attention without its influence mapper, at two layers. Each reads the edit signal h̃, its layer's
 * unedited states over (picture, prompt ⊕ target):
 *   A(x) = x + We MHA(q = Wq Wb LN x, keys and values of LN h̃)
 * The text adapter acts on the words between the picture's end and the prompt's last token, the visual one on the visual tokens.
 */

import type { Node, Tensor } from '../../graph/index.ts';
import type { Weights } from '../../nn/weights.ts';
import type { Random } from '../../random.ts';
import { adapterShapes, attendedChange, type EditSignal, initialAdapter, type Spread } from '../vead/adapter.ts';

export const sides = ['text', 'vision'] as const;
export type Side = (typeof sides)[number];

export interface DualShape {
  /** d */
  readonly hidden: number;
  /** m */
  readonly width: number;
  readonly heads: number;
}

/** The authors' names: VEAD's under each side, and the text adapter's own for the norm of its input. */
const nameOf = (side: Side, name: string): string => `${side}.${side === 'text' ? name.replace('_img_', '_text_') : name}`;

const ofBoth = <T>(all: (side: Side) => Iterable<readonly [string, T]>): Map<string, T> =>
  new Map(
    sides.flatMap((side) =>
      [...all(side)].flatMap(([name, one]) => (name.startsWith('influence_mapper.') ? [] : [[nameOf(side, name), one] as const])),
    ),
  );

/** Names and shapes of both adapters' weights; words stand for sizes that are not known. */
export const dualShapes = <S extends number | string>(
  sizes: Readonly<Record<'hidden' | 'width' | 'influenceWidth', S>>,
): Map<string, readonly S[]> => ofBoth(() => adapterShapes(sizes));

/** A(x) − x of states x [b, n, d]. */
export const changeBy = (
  side: Side,
  w: Weights,
  shape: DualShape,
  x: Node,
  edit: Pick<EditSignal, 'signal' | 'bias'>,
  spread?: Spread,
): Node =>
  attendedChange(w, shape, x, edit, spread, true, { before: `${side}.`, norm: side === 'text' ? 'ln_text_reps' : 'ln_img_reps' });

export const initialDual = (shape: DualShape, random: Random, valueCopy: boolean): Map<string, Tensor<'float32'>> =>
  ofBoth((side) => initialAdapter({ ...shape, influenceWidth: 1 }, random.fork(side), valueCopy));
