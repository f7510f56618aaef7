/** `world exam`: asks a model about fresh scenes, free greedy generation, and counts right answers per question kind. */

import type { Asked, RgbImage } from '../../src/input/segments.ts';
import { generateAll } from '../../src/models/answer.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Atlas } from '../world/atlas.ts';
import { type ExamQuestion, type ExamScene, examFacts, examMisnamed, examQuestions } from '../world/exam.ts';
import { examPairs } from '../world/pairs.ts';
import { type Shape, squareShape } from '../world/scene.ts';

/** What an exam found, as fractions of right answers. */
export interface ExamResult {
  /** share of right answers over all questions about pictures of taught concepts */
  overall: number;
  kinds: Record<string, number>;
  count: number;
  /** text-only facts */
  facts: number;
  /** misnamed concepts: share answered with the real name (which the world never taught), and with the taught one */
  misnamed: { real: number; taught: number };
  /** the same questions with the pictures of other scenes */
  shuffled?: Marks;
  /** questions about two pictures, and the same ones with the pictures in the other order, which call for the other answer */
  pairs?: { inOrder: Marks; swapped: Marks; count: number };
}

/** Shares of right answers. */
export interface Marks {
  overall: number;
  kinds: Record<string, number>;
}

/** A question as it is put to a model, and what counts as right. */
interface Put {
  readonly kind: string;
  readonly answer: string;
  readonly asked: Asked;
}

async function ask(vlm: Vlm, put: readonly Put[], onDone: (count: number) => void): Promise<string[]> {
  const answers: string[] = [];
  const size = 256;
  for (let at = 0; at < put.length; at += size) {
    const part = put.slice(at, at + size);
    const out = await generateAll(
      vlm,
      part.map(({ asked }) => asked),
      { maxNewTokens: 32 },
    );
    answers.push(...out.map((o) => o.text));
    onDone(part.length);
  }
  return answers;
}

function score(put: readonly Put[], answers: readonly string[]): Marks {
  const kinds = new Map<string, [number, number]>();
  let right = 0;
  put.forEach(({ kind, answer }, i) => {
    const hit = answers[i] === answer ? 1 : 0;
    right += hit;
    const [h, n] = kinds.get(kind) ?? [0, 0];
    kinds.set(kind, [h + hit, n + 1]);
  });
  return { overall: right / put.length, kinds: Object.fromEntries([...kinds].map(([kind, [h, n]]) => [kind, h / n])) };
}

const putOf = ({ kind, prompt, answer }: ExamQuestion, image?: RgbImage): Put => ({ kind, answer, asked: { prompt, image } });

/** Questions about the pairs of pictures, and about the same with the pictures in the other order. */
function pairsOf(atlas: Atlas, seed: string | number, count: number, shape: Shape): { inOrder: Put[]; swapped: Put[] } {
  const drawn = [...examPairs(atlas, seed, count, shape)];
  const [height, width] = shape;
  const put = (swap: boolean): Put[] =>
    drawn.flatMap(({ images, questions }) =>
      questions.map(({ kind, prompt, answer, other }) => {
        const shown = (swap ? [images[1], images[0]] : images).map((data) => ({ picture: { width, height, data } }));
        return { kind, answer: swap ? other : answer, asked: { prompt: [...shown, { text: prompt }] } };
      }),
    );
  return { inOrder: put(false), swapped: put(true) };
}

/** Asks a model about fresh scenes of the mini world: free greedy answers, compared word for word. */
export async function exam(
  vlm: Vlm,
  options: {
    seed: string | number;
    scenes: number;
    shuffled?: boolean;
    /** pairs of scenes that are asked about; 0 when left out */
    pairs?: number;
    /** height and width of the pictures; 72 x 72 when left out */
    shape?: Shape;
    onProgress?: (done: number, total: number) => void;
  },
): Promise<ExamResult> {
  const atlas = await Atlas.load();
  const { seed, scenes, shape = squareShape } = options;
  const [height, width] = shape;
  const picture = ({ image }: ExamScene): RgbImage => ({ width, height, data: image });
  const drawn = [...examQuestions(atlas, seed, scenes, shape)];
  const flat = (image: (i: number) => RgbImage): Put[] =>
    drawn
      .flatMap((scene, i) => scene.questions.map((question) => putOf(question, image(i))))
      .sort((a, b) => (a.kind < b.kind ? -1 : a.kind > b.kind ? 1 : 0));
  const main = flat((i) => picture(drawn[i]!));
  const wrongly = [...examMisnamed(atlas, seed, Math.max(1, Math.round(scenes / 2)), shape)].flatMap((scene) =>
    scene.questions.map((question) => ({ question, put: putOf(question, picture(scene)) })),
  );
  const facts = [...examFacts(seed, Math.max(1, scenes))].map((question) => putOf(question));
  const other = options.shuffled ? flat((i) => picture(drawn[(i + 1) % drawn.length]!)) : [];
  const { inOrder, swapped } = pairsOf(atlas, seed, options.pairs ?? 0, shape);
  const total = main.length + wrongly.length + facts.length + other.length + inOrder.length + swapped.length;
  let done = 0;
  const onDone = (n: number): void => {
    done += n;
    options.onProgress?.(done, total);
  };
  const marks = async (put: readonly Put[]): Promise<Marks> => score(put, await ask(vlm, put, onDone));
  const { overall, kinds } = await marks(main);
  const named = await ask(
    vlm,
    wrongly.map(({ put }) => put),
    onDone,
  );
  const share = (of: (q: ExamQuestion) => string | undefined): number =>
    wrongly.filter(({ question }, i) => named[i] === of(question)).length / wrongly.length;
  return {
    overall,
    kinds,
    count: main.length,
    facts: (await marks(facts)).overall,
    misnamed: { real: share((q) => q.answer), taught: share((q) => q.taught) },
    ...(other.length > 0 ? { shuffled: await marks(other) } : {}),
    ...(inOrder.length > 0
      ? { pairs: { inOrder: await marks(inOrder), swapped: await marks(swapped), count: inOrder.length } }
      : {}),
  };
}
