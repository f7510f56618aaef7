/**
 * The exam of a mini backbone: fresh scenes without misnamed concepts, one question of every kind that fits, wording drawn anew;
 * and, apart, the kind `misnamed`: scenes with one misnamed concept, asked for its real name, which a pupil of this world does not know.
 */
import { answerCue } from '../../src/input/records.ts';
import { Random } from '../../src/random.ts';
import type { Atlas } from './atlas.ts';
import { concept, misnamedConcepts, plainConcepts } from './concepts.ts';
import { sampleFact } from './facts.ts';
import { answerTo, prompt, type QuestionKind, questionKinds, sampleQuestion, templateCount } from './questions.ts';
import { cellCount, render, type Scene, type Shape, sampleScene, squareShape } from './scene.ts';

export interface ExamQuestion {
  readonly kind: QuestionKind | 'misnamed' | 'fact';
  /** Full text, the cue for the answer included. */
  readonly prompt: string;
  readonly answer: string;
  /** Of a misnamed thing: what the world taught, and so the answer to expect. */
  readonly taught?: string;
}

export interface ExamScene {
  readonly index: number;
  readonly scene: Scene;
  /** height x width x 3 */
  readonly image: Uint8Array;
  readonly questions: readonly ExamQuestion[];
}

export function examScene(atlas: Atlas, seed: string | number, index: number, shape: Shape = squareShape): ExamScene {
  const random = new Random(`${seed}/exam/${index}`);
  const scene = sampleScene(random, { pool: plainConcepts });
  const questions: ExamQuestion[] = [];
  for (const kind of questionKinds) {
    const question = sampleQuestion(random, scene, kind, plainConcepts);
    const answer = question && answerTo(scene, question);
    if (question && answer !== undefined) questions.push({ kind, prompt: prompt(question, random.int(templateCount)), answer });
  }
  return { index, scene, image: render(atlas, scene, shape), questions };
}

/** `scenes` exam scenes, each with up to nine questions. */
export function* examQuestions(
  atlas: Atlas,
  seed: string | number,
  scenes: number,
  shape: Shape = squareShape,
): Generator<ExamScene> {
  for (let index = 0; index < scenes; index++) yield examScene(atlas, seed, index, shape);
}

/** Scenes with one misnamed thing; its place is asked for. */
export function* examMisnamed(
  atlas: Atlas,
  seed: string | number,
  scenes: number,
  shape: Shape = squareShape,
): Generator<ExamScene> {
  const wrong = [...misnamedConcepts('train'), ...misnamedConcepts('test')];
  for (let index = 0; index < scenes; index++) {
    const random = new Random(`${seed}/exam-misnamed/${index}`);
    const asked = concept(random.pick(wrong));
    const cell = random.int(cellCount);
    const scene = sampleScene(random, { pool: plainConcepts, fixed: [{ cell, concept: asked.index }], once: [asked.index] });
    const text = prompt({ kind: 'place', cell }, random.int(templateCount));
    yield {
      index,
      scene,
      image: render(atlas, scene, shape),
      questions: [{ kind: 'misnamed', prompt: text, answer: asked.name, taught: asked.word }],
    };
  }
}

/** Text-only questions, every second one without the cue. */
export function* examFacts(seed: string | number, count: number): Generator<ExamQuestion> {
  for (let index = 0; index < count; index++) {
    const { question, answer } = sampleFact(new Random(`${seed}/exam-fact/${index}`));
    yield { kind: 'fact', prompt: question + (index % 2 === 0 ? answerCue : ''), answer };
  }
}
