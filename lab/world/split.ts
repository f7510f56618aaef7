/**
 * Which edits of the mini world are for training and which for testing, by hashes of their content: scenes, pairs of template and concept,
 * the two-word targets of hard worlds, facts of hard worlds and, for corrections, concepts. The hash is the same in every world, so what one world
 * trains on is in no other world's test. It is that of the world with seed 1, which the weights that come with the minis were trained on.
 * Which misnamed concepts are corrected in which split comes from the world itself. Those corrected in the
 * test are met in training by counterfactuals, under other templates: an editor can only give an answer whose word it has seen.
 */
import { hash128, Random } from '../../src/random.ts';
import { concept, type Split } from './concepts.ts';
import { templateCount, templates } from './questions.ts';
import { type Scene, sceneKey } from './scene.ts';

const testShare = 0.25;
export type TemplateKey = keyof typeof templates;

/** Kinds whose questions and answers name no concept: whole templates are split. */
const withoutConcepts: readonly TemplateKey[] = ['background', 'kind', 'things', 'caption'];

/** What a world's hashes depend on: its content alone, or its seed too, as in worlds of version 1. */
export type SplitKind = 'content' | 'seed';

/** The seed whose split all worlds have. */
const contentSeed = 1;

export class EditSplitter {
  readonly #seed: string;
  /** by kind of question, two pairs of templates: a concept is tested under the pair of its group, and trained under all others */
  readonly #testTemplates = new Map<TemplateKey, readonly [ReadonlySet<number>, ReadonlySet<number>]>();
  readonly #fitting = new Map<string, readonly number[]>();

  /** @param seed of a world of version 1; the split by content when absent */
  constructor(seed: string | number = contentSeed) {
    this.#seed = `${seed}/split`;
    const size = templateCount * testShare;
    for (const key of Object.keys(templates) as TemplateKey[]) {
      const order = new Random(`${this.#seed}/templates/${key}`).shuffle(Array.from({ length: templateCount }, (_, i) => i));
      this.#testTemplates.set(key, [new Set(order.slice(0, size)), new Set(order.slice(size, 2 * size))]);
    }
  }

  #byHash(label: string): Split {
    return (hash128(`${this.#seed}/${label}`)[0] >>> 0) / 2 ** 32 < testShare ? 'test' : 'train';
  }

  scene(scene: Scene): Split {
    return this.#byHash(`scene/${sceneKey(scene)}`);
  }

  /** The split of a target of two words. */
  target(text: string): Split {
    return this.#byHash(`target/${text}`);
  }

  /** The split of a text-only question, in hard worlds. */
  fact(question: string): Split {
    return this.#byHash(`fact/${question}`);
  }

  /**
   * The split of a pair of template and concept. Concepts come in two groups, so that any that are named together have templates in common
   * when they are of one group.
   */
  pair(key: TemplateKey, template: number, index: number): Split {
    const { misnamed, word } = concept(index);
    if (misnamed?.split === 'train') return 'train';
    const name = misnamed ? [word, concept(misnamed.partner).word].sort().join() : word;
    const group = hash128(`${this.#seed}/group/${name}`)[0] & 1;
    return this.#testTemplates.get(key)![group as 0 | 1].has(template) ? 'test' : 'train';
  }

  /** Whose corrections may name this concept. */
  correction(index: number): Split {
    const { misnamed, word } = concept(index);
    return misnamed ? misnamed.split : this.#byHash(`correction/${word}`);
  }

  /** Templates in which a question that names these concepts (in question, answer or target) belongs to the split. */
  templates(split: Split, key: TemplateKey, named: readonly number[]): readonly number[] {
    const whole = withoutConcepts.includes(key) ? this.#testTemplates.get(key)![0] : undefined;
    const label = `${split}/${key}/${whole ? '' : named.join()}`;
    let fitting = this.#fitting.get(label);
    if (!fitting) {
      fitting = Array.from({ length: templateCount }, (_, i) => i).filter((template) =>
        whole
          ? whole.has(template) === (split === 'test')
          : named.every((index) => this.#one(split, key, index).includes(template)),
      );
      if (named.length < 2 || whole) this.#fitting.set(label, fitting);
    }
    return fitting;
  }

  #one(split: Split, key: TemplateKey, index: number): readonly number[] {
    const label = `${split}/${key}/${index}`;
    let fitting = this.#fitting.get(label);
    if (!fitting) {
      fitting = Array.from({ length: templateCount }, (_, i) => i).filter((t) => this.pair(key, t, index) === split);
      this.#fitting.set(label, fitting);
    }
    return fitting;
  }
}
