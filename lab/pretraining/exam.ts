/** `world exam`: asks a model about fresh scenes, free greedy generation, and counts right answers per question kind. */

import type { RgbImage } from '../../src/input/segments.ts';
import { generateAll } from '../../src/models/answer.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Atlas } from '../world/atlas.ts';
import { type ExamQuestion, type ExamScene, examFacts, examMisnamed, examQuestions } from '../world/exam.ts';
import { canvas } from '../world/scene.ts';

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
  shuffled?: { overall: number; kinds: Record<string, number> };
}

interface Asked {
  question: ExamQuestion;
  image?: RgbImage;
}

async function ask(vlm: Vlm, asked: readonly Asked[], onDone: (count: number) => void): Promise<string[]> {
  const answers: string[] = [];
  const size = 256;
  for (let at = 0; at < asked.length; at += size) {
    const part = asked.slice(at, at + size);
    const out = await generateAll(
      vlm,
      part.map(({ question, image }) => ({ prompt: question.prompt, image })),
      { maxNewTokens: 32 },
    );
    answers.push(...out.map((o) => o.text));
    onDone(part.length);
  }
  return answers;
}

function score(asked: readonly Asked[], answers: readonly string[]): { overall: number; kinds: Record<string, number> } {
  const kinds = new Map<string, [number, number]>();
  let right = 0;
  asked.forEach(({ question }, i) => {
    const hit = answers[i] === question.answer ? 1 : 0;
    right += hit;
    const [h, n] = kinds.get(question.kind) ?? [0, 0];
    kinds.set(question.kind, [h + hit, n + 1]);
  });
  return { overall: right / asked.length, kinds: Object.fromEntries([...kinds].map(([kind, [h, n]]) => [kind, h / n])) };
}

/** Asks a model about fresh scenes of the mini world: free greedy answers, compared word for word. */
export async function exam(
  vlm: Vlm,
  options: { seed: string | number; scenes: number; shuffled?: boolean; onProgress?: (done: number, total: number) => void },
): Promise<ExamResult> {
  const atlas = await Atlas.load();
  const { seed, scenes } = options;
  const picture = ({ image }: ExamScene): RgbImage => ({ width: canvas, height: canvas, data: image });
  const drawn = [...examQuestions(atlas, seed, scenes)];
  const flat = (image: (i: number) => RgbImage): Asked[] =>
    drawn
      .flatMap((scene, i) => scene.questions.map((question) => ({ question, image: image(i) })))
      .sort((a, b) => (a.question.kind < b.question.kind ? -1 : a.question.kind > b.question.kind ? 1 : 0));
  const main = flat((i) => picture(drawn[i]!));
  const wrong = [...examMisnamed(atlas, seed, Math.max(1, Math.round(scenes / 2)))].flatMap((s) =>
    s.questions.map((question): Asked => ({ question, image: picture(s) })),
  );
  const facts = [...examFacts(seed, Math.max(1, scenes))].map((question): Asked => ({ question }));
  const other = options.shuffled ? flat((i) => picture(drawn[(i + 1) % drawn.length]!)) : [];
  const total = main.length + wrong.length + facts.length + other.length;
  let done = 0;
  const onDone = (n: number): void => {
    done += n;
    options.onProgress?.(done, total);
  };
  const { overall, kinds } = score(main, await ask(vlm, main, onDone));
  const named = await ask(vlm, wrong, onDone);
  const share = (of: (q: ExamQuestion) => string | undefined): number =>
    wrong.filter(({ question }, i) => named[i] === of(question)).length / wrong.length;
  return {
    overall,
    kinds,
    count: main.length,
    facts: score(facts, await ask(vlm, facts, onDone)).overall,
    misnamed: { real: share((q) => q.answer), taught: share((q) => q.taught) },
    ...(other.length > 0 ? { shuffled: score(other, await ask(vlm, other, onDone)) } : {}),
  };
}
