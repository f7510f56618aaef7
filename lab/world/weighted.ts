import type { Random } from '../../src/random.ts';

/** A draw with chances in proportion to the weights. */
export function pickWeighted<K extends string>(random: Random, weights: Readonly<Partial<Record<K, number>>>): K {
  const entries = Object.entries(weights) as [K, number][];
  let u = random.uniform() * entries.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [item, weight] of entries) {
    u -= weight;
    if (u < 0) return item;
  }
  throw new Error(`nothing to draw: the weights of ${entries.map(([item]) => item).join(', ')} add up to zero`);
}
