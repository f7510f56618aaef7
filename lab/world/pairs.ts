/**
 * Questions about two pictures: which of them shows a thing, or has a background. The pictures are called by their numbers in the order in which
 * they are given, with words that the minis' vocabulary has.
 */

import { answerCue } from '../../src/input/records.ts';
import { Random } from '../../src/random.ts';
import type { Atlas } from './atlas.ts';
import { colors, concept, plainConcepts, withArticle } from './concepts.ts';
import type { Lesson } from './lessons.ts';
import { countOf, present } from './questions.ts';
import { render, type Scene, type Shape, sampleScene, squareShape } from './scene.ts';

/** Two scenes, the first picture's and the second's. */
export type ScenePair = readonly [Scene, Scene];

export const pairKinds = ['thing', 'background'] as const;
export type PairKind = (typeof pairKinds)[number];

export interface PairQuestion {
  readonly kind: PairKind;
  /** full text, the cue for the answer included */
  readonly prompt: string;
  /** the picture's number in words */
  readonly answer: string;
  /** that of the other picture */
  readonly other: string;
}

/** Slot: {what}, a name or a background with its article. */
export const pairTemplates: readonly string[] = [
  'Which picture has {what}?',
  'Which picture shows {what}?',
  'In which picture is {what}?',
  'In which picture do you see {what}?',
  'In which picture is there {what}?',
  'In which picture can {what} be seen?',
  'In which picture can you see {what}?',
  'In which picture does {what} appear?',
];

/** What pictures are called, in the order in which they are given. */
export const pictureNumbers = ['one', 'two'] as const;

/** What only one of two pictures shows; undefined where nothing of the kind tells them apart. @param pool of the things that are asked for */
export function pairQuestion(
  random: Random,
  scenes: ScenePair,
  kind: PairKind,
  pool?: ReadonlySet<number>,
): PairQuestion | undefined {
  const shown = random.int(2);
  const [own, other] = [scenes[shown]!, scenes[1 - shown]!];
  const found =
    kind === 'background'
      ? own.background === other.background
        ? []
        : [`${colors[own.background]!.name} background`]
      : present(own)
          .filter((index) => countOf(other, index) === 0 && (pool?.has(index) ?? true))
          .map((index) => concept(index).word);
  if (found.length === 0) return undefined;
  const text = random.pick(pairTemplates).replace('{what}', withArticle(random.pick(found)));
  return { kind, prompt: text + answerCue, answer: pictureNumbers[shown]!, other: pictureNumbers[1 - shown]! };
}

/** Lessons about two pictures. @param backgrounds share of those about backgrounds */
export function pairLessons(random: Random, scenes: ScenePair, count: number, backgrounds = 0.25): Lesson[] {
  const lessons: Lesson[] = [];
  for (let i = 0; i < count; i++) {
    const asked = pairQuestion(random, scenes, random.uniform() < 1 - backgrounds ? 'thing' : 'background');
    if (asked !== undefined) lessons.push({ kind: 'pair', prompt: asked.prompt, answer: asked.answer });
  }
  return lessons;
}

export interface ExamPair {
  readonly index: number;
  readonly scenes: ScenePair;
  /** height x width x 3 each */
  readonly images: readonly [Uint8Array, Uint8Array];
  readonly questions: readonly PairQuestion[];
}

/** Fresh pairs of scenes of things with their real names, with a question of each kind that fits. */
export function* examPairs(atlas: Atlas, seed: string | number, count: number, shape: Shape = squareShape): Generator<ExamPair> {
  const pool = new Set(plainConcepts);
  for (let index = 0; index < count; index++) {
    const random = new Random(`${seed}/exam-pairs/${index}`);
    const scenes: ScenePair = [sampleScene(random, { pool: plainConcepts }), sampleScene(random, { pool: plainConcepts })];
    const questions = pairKinds.flatMap((kind) => pairQuestion(random, scenes, kind, pool) ?? []);
    yield { index, scenes, images: [render(atlas, scenes[0], shape), render(atlas, scenes[1], shape)], questions };
  }
}
