/** mini-llava rounded to 8 and 4 bits gives nearly all answers that it gives in floats; the shares are printed. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Atlas } from '../../lab/world/atlas.ts';
import { examQuestions } from '../../lab/world/exam.ts';
import { canvas } from '../../lab/world/scene.ts';
import { unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import type { WeightType } from '../../src/models/weight-types.ts';

let asked: { prompt: string; image: { width: number; height: number; data: Uint8Array }; answer: string }[] = [];
const shares: string[] = [];

beforeAll(async () => {
  const scenes = [...examQuestions(await Atlas.load(), 'rounded', 16)];
  asked = scenes.flatMap(({ image, questions }) =>
    questions.map(({ prompt, answer }) => ({ prompt, answer, image: { width: canvas, height: canvas, data: image } })),
  );
});
afterAll(() => console.info(`${asked.length} questions; answers as in floats: ${shares.join(', ')}`));

async function answersIn(dtype: WeightType | undefined): Promise<string[]> {
  const vlm = loadModel('mini-llava', { threads: 1, dtype });
  const answers = await unedited(vlm).generate(asked, { maxNewTokens: 16 });
  await vlm.release();
  return answers.map(({ text }) => text);
}

let floats: Promise<string[]> | undefined;

test.each([
  ['int8', 0.97],
  ['int4', 0.8],
] as const)('%s', async (dtype, least) => {
  floats ??= answersIn(undefined);
  const expected = await floats;
  const found = await answersIn(dtype);
  const share = found.filter((text, i) => text === expected[i]).length / found.length;
  const right = (answers: readonly string[]): string =>
    `${((100 * answers.filter((text, i) => text === asked[i]!.answer).length) / answers.length).toFixed(1)} %`;
  shares.push(`${dtype} ${(100 * share).toFixed(1)} % (right ${right(found)}, in floats ${right(expected)})`);
  expect(share).toBeGreaterThanOrEqual(least);
});
