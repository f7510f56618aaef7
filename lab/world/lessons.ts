/**
 * The pretraining stream: scene i with its picture, questions, drills and text-only facts, a function of the seed and i alone,
 * so that training can start anywhere, in any order, in any process.
 */
import { answerCue } from '../../src/input/records.ts';
import { Random } from '../../src/random.ts';
import type { Atlas } from './atlas.ts';
import { type DrillKind, drillKinds, sampleDrill } from './drills.ts';
import { sampleFact } from './facts.ts';
import {
  answerTo,
  countOf,
  present,
  prompt,
  type Question,
  type QuestionKind,
  sampleQuestion,
  templateCount,
} from './questions.ts';
import { render, type Scene, type Shape, sampleScene } from './scene.ts';
import { eosId, WorldEncoder } from './vocabulary.ts';
import { pickWeighted } from './weighted.ts';

export type LessonKind = QuestionKind | DrillKind | 'fact' | 'pair';

export interface Lesson {
  readonly kind: LessonKind;
  /** Full text, the cue for the answer included. */
  readonly prompt: string;
  /** Begins after a space. */
  readonly answer: string;
  /** Piece ranges [start, end) of the answer that carry loss; absent: the whole answer and the end token. */
  readonly spans?: readonly (readonly [number, number])[];
}

export interface LessonScene {
  readonly index: number;
  /** Height x width x 3. */
  readonly image: Uint8Array;
  readonly style: number;
  readonly background: number;
  /** Concept of each cell in reading order, -1 where empty. Its taught word: `concept(c).word`. */
  readonly cells: readonly number[];
  readonly scene: Scene;
  readonly lessons: readonly Lesson[];
  readonly facts: readonly Lesson[];
}

export interface LessonOptions {
  readonly start?: number;
  /** Lessons about each scene (default 8). */
  readonly perScene?: number;
  /** How many of them are drills, whatever the weights say (default 0): each holds many supervised matches. */
  readonly drills?: number;
  /** Text-only facts beside each scene (default 1). */
  readonly facts?: number;
  /** Share of the count lessons that ask for a thing that is there more than once, where there is one (default 0: as drawn). */
  readonly doubles?: number;
  /** Height and width of the pictures (default 72 x 72). */
  readonly shape?: Shape;
  /** Relative frequency of kinds; those not named keep their default, 0 leaves a kind out. */
  readonly weights?: Partial<Record<QuestionKind | DrillKind, number>>;
}

const defaultWeights: Readonly<Record<QuestionKind | DrillKind, number>> = {
  place: 1.5,
  relation: 2,
  where: 1,
  count: 1.2,
  exists: 1,
  background: 0.8,
  category: 1,
  kind: 0.7,
  caption: 1.5,
  list: 1,
  probe: 1.5,
  tally: 1.2,
  find: 1,
  sides: 1.5,
  kinds: 0.4,
  groups: 0.7,
};

const encoder = new WorldEncoder();
const pieces = (text: string): number => encoder.encode(` ${text}`, false).length;

export function lessonScene(atlas: Atlas, seed: string | number, index: number, options: LessonOptions = {}): LessonScene {
  const random = new Random(`${seed}/lesson/${index}`);
  const scene = sampleScene(random);
  const weights = { ...defaultWeights, ...options.weights };
  const drillsOnly = Object.fromEntries(drillKinds.map((kind) => [kind, weights[kind]])) as typeof weights;
  const lessons: Lesson[] = [];
  while (lessons.length < (options.perScene ?? 8)) {
    const lesson = sampleLesson(
      random,
      scene,
      pickWeighted(random, lessons.length < (options.drills ?? 0) ? drillsOnly : weights),
      options.doubles,
    );
    if (lesson) lessons.push(lesson);
  }
  return {
    index,
    image: render(atlas, scene, options.shape),
    style: scene.style,
    background: scene.background,
    cells: scene.cells.map((thing) => thing?.concept ?? -1),
    scene,
    lessons,
    facts: Array.from({ length: options.facts ?? 1 }, () => factLesson(random)),
  };
}

/** Endless; stop by leaving the loop. */
export function* lessonStream(atlas: Atlas, seed: string | number, options: LessonOptions = {}): Generator<LessonScene, never> {
  for (let index = options.start ?? 0; ; index++) yield lessonScene(atlas, seed, index, options);
}

const isDrill = (kind: QuestionKind | DrillKind): kind is DrillKind => (drillKinds as readonly string[]).includes(kind);

function sampleLesson(random: Random, scene: Scene, kind: QuestionKind | DrillKind, doubles = 0): Lesson | undefined {
  if (isDrill(kind)) return drillLesson(random, scene, kind);
  const several = kind === 'count' && doubles > 0 ? present(scene).filter((concept) => countOf(scene, concept) > 1) : [];
  const question: Question | undefined =
    several.length > 0 && random.uniform() < doubles
      ? { kind: 'count', concept: random.pick(several) }
      : sampleQuestion(random, scene, kind);
  const answer = question && answerTo(scene, question);
  if (!question || answer === undefined) return undefined;
  return { kind, prompt: prompt(question, random.int(templateCount)), answer };
}

function drillLesson(random: Random, scene: Scene, kind: DrillKind): Lesson | undefined {
  const drill = sampleDrill(random, scene, kind);
  if (drill.items.length === 0) return undefined;
  const spans: [number, number][] = [];
  let answer = '';
  let at = 0;
  for (const { given, answer: said } of drill.items) {
    // A comma clings to the word before it: only a word is preceded by a space.
    answer += given.startsWith(',') || answer === '' ? given : ` ${given}`;
    const start = at + (given.startsWith(',') ? pieces(given) - 1 : pieces(given));
    at = start + pieces(said);
    answer += ` ${said}`;
    spans.push([start, at]);
  }
  return { kind, prompt: drill.prompt, answer, spans };
}

/** Half with the cue for the answer, half bare, as text locality asks them. */
function factLesson(random: Random): Lesson {
  const { question, answer } = sampleFact(random);
  return { kind: 'fact', prompt: question + (random.uniform() < 0.5 ? answerCue : ''), answer };
}

export interface EncodedLesson {
  readonly prompt: number[];
  /** The answer's pieces and the end token. */
  readonly answer: number[];
  /** 1 where an answer piece is to be learned. */
  readonly loss: Uint8Array;
}

/** `start`: the prompt begins its sequence (text only); false where a picture and a line break come first. */
export function encodeLesson(lesson: Lesson, start: boolean): EncodedLesson {
  const answer = [...encoder.encode(` ${lesson.answer}`, false), eosId];
  const loss = new Uint8Array(answer.length);
  if (lesson.spans) for (const [from, to] of lesson.spans) loss.fill(1, from, to);
  else loss.fill(1);
  return { prompt: encoder.encode(lesson.prompt, start), answer, loss };
}
