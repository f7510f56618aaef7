/**
 * Keys of many stored edits side by side, and their products with those of queries: what retrieval of every editor comes down to. The edits stand in
 * an order that depends on what they hold and not on when they were made, so that the same edits in another order give the same bits.
 */

import { f32, type Tensor } from '../../graph/dtype.ts';
import { input, matmul, type Node } from '../../graph/index.ts';
import type { Vlm } from '../../models/vlm.ts';
import { tensorOf } from '../context/memory.ts';
import type { Edit } from '../editor.ts';

/** A fixed order of edits by their tensors; equal edits are equal. */
export function byContent(a: Edit, b: Edit): number {
  if (a === b) return 0;
  for (const name of [...a.tensors.keys()].sort()) {
    const [x, y] = [tensorOf(a, name).data, tensorOf(b, name).data];
    if (x.length !== y.length) return x.length - y.length;
    for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return x[i]! < y[i]! ? -1 : 1;
  }
  return 0;
}

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
