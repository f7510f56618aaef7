/** Names of keys and values that are kept between runs: of a prompt `past.{layer}.key`, `.value`, of the tokens generated since `recent.{layer}`. */

import { concat, type Node } from '../graph/index.ts';
import type { KeysAndValues } from './architecture.ts';
import type { Sites } from './sites.ts';

/** Of layers [from, to]. */
export const cacheNames = (kind: 'past' | 'recent', from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, i) => [`${kind}.${from + i}.key`, `${kind}.${from + i}.value`]).flat();

/** The site that holds what a name of the cache names: the layer's keys or values of its own tokens. */
export const siteOf = (name: string): string => name.replace(/^\w+\.(\d+)/, 'layers.$1.attn');

/** `recent.{layer}` with the layer's own tokens behind it. */
export function grown(recent: KeysAndValues, sites: Sites, layer: number): Record<string, Node> {
  const behind = (kind: 'key' | 'value'): Node => concat([recent[kind], sites.get(`layers.${layer}.attn.${kind}`)], 2);
  return { [`recent.${layer}.key`]: behind('key'), [`recent.${layer}.value`]: behind('value') };
}
