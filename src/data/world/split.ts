/**
 * Which edits of the mini world are for training and which for testing, by seeded hashes: scenes, pairs of template and concept,
 * and, for corrections, concepts. Which misnamed concepts are corrected in which split comes from the world itself. Those corrected in the
 * test are met in training by counterfactuals, under other templates: an editor can only give an answer whose word it has seen.
 */
import { hash128, Random } from '../../random.ts';
import { concept, type Split } from './concepts.ts';
import { templateCount, templates } from './questions.ts';
import { type Scene, sceneKey } from './scene.ts';

export const testShare = 0.25;
export type TemplateKey = keyof typeof templates;

/** Kinds whose questions and answers name no concept: whole templates are split. */
const withoutConcepts: readonly TemplateKey[] = ['background', 'kind', 'things', 'caption'];

export class EditSplitter {
  readonly #seed: string;
  readonly #testTemplates = new Map<TemplateKey, ReadonlySet<number>>();
  readonly #fitting = new Map<string, readonly number[]>();

  constructor(seed: string | number) {
    this.#seed = `${seed}/split`;
    // Two of eight templates are for testing; of plain concepts, pairs are drawn one by one.
    for (const key of Object.keys(templates) as TemplateKey[]) {
      const order = new Random(`${this.#seed}/templates/${key}`).shuffle(Array.from({ length: templateCount }, (_, i) => i));
      this.#testTemplates.set(key, new Set(order.slice(0, templateCount * testShare)));
    }
  }

  #byHash(label: string): Split {
    return (hash128(`${this.#seed}/${label}`)[0] >>> 0) / 2 ** 32 < testShare ? 'test' : 'train';
  }

  scene(scene: Scene): Split {
    return this.#byHash(`scene/${sceneKey(scene)}`);
  }

  /** The split of a pair of template and concept. */
  pair(key: TemplateKey, template: number, index: number): Split {
    const { misnamed, word } = concept(index);
    if (misnamed) return misnamed.split === 'test' && this.#testTemplates.get(key)!.has(template) ? 'test' : 'train';
    return this.#byHash(`pair/${key}/${template}/${word}`);
  }

  /** Whose corrections may name this concept. */
  correction(index: number): Split {
    const { misnamed, word } = concept(index);
    return misnamed ? misnamed.split : this.#byHash(`correction/${word}`);
  }

  /** Templates in which a question that names these concepts (in question, answer or target) belongs to the split. */
  templates(split: Split, key: TemplateKey, named: readonly number[]): readonly number[] {
    const whole = withoutConcepts.includes(key) ? this.#testTemplates.get(key) : undefined;
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
