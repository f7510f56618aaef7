/** The most probable of all tokens at one place. */

import { argMaxOf } from './generate.ts';

export interface RankedToken {
  readonly id: number;
  readonly logProb: number;
}

/** log softmax(scores)[id] of any token. */
export function logProbabilities(scores: Float32Array): (id: number) => number {
  const top = scores[argMaxOf(scores)]!;
  let total = 0;
  for (const x of scores) total += Math.exp(x - top);
  const log = top + Math.log(total);
  return (id) => scores[id]! - log;
}

/** log p / (1 − p) of a token, which says how sure a model is where p is nearly 1, too. */
export function logOdds(scores: Float32Array, id: number): number {
  let top = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < scores.length; i++) if (i !== id) top = Math.max(top, scores[i]!);
  let total = 0;
  for (let i = 0; i < scores.length; i++) if (i !== id) total += Math.exp(scores[i]! - top);
  return scores[id]! - top - Math.log(total);
}

/** The `count` largest of scores [n], the largest first; of equals the smaller id. */
export function rankedTokens(scores: Float32Array, count: number): RankedToken[] {
  if (count === 0) return [];
  const best: number[] = [];
  for (let id = 0; id < scores.length; id++) {
    if (best.length === count && scores[id]! <= scores[best.at(-1)!]!) continue;
    let at = best.length;
    while (at > 0 && scores[best[at - 1]!]! < scores[id]!) at--;
    best.splice(at, 0, id);
    if (best.length > count) best.pop();
  }
  const logProb = logProbabilities(scores);
  return best.map((id) => ({ id, logProb: logProb(id) }));
}
