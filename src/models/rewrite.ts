/** Rewrites of a model's programs: what an edit is to the model. */

import type { Node } from '../graph/index.ts';
import type { Feeds } from '../runtime/program.ts';
import { identityOf } from './identity.ts';
import type { Patch } from './sites.ts';

/** Functions at named sites and of named weights. */
export interface Changes {
  /** @param image whether the program's inputs have pictures */
  patches?(image: boolean): ReadonlyMap<string, Patch>;
  /** patches that act on generated tokens too, one at a time; absent: activation patches act where the prompt is read */
  steps?(): ReadonlyMap<string, Patch>;
  readonly replace?: ReadonlyMap<string, (weight: Node) => Node>;
}

/** A rewrite of the model's program: its changes, and the tensors that they read. Make one with `defineRewrite`. */
export interface Rewrite {
  /** equal for equal changes, whatever their tensors: such rewrites share their programs */
  readonly key: string;
  patches(image: boolean): ReadonlyMap<string, Patch>;
  steps?(): ReadonlyMap<string, Patch>;
  readonly replace: ReadonlyMap<string, (weight: Node) => Node>;
  readonly feeds: Feeds;
}

/**
 * A kind of rewrite.
 * @param change the changes for a structure; they depend on nothing else, so that equal structures share one compiled program
 * @returns makes a rewrite of a structure (plain data) and the tensors that its changes read
 */
export function defineRewrite<S>(change: (structure: S) => Changes): (structure: S, feeds: Feeds) => Rewrite {
  return (structure, feeds) => {
    const made = change(structure);
    return {
      patches: () => new Map(),
      replace: new Map(),
      ...made,
      key: `${identityOf(change)}${JSON.stringify(structure)}`,
      feeds,
    };
  };
}

/** One function of a value after another, both told the same. */
const after =
  <A extends unknown[]>(first: ((value: Node, ...told: A) => Node) | undefined, second: (value: Node, ...told: A) => Node) =>
  (value: Node, ...told: A): Node =>
    second(first === undefined ? value : first(value, ...told), ...told);

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
