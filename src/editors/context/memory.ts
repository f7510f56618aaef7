/** Which edit a query is under: its own, or of several that are stored together the one whose request is the most like it. */

import type { Tensor } from '../../graph/dtype.ts';
import type { Edit } from '../editor.ts';

/** The edits that each of some queries may be under. */
export type Memory = (count: number) => readonly (readonly Edit[])[];

/** With one edit every query is under it, with several query i is under edit i. */
export const own =
  (edits: readonly Edit[]): Memory =>
  (count) => {
    if (edits.length > 1 && edits.length !== count)
      throw new Error(`${edits.length} edits for ${count} queries: give one edit, or one for each query`);
    return Array.from({ length: count }, (_, i) => (edits.length === 1 ? edits : [edits[i]!]));
  };

/** Every query may be under any of the edits. */
export const shared =
  (edits: readonly Edit[]): Memory =>
  (count) =>
    Array.from({ length: count }, () => edits);

export interface Found {
  readonly edit: Edit;
  readonly score: number;
}

/** The stored edit that scores highest; of equals the last by content, so that the order in which they were made does not matter. */
export function best(edits: readonly Edit[], score: (edit: Edit) => number): Found {
  let found: Found | undefined;
  for (const edit of edits) {
    const value = score(edit);
    if (found === undefined || value > found.score || (value === found.score && byContent(edit, found.edit) > 0))
      found = { edit, score: value };
  }
  return found!;
}

/** A fixed order of edits by their tensors, and by their words where those are the same; edits that hold the same are equal. */
export function byContent(a: Edit, b: Edit): number {
  if (a === b) return 0;
  for (const name of [...a.tensors.keys()].sort()) {
    const [x, y] = [tensorOf(a, name).data, tensorOf(b, name).data];
    if (x.length !== y.length) return x.length - y.length;
    for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return x[i]! < y[i]! ? -1 : 1;
  }
  const [left, right] = [a, b].map(({ request }) => JSON.stringify([request.prompt, request.target])) as [string, string];
  return left < right ? -1 : Number(left > right);
}

/** A tensor that an edit of this kind has. */
export function tensorOf(edit: Edit, name: string): Tensor<'float32'> {
  const tensor = edit.tensors.get(name);
  if (tensor === undefined) throw new Error(`this edit of ${edit.editor} has no ${name}: it is damaged; make it again`);
  return tensor;
}

/** Answers rows in groups of equal keys; the results are in the order of the rows. */
export async function inGroups<A>(
  keys: readonly unknown[],
  answer: (rows: readonly number[]) => Promise<readonly A[]>,
): Promise<A[]> {
  const rowsOf = new Map<unknown, number[]>();
  keys.forEach((key, i) => {
    rowsOf.set(key, [...(rowsOf.get(key) ?? []), i]);
  });
  const out = new Array<A>(keys.length);
  for (const rows of rowsOf.values()) {
    const answers = await answer(rows);
    rows.forEach((row, i) => {
      out[row] = answers[i]!;
    });
  }
  return out;
}
