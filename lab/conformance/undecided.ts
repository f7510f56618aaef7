/** Which token a model says is undecided where its largest logits are closer than the tolerance of logits: rounding chooses then. */
import { i64, type Tensor } from '../../src/graph/dtype.ts';
import type { Batch } from '../../src/models/batch.ts';
import { argMaxOf } from '../../src/models/generate.ts';
import type { Rewrite } from '../../src/models/rewrite.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { tolerances } from './checks.ts';

/** Logits at flat rows of a batch. */
export async function logitsAt(vlm: Vlm, batch: Batch, rows: readonly number[], rewrite?: Rewrite): Promise<Float32Array[]> {
  const out = await vlm.run(
    { from: 0, to: vlm.decoder.layers, read: ['logits'], rows: true },
    batch,
    { rows: i64(rows, [rows.length]) },
    rewrite,
  );
  const { data } = out.logits as Tensor<'float32'>;
  const n = vlm.decoder.vocabulary;
  return rows.map((_, i) => data.subarray(i * n, (i + 1) * n));
}

/** Whether a token could be the largest within the tolerance. */
export const couldSay = (logits: Float32Array, id: number): boolean =>
  logits[argMaxOf(logits)]! - logits[id]! <= tolerances.logits;

/** Whether several tokens could. */
export function isUndecided(logits: Float32Array): boolean {
  const best = argMaxOf(logits);
  return logits.some((_, id) => id !== best && couldSay(logits, id));
}
