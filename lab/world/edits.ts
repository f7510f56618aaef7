/**
 * Edits of the mini world. A draft is one thing to teach: a question on a scene, the answer that the world taught (`pred`)
 * and the one that an edit asks for (`alt`): a correction gives a misnamed thing its real name, a counterfactual another answer of the same set.
 */
import { Random } from '../../src/random.ts';
import {
  allConcepts,
  categories,
  colors,
  concept,
  misnamedConcepts,
  numbers,
  places,
  plainConcepts,
  type Split,
  sides,
} from './concepts.ts';
import { answerTo, caption, cellOf, countOf, type Question, type QuestionKind, templateKey } from './questions.ts';
import { cellCount, restyle, type Scene, type SceneOptions, sampleCount, sampleScene } from './scene.ts';
import type { EditSplitter } from './split.ts';
import { pickWeighted } from './weighted.ts';

export type EditKind = 'correction' | 'counterfactual';

export interface EditDraft {
  readonly kind: QuestionKind;
  readonly edit: EditKind;
  readonly question: Question;
  /** Template of the request, and of its paraphrase. */
  readonly template: number;
  readonly rephrase: number;
  readonly scene: Scene;
  /** The same content in another art style. */
  readonly restyled: Scene;
  readonly pred: string;
  readonly alt: string;
  /** Concepts that the edit is about: what it asks for, shows as the answer, and puts in its place. */
  readonly touched: readonly number[];
}

/**
 * Shares of the kinds among VQA edits. Counts and places are rare: minis match a name against the picture in their first layer, so that no
 * edit of the picture's states after it changes such an answer.
 */
const kindShares: Partial<Record<QuestionKind, number>> = {
  place: 0.4,
  relation: 0.22,
  category: 0.2,
  background: 0.1,
  count: 0.01,
  where: 0.01,
  kind: 0.06,
};
/** Corrections are only of place, relation and category, four fifths of all: a third of these makes a quarter of all. */
const correctionRate = 1 / 3;
const captionCorrectionRate = 1 / 4;
/** Of hard worlds: kinds whose answer is a thing's name, which two words can take the place of. */
const hardShares: Partial<Record<QuestionKind, number>> = { place: 0.48, relation: 0.27, category: 0.25 };
/** How often a counterfactual names a misnamed concept in one of its roles. */
const misnamedRate = 1 / 3;
const tries = 20000;

interface Plan {
  readonly question: Question;
  readonly scene: SceneOptions;
  readonly alt: string | ((scene: Scene) => string);
  /** Concepts named in question, answer or alt. */
  readonly named: readonly number[];
  readonly touched: readonly number[];
}

export class EditSampler {
  /**
   * @param hard targets are a colour and a name, "pink parrot", which is no answer anywhere else, and captions give every thing such a name and the
   * background another colour
   */
  constructor(
    readonly splitter: EditSplitter,
    readonly split: Split,
    readonly hard = false,
  ) {}

  /** Edit `index` of a data set: a function of the seed, the split and the index. */
  vqa(seed: string | number, index: number): EditDraft {
    const random = new Random(`${seed}/edit/vqa/${this.split}/${index}`);
    const kind = pickWeighted(random, this.hard ? hardShares : kindShares);
    const correctable = !this.hard && (kind === 'place' || kind === 'relation' || kind === 'category');
    const edit = correctable && random.uniform() < correctionRate ? 'correction' : 'counterfactual';
    return this.#draft(random, kind, edit);
  }

  caption(seed: string | number, index: number): EditDraft {
    const random = new Random(`${seed}/edit/caption/${this.split}/${index}`);
    const edit = !this.hard && random.uniform() < captionCorrectionRate ? 'correction' : 'counterfactual';
    return this.#draft(random, 'caption', edit);
  }

  #draft(random: Random, kind: QuestionKind, edit: EditKind): EditDraft {
    // Which roles misnamed concepts play is drawn once: they fit more templates than others, so redrawing would favour them.
    const roles = [0, 1, 2].map(() => edit === 'counterfactual' && random.uniform() < misnamedRate);
    // Long captions of two-word names would be another task.
    const count = this.hard && kind === 'caption' ? 1 + random.int(2) : sampleCount(random);
    for (let attempt = 0; attempt < tries; attempt++) {
      const plan = this.#plan(random, kind, edit, roles, count);
      const fitting = plan && this.splitter.templates(this.split, templateKey(plan.question), plan.named);
      if (!plan || !fitting || fitting.length < 2) continue;
      const scene = this.scene(random, plan.scene);
      if (!scene) continue;
      const pred = answerTo(scene, plan.question);
      if (pred === undefined) continue;
      const alt = typeof plan.alt === 'string' ? plan.alt : plan.alt(scene);
      if (alt === pred) continue;
      const [template, rephrase] = random.shuffle(fitting);
      const restyled = restyle(random, scene);
      return {
        kind,
        edit,
        question: plan.question,
        template: template!,
        rephrase: rephrase!,
        scene,
        restyled,
        pred,
        alt,
        touched: plan.touched,
      };
    }
    throw new Error(`no ${this.split} edit of kind "${kind}" (${edit}) found in ${tries} tries: choose another seed`);
  }

  /** A scene of this split, or undefined where the options leave too few. */
  scene(random: Random, options: SceneOptions): Scene | undefined {
    for (let attempt = 0; attempt < 64; attempt++) {
      const scene = sampleScene(random, options);
      if (this.splitter.scene(scene) === this.split) return scene;
    }
    return undefined;
  }

  /** A concept for one role: a misnamed one, or a plain one. Training meets all misnamed concepts, but corrects only its own. */
  #concept(
    random: Random,
    misnamed: boolean,
    allowed: (index: number) => boolean = () => true,
    corrected = false,
  ): number | undefined {
    const met = [...misnamedConcepts(this.split), ...(this.split === 'train' && !corrected ? misnamedConcepts('test') : [])];
    const wrong = misnamed ? met.filter(allowed) : [];
    const pool = wrong.length > 0 ? wrong : plainConcepts.filter(allowed);
    return pool.length > 0 ? random.pick(pool) : undefined;
  }

  #plan(random: Random, kind: QuestionKind, edit: EditKind, roles: readonly boolean[], count: number): Plan | undefined {
    switch (kind) {
      case 'place':
      case 'relation':
      case 'category':
      case 'caption':
        return this.#renaming(random, kind, edit, roles, count);
      case 'where': {
        const index = this.#concept(random, roles[0]!)!;
        const cell = random.int(cellCount);
        return {
          question: { kind, concept: index },
          scene: { count, fixed: [{ cell, concept: index }], once: [index] },
          alt: random.pick(places.filter((place) => place !== places[cell])),
          named: [index],
          touched: [index],
        };
      }
      case 'count': {
        if (random.uniform() < 0.2) return this.#counting(random, { kind, concept: 'things' }, { count }, []);
        const index = this.#concept(random, roles[0]!)!;
        const fixed = random.uniform() < 0.8 ? [{ cell: random.int(cellCount), concept: index }] : [];
        return this.#counting(random, { kind, concept: index }, { count, fixed }, [index]);
      }
      case 'background': {
        const background = random.int(colors.length);
        const alt = random.pick(colors.filter((_, i) => i !== background)).name;
        return { question: { kind }, scene: { count, background }, alt, named: [], touched: [] };
      }
      case 'kind': {
        const cell = random.int(cellCount);
        const index = random.pick(allConcepts);
        const alt = random.pick(categories.filter((category) => category !== concept(index).category));
        return {
          question: { kind, cell },
          scene: { count, fixed: [{ cell, concept: index }] },
          alt,
          named: [],
          touched: [index],
        };
      }
      case 'exists':
        throw new Error('there are no edits of kind "exists"');
    }
  }

  /** A colour and the concept's word, of this split; undefined where the other has all of them. */
  #twoWords(random: Random, index: number): string | undefined {
    const pairs = colors.map(({ name }) => `${name} ${concept(index).word}`);
    const own = pairs.filter((pair) => this.splitter.target(pair) === this.split);
    return own.length === 0 ? undefined : random.pick(own);
  }

  #hardCaption(random: Random, scene: Scene): string {
    const words = new Map<number, string>();
    scene.cells.forEach((thing, cell) => {
      if (thing === null) return;
      const names = plainConcepts.filter((index) => index !== thing.concept);
      let word: string | undefined;
      while (word === undefined) word = this.#twoWords(random, random.pick(names));
      words.set(cell, word);
    });
    return caption(scene, words, random.pick(colors.filter((_, i) => i !== scene.background)).name);
  }

  #counting(random: Random, question: Question & { kind: 'count' }, scene: SceneOptions, named: readonly number[]): Plan {
    const alt = (drawn: Scene): string => random.pick(numbers.filter((_, i) => i !== countOf(drawn, question.concept)));
    return { question, scene, alt, named, touched: named };
  }

  /** One thing gets another name. */
  #renaming(
    random: Random,
    kind: 'place' | 'relation' | 'category' | 'caption',
    edit: EditKind,
    roles: readonly boolean[],
    count: number,
  ): Plan | undefined {
    const correction = edit === 'correction';
    const answer = this.#concept(random, correction || roles[0]!, undefined, correction)!;
    const { category, misnamed } = concept(answer);
    const partner = misnamed?.partner;
    const alt = correction
      ? partner
      : this.#concept(
          random,
          roles[1]!,
          (i) => i !== answer && i !== partner && (kind !== 'category' || concept(i).category === category),
        );
    if (alt === undefined) return undefined;
    const target = this.hard ? this.#twoWords(random, alt) : concept(alt).word;
    if (target === undefined) return undefined;
    const others = allConcepts.filter((i) => i !== alt);
    const touched = [answer, alt];
    const cell = random.int(cellCount);
    switch (kind) {
      case 'place':
        return {
          question: { kind, cell },
          scene: { count, pool: others, fixed: [{ cell, concept: answer }] },
          alt: target,
          named: touched,
          touched,
        };
      case 'category':
        return {
          question: { kind, category },
          scene: { count, pool: others.filter((i) => concept(i).category !== category), fixed: [{ cell, concept: answer }] },
          alt: target,
          named: touched,
          touched,
        };
      case 'relation': {
        const side = random.int(sides.length);
        const { step, from } = sides[side]!;
        const anchor = this.#concept(
          random,
          roles[2]!,
          (i) => i !== answer && i !== alt && (!correction || this.splitter.correction(i) === this.split),
        );
        if (anchor === undefined) return undefined;
        const at = random.pick<number>(from);
        const fixed = [
          { cell: at, concept: anchor },
          { cell: at + step, concept: answer },
        ];
        return {
          question: { kind, side, concept: anchor },
          scene: { count, pool: others, fixed, once: [anchor] },
          alt: target,
          named: [anchor, ...touched],
          touched: [anchor, ...touched],
        };
      }
      case 'caption': {
        // A caption names everything in the scene: nothing there may belong to the other split.
        const pool = others.filter((i) =>
          correction ? this.splitter.correction(i) === this.split : (concept(i).misnamed?.split ?? this.split) === this.split,
        );
        return {
          question: { kind },
          scene: { count, pool, fixed: [{ cell, concept: answer }], once: [answer] },
          alt: (scene) =>
            this.hard ? this.#hardCaption(random, scene) : caption(scene, new Map([[cellOf(scene, answer)!, target]])),
          named: touched,
          touched,
        };
      }
    }
  }
}

/** Whether an edit leaves the answer to another question on the same scene as it was. */
export function untouched(draft: EditDraft, question: Question): boolean {
  if (question.kind === 'caption' || question.kind === draft.kind) {
    if (!('cell' in question || 'concept' in question || 'category' in question)) return false;
    if (JSON.stringify(question) === JSON.stringify(draft.question)) return false;
  }
  const words = draft.touched.map((index) => concept(index).word);
  if ('concept' in question && question.concept !== 'things' && draft.touched.includes(question.concept)) return false;
  if (question.kind === 'count' && draft.kind === 'count') return false;
  if ('cell' in question) {
    const thing = draft.scene.cells[question.cell];
    if (thing && draft.touched.includes(thing.concept)) return false;
  }
  if (question.kind === 'category' && draft.touched.some((index) => concept(index).category === question.category)) return false;
  return !words.includes(answerTo(draft.scene, question) ?? '');
}
