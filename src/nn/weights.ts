/** The weights of a model as graph nodes: one node per name, each replaceable, so that an edit of a weight is a function of a node. */

import { type Node, parameter } from '../graph/node.ts';

/** A change of a matrix W [out, in] by factors, W + left · right; with rows of their own where the inputs are under changes of their own. */
export interface LowRank {
  /** [b, out, r] */
  readonly left: Node;
  /** [b, r, in] */
  readonly right: Node;
}

/** The weights of one program as it is built, and rewrites of them. */
export class Weights {
  readonly #nodes = new Map<string, Node>();
  readonly #replace: ReadonlyMap<string, (weight: Node) => Node>;
  /** changes by factors, which `linear` adds to the product: no changed matrix is ever formed */
  readonly lowRank: ReadonlyMap<string, LowRank>;

  /** @param replace rewrites of named weights (a weight edit); a name that the model never reads is refused by `check` */
  constructor(
    replace: ReadonlyMap<string, (weight: Node) => Node> = new Map(),
    lowRank: ReadonlyMap<string, LowRank> = new Map(),
  ) {
    this.#replace = replace;
    this.lowRank = lowRank;
  }

  get(name: string, shape: readonly number[]): Node {
    let node = this.#nodes.get(name);
    if (node === undefined) {
      const stored = parameter(name, shape);
      node = this.#replace.get(name)?.(stored) ?? stored;
      this.#nodes.set(name, node);
    }
    return node;
  }

  /** Gives a name its node: a weight that is a value of the run instead of a parameter. */
  bind(name: string, node: Node): void {
    this.#nodes.set(name, node);
  }

  /** The nodes read so far, by name. */
  entries(): ReadonlyMap<string, Node> {
    return this.#nodes;
  }
}
