/**
 * Sites: the named places of a model. A program may read any site as an output and may replace any site by a function of its
 * value; nothing is monkey-patched, and the unedited program still exists. Names: `layers.{i}.attn.in`, `layers.{i}.attn.out`,
 * `layers.{i}.mlp.out`, `layers.{i}.out`, `visual`, `logits`, ... A patch may also change `layers.{i}.attn.bias` [b, kinds, l, keys], which no program reads.
 */

import type { Node } from '../graph/node.ts';
import type { Spans } from './spans.ts';

/** What stands at a site [b, l, d] instead of its value. `spans`: where the inputs' visual tokens are; given where the inputs have pictures. */
export type Patch = (value: Node, spans?: Spans) => Node;

/** The sites of one program as it is built: what patches make of them, and their values by name. */
export class Sites {
  readonly #values = new Map<string, Node>();
  readonly #patches: ReadonlyMap<string, Patch>;
  readonly #spans: Spans | undefined;

  constructor(patches: ReadonlyMap<string, Patch> = new Map(), spans?: Spans) {
    this.#patches = patches;
    this.#spans = spans;
  }

  /** Declares a site and returns the value that the model goes on with. */
  site(name: string, value: Node): Node {
    if (this.#values.has(name)) throw new Error(`site ${name} is declared twice`);
    const used = this.#patches.get(name)?.(value, this.#spans) ?? value;
    this.#values.set(name, used);
    return used;
  }

  /** What patches make of a value that is no site: programs do not read it. */
  change(name: string, value: Node): Node {
    return this.#patches.get(name)?.(value, this.#spans) ?? value;
  }

  names(): string[] {
    return [...this.#values.keys()];
  }

  /** @throws Error with near names when there is no such site */
  get(name: string): Node {
    const node = this.#values.get(name);
    if (node === undefined) throw new Error(`there is no site ${name}; sites here: ${this.names().join(', ')}`);
    return node;
  }
}
