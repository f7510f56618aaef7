/** What edits change of a model's stored weights, as exact factors where they have them: the form that leaves the program. */

import { f32, type Tensor } from '../../graph/index.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { Edit } from '../editor.ts';
import { type Deltas, denseChange, lowRankChange, product } from './deltas.ts';

/** left [out, r] × right [r, in] */
export interface Factored {
  readonly left: Tensor<'float32'>;
  readonly right: Tensor<'float32'>;
}

/** The change of one weight: the sum of its parts. */
export interface WeightChange {
  readonly dense: readonly Tensor<'float32'>[];
  readonly factored: readonly Factored[];
}

export type WeightChanges = ReadonlyMap<string, WeightChange>;

/** `Editor.changes` of editors whose edits hold changes of weights, whole or as factors. */
export async function changesOf(_: Vlm, edits: readonly Pick<Edit, 'tensors'>[]): Promise<WeightChanges> {
  const all = new Map<string, { dense: Tensor<'float32'>[]; factored: Factored[] }>();
  const of = (name: string): { dense: Tensor<'float32'>[]; factored: Factored[] } => {
    const there = all.get(name) ?? { dense: [], factored: [] };
    all.set(name, there);
    return there;
  };
  for (const { tensors } of edits) {
    for (const [name, t] of tensors) {
      const whole = denseChange(name);
      if (whole !== undefined) of(whole).dense.push(t);
      const low = lowRankChange(name, tensors);
      if (low !== undefined) of(low.weight).factored.push({ left: t, right: low.right });
    }
  }
  return all;
}

/** Each weight's whole change. */
export async function wholeChanges(vlm: Vlm, changes: WeightChanges): Promise<Deltas> {
  const all = new Map<string, Tensor<'float32'>>();
  for (const [name, change] of changes) all.set(name, await wholeChange(vlm, change));
  return all;
}

export async function wholeChange(vlm: Vlm, { dense, factored }: WeightChange): Promise<Tensor<'float32'>> {
  const parts = [...dense];
  if (factored.length > 0) {
    const { left, right } = joined(factored);
    parts.push(await product(vlm, left, right));
  }
  const [first, ...more] = parts as [Tensor<'float32'>, ...Tensor<'float32'>[]];
  if (more.length === 0) return first;
  const sum = first.data.slice();
  for (const { data } of more) for (let i = 0; i < sum.length; i++) sum[i]! += data[i]!;
  return f32(sum, first.shape);
}

/** One pair of factors for the sum of several: left sides beside, right sides below one another. */
export function joined(factored: readonly Factored[]): Factored {
  if (factored.length === 1) return factored[0]!;
  const [out, width] = [factored[0]!.left.shape[0]!, factored[0]!.right.shape[1]!];
  const rank = factored.reduce((sum, { right }) => sum + right.shape[0]!, 0);
  const [left, right] = [new Float32Array(out * rank), new Float32Array(rank * width)];
  let at = 0;
  for (const part of factored) {
    const r = part.right.shape[0]!;
    for (let row = 0; row < out; row++) left.set(part.left.data.subarray(row * r, (row + 1) * r), row * rank + at);
    right.set(part.right.data, at * width);
    at += r;
  }
  return { left: f32(left, [out, rank]), right: f32(right, [rank, width]) };
}
