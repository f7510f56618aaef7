/**
 * Drafts to records: adds to each edit the pictures and questions that its locality is measured on,
 * and writes it with the field names of E-VQA and E-IC, plus `kind`, `edit`, `s_loc_*` and `q_loc*`, and in hard worlds `n_loc*` and `g_loc*`.
 */
import { Random } from '../../src/random.ts';
import { allConcepts, type Split, sides } from './concepts.ts';
import { type EditDraft, type EditKind, EditSampler, untouched } from './edits.ts';
import { type Fact, sampleFact } from './facts.ts';
import { answerTo, phrase, type Question, type QuestionKind, questionKinds, sampleQuestion, templateCount } from './questions.ts';
import { canvas, cellCount, type Scene, type SceneOptions, sceneKey } from './scene.ts';
import type { EditSplitter } from './split.ts';

export interface WorldRecord {
  src: string;
  pred: string;
  rephrase: string;
  alt: string;
  image: string;
  image_rephrase: string;
  loc: string;
  loc_ans: string;
  m_loc: string;
  m_loc_q: string;
  m_loc_a: string;
  kind: QuestionKind;
  edit: EditKind;
  /** The same picture, another question. */
  s_loc_q: string;
  s_loc_a: string;
  /** Another picture, the same question. */
  q_loc: string;
  q_loc_a: string;
  /** The same question about noise, and about a grey picture. They have no right answer; that to the edit's picture says how many tokens are compared. */
  n_loc?: string;
  n_loc_a?: string;
  g_loc?: string;
  g_loc_a?: string;
}

export interface Picture {
  readonly file: string;
  readonly scene: Scene;
}

export interface RecordSet {
  readonly records: readonly WorldRecord[];
  readonly drafts: readonly EditDraft[];
  /** In the order of the records; every file once. */
  readonly pictures: readonly Picture[];
}

/** A picture without a scene. */
export interface Blank {
  readonly file: string;
  readonly pixels: Uint8Array;
}

const noises = 64;
const greys = 16;
const blankFile = (what: 'noise' | 'grey', index: number): string => `${what}_${String(index).padStart(2, '0')}.png`;

/** The pictures that `n_loc` and `g_loc` ask about: the same in every world. */
export function blanks(): Blank[] {
  const size = canvas * canvas * 3;
  const noise = Array.from({ length: noises }, (_, i) => {
    const random = new Random(`blank/noise/${i}`);
    return { file: blankFile('noise', i), pixels: Uint8Array.from({ length: size }, () => random.int(256)) };
  });
  const grey = Array.from({ length: greys }, (_, i) => ({
    file: blankFile('grey', i),
    pixels: new Uint8Array(size).fill(Math.round((255 * i) / (greys - 1))),
  }));
  return [...noise, ...grey];
}

const askable = questionKinds.filter((kind) => kind !== 'caption');

/** The records of one data set; its pictures' file names begin with what it is. */
export function composeRecords(
  splitter: EditSplitter,
  seed: string | number,
  what: 'vqa' | 'caption',
  split: Split,
  count: number,
  hard = false,
): RecordSet {
  const sampler = new EditSampler(splitter, split, hard);
  const drafts = Array.from({ length: count }, (_, i) => sampler[what](seed, i));
  const file = (index: number, part: string): string => `${what}_${split}_${String(index).padStart(5, '0')}${part}.png`;
  const shown = drafts.flatMap((draft, i): Picture[] => [
    { file: file(i, ''), scene: draft.scene },
    { file: file(i, '_restyled'), scene: draft.restyled },
  ]);
  const extra: Picture[] = [];
  const records = drafts.map((draft, i): WorldRecord => {
    const random = new Random(`${seed}/locality/${what}/${split}/${i}`);
    const key = sceneKey(draft.scene);
    const another = (accept: (scene: Scene) => boolean, make: () => Scene): Picture => {
      for (let attempt = 0; attempt < 300; attempt++) {
        const picture = random.pick(shown);
        if (sceneKey(picture.scene) !== key && accept(picture.scene)) return picture;
      }
      const picture = { file: file(i, `_extra${extra.length}`), scene: make() };
      extra.push(picture);
      return picture;
    };
    const sameQuestion = (scene: Scene): boolean => {
      const answer = answerTo(scene, draft.question);
      return answer !== undefined && answer !== draft.alt;
    };
    const fresh = (accept: (scene: Scene) => boolean): Scene => freshScene(random, sampler, draft, accept);
    const other = another(
      () => true,
      () => fresh(() => true),
    );
    const alike = another(sameQuestion, () => fresh(sameQuestion));
    const elsewhere = askAnything(random, other.scene, () => true);
    const here = askAnything(random, draft.scene, (question) => untouched(draft, question));
    const fact = askFact(random, hard ? (question) => splitter.fact(question) === split : () => true);
    return {
      src: phrase(draft.question, draft.template),
      pred: draft.pred,
      rephrase: phrase(draft.question, draft.rephrase),
      alt: draft.alt,
      image: file(i, ''),
      image_rephrase: file(i, '_restyled'),
      loc: fact.question.replace(/\?$/, ''),
      loc_ans: fact.answer,
      m_loc: other.file,
      m_loc_q: elsewhere.text,
      m_loc_a: elsewhere.answer,
      kind: draft.kind,
      edit: draft.edit,
      s_loc_q: here.text,
      s_loc_a: here.answer,
      q_loc: alike.file,
      q_loc_a: answerTo(alike.scene, draft.question)!,
      ...(hard
        ? {
            n_loc: blankFile('noise', random.int(noises)),
            n_loc_a: draft.pred,
            g_loc: blankFile('grey', random.int(greys)),
            g_loc_a: draft.pred,
          }
        : {}),
    };
  });
  return { records, drafts, pictures: [...shown, ...extra] };
}

function askFact(random: Random, accept: (question: string) => boolean): Fact {
  for (;;) {
    const fact = sampleFact(random);
    if (accept(fact.question)) return fact;
  }
}

/** A question of any kind in any wording, that the scene answers. */
function askAnything(random: Random, scene: Scene, accept: (question: Question) => boolean): { text: string; answer: string } {
  for (let attempt = 0; attempt < 1000; attempt++) {
    const question = sampleQuestion(random, scene, random.pick(askable));
    const answer = question && answerTo(scene, question);
    if (question && answer !== undefined && accept(question))
      return { text: phrase(question, random.int(templateCount)), answer };
  }
  throw new Error(`no question fits the scene "${sceneKey(scene)}"`);
}

/** A scene of the split on which the draft's own question makes sense, other than the draft's. */
function freshScene(random: Random, sampler: EditSampler, draft: EditDraft, accept: (scene: Scene) => boolean): Scene {
  for (let attempt = 0; attempt < 10000; attempt++) {
    const scene = sampler.scene(random, standing(random, draft.question));
    if (scene && sceneKey(scene) !== sceneKey(draft.scene) && accept(scene)) return scene;
  }
  throw new Error(`no other scene fits the question "${phrase(draft.question, draft.template)}"`);
}

/** Puts what a question names where it can be asked for. */
function standing(random: Random, question: Question): SceneOptions {
  switch (question.kind) {
    case 'relation': {
      const { from, step } = sides[question.side]!;
      const cell = random.pick<number>(from);
      const beside = random.pick(allConcepts);
      return {
        fixed: [
          { cell, concept: question.concept },
          { cell: cell + step, concept: beside },
        ],
        once: [question.concept],
      };
    }
    case 'where':
      return { fixed: [{ cell: random.int(cellCount), concept: question.concept }], once: [question.concept] };
    default:
      return {};
  }
}
