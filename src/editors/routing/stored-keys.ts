/**
 * Keys of many stored edits side by side, and their products with those of queries: what retrieval of every editor comes down to. The edits stand in
 * an order that depends on what they hold and not on when they were made, so that the same edits in another order give the same bits.
 */

import { f32, type Tensor } from '../../graph/dtype.ts';
import { input, matmul, type Node } from '../../graph/index.ts';
import type { Vlm } from '../../models/vlm.ts';
import { byContent, tensorOf } from '../context/memory.ts';
import type { Edit } from '../editor.ts';

/** Rows [r, n] of the same length as one tensor. */
export function keyRows(keys: readonly Float32Array[]): Tensor<'float32'> {
  const n = keys[0]!.length;
  const data = new Float32Array(keys.length * n);
  keys.forEach((key, i) => {
    data.set(key, i * n);
  });
  return f32(data, [keys.length, n]);
}

const productsGraph = (_: Vlm, n: number): Record<string, Node> => ({
  products: matmul(input('queries', ['q', n]), input('stored', ['e', n]), false, true),
});

/** Some edits in the order of their contents, with one key tensor of each. */
export class StoredKeys {
  readonly edits: readonly Edit[];
  readonly #rows = new Map<string, Tensor<'float32'>>();

  constructor(
    readonly vlm: Vlm,
    edits: readonly Edit[],
  ) {
    this.edits = [...edits].sort(byContent);
  }

  /** <query, key> of every query and edit [q][e], in the order of `edits`. @param name of the edits' tensor that is the key */
  async products(name: string, queries: readonly Float32Array[]): Promise<Float32Array[]> {
    let stored = this.#rows.get(name);
    if (stored === undefined) {
      stored = keyRows(this.edits.map((edit) => tensorOf(edit, name).data));
      this.#rows.set(name, stored);
    }
    const program = await this.vlm.program(productsGraph, stored.shape[1]!);
    const data = (await program.run({ queries: keyRows(queries), stored })).products!.data as Float32Array;
    const e = this.edits.length;
    return queries.map((_, i) => data.subarray(i * e, (i + 1) * e));
  }
}

/** The stored keys of lists of edits, each list put in order once for as long as it is used. */
export function storedKeys(vlm: Vlm): (edits: readonly Edit[]) => StoredKeys {
  const known = new WeakMap<readonly Edit[], StoredKeys>();
  return (edits) => {
    const stored = known.get(edits) ?? new StoredKeys(vlm, edits);
    known.set(edits, stored);
    return stored;
  };
}

/** The place of the highest of some scores, the first of equals. */
export function highest(scores: ArrayLike<number>): number {
  let place = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i]! > scores[place]!) place = i;
  return place;
}
