/** Rewrites put together: several edits of one model at once. */

import type { Node } from '../graph/index.ts';
import type { Patch } from './sites.ts';
import type { Rewrite } from './vlm.ts';

const after =
  <F extends (value: Node) => Node>(first: F | undefined, second: F) =>
  (value: Node): Node =>
    second(first === undefined ? value : first(value));

/**
 * One rewrite that applies the given ones in their order: at a site or weight that several rewrite, each sees what the one before made.
 * @throws Error when two read an input of the same name, and so would read each other's tensors
 */
export function chainRewrites(rewrites: readonly Rewrite[]): Rewrite {
  const feeds = new Map<string, Rewrite['feeds'][string]>();
  const replace = new Map<string, (weight: Node) => Node>();
  for (const rewrite of rewrites) {
    for (const [name, tensor] of Object.entries(rewrite.feeds)) {
      if (feeds.has(name)) throw new Error(`two rewrites of one chain read the input ${name}`);
      feeds.set(name, tensor);
    }
    for (const [name, change] of rewrite.replace) replace.set(name, after(replace.get(name), change));
  }
  const chained = (of: (rewrite: Rewrite) => ReadonlyMap<string, Patch> | undefined): Map<string, Patch> => {
    const patches = new Map<string, Patch>();
    for (const rewrite of rewrites) {
      for (const [site, patch] of of(rewrite) ?? []) patches.set(site, after(patches.get(site), patch));
    }
    return patches;
  };
  return {
    key: rewrites.map((r) => r.key).join('>'),
    patches: (image) => chained((r) => r.patches(image)),
    ...(rewrites.some((r) => r.steps !== undefined) ? { steps: () => chained((r) => r.steps?.()) } : {}),
    replace,
    feeds: Object.fromEntries(feeds),
  };
}
