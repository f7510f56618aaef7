/** The token that a model says next after one input. */

import { i64, type Tensor } from '../graph/dtype.ts';
import { type Batch, rowOf } from '../models/batch.ts';
import { argMaxOf } from '../models/generate.ts';
import { logOdds } from '../models/ranked-tokens.ts';
import type { Rewrite } from '../models/rewrite.ts';
import type { Vlm } from '../models/vlm.ts';

export interface NextToken {
  predicted: number;
  probability(id: number): number;
  /** log p / (1 − p) */
  logOdds(id: number): number;
}

export async function nextToken(vlm: Vlm, batch: Batch, rewrite?: Rewrite): Promise<NextToken> {
  const at = rowOf(batch, 0, batch.sequences[0]!.promptEnd);
  const out = await vlm.run(
    { from: 0, to: vlm.decoder.layers, read: ['logits'], rows: true },
    batch,
    { rows: i64([at], [1]) },
    rewrite,
  );
  const { data } = out.logits as Tensor<'float32'>;
  const predicted = argMaxOf(data);
  const top = data[predicted]!;
  const total = data.reduce((sum, x) => sum + Math.exp(x - top), 0);
  return { predicted, probability: (id) => Math.exp(data[id]! - top) / total, logOdds: (id) => logOdds(data, id) };
}
