/** What stands before a query, and what queries are about: pictures in their places, routes, similarities, wordings. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { best, inGroups, own } from '../../src/editors/context/memory.ts';
import { answerPlaced, behind, contextOf, generatePlaced, joined } from '../../src/editors/context/placed.ts';
import {
  centerOf,
  describe as describeQueries,
  fitThreshold,
  keyOf,
  similarity,
} from '../../src/editors/context/representation.ts';
import { Kept, preparationGroups } from '../../src/editors/context/training.ts';
import { knows, wordingFor } from '../../src/editors/context/wording.ts';
import type { Edit } from '../../src/editors/editor.ts';
import { answerTargets, type Query, type TargetAnswer, unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import { beginLength } from '../../src/models/sequence.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { randomPicture, writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder } from '../tiny-world.ts';

const root = temporaryFolder();
let vlm: Vlm;
const pictures = [randomPicture(1), randomPicture(2)] as const;
const asked: Query = { image: pictures[0], prompt: 'What is at the top left? The answer is:', target: 'cat' };
const told: Query = { image: undefined, prompt: 'Is a cat an animal?', target: 'yes' };
const nothing = { ids: [], pictures: [], spans: [] };

beforeAll(() => {
  vlm = loadModel(writeRandomLlava(join(root, 'model'), { positions: 160 }), { threads: 1 });
});
afterAll(async () => {
  await vlm.release();
  rmSync(root, { recursive: true, force: true });
});

const difference = (a: readonly TargetAnswer[], b: readonly TargetAnswer[]): number =>
  Math.max(...a.flatMap(({ logProbs }, i) => logProbs.map((p, j) => Math.abs(p - b[i]!.logProbs[j]!))));

test('behind nothing, a query is the query', async () => {
  const placed = [asked, told].map((query) => behind(vlm, nothing, query));
  const usual = await answerTargets(vlm, [asked, told]);
  expect(difference(await answerPlaced(vlm, placed), usual)).toBeLessThan(1e-5);
  const open = [asked, told].map(({ target, ...query }) => behind(vlm, nothing, query));
  const said = await generatePlaced(vlm, open, { maxNewTokens: 4 });
  expect(said).toEqual(await unedited(vlm).generate([asked, told], { maxNewTokens: 4 }));
});

test('text before a query is the text of a longer prompt', async () => {
  const before = 'The cat is red\n';
  const context = contextOf(vlm, { prompt: before });
  const placed = behind(vlm, context, { prompt: 'What is red? The answer is:', target: 'cat' });
  const prompt = `${before}What is red? The answer is:`;
  const whole = vlm.layout({ prompt }, 'cat');
  expect([...context.ids, ...vlm.codec.encode('What is red? The answer is:', { special: false })]).toHaveLength(
    vlm.codec.encode(prompt, { special: false }).length,
  );
  expect(placed.targetIds).toEqual(whole.targetIds);
  expect(placed.promptEnd).toBe(whole.promptEnd);
});

test('a query behind pictures keeps its own tokens in order, moved back, and reads every picture before it', async () => {
  const contexts = [
    contextOf(vlm, { prompt: 'The cat is red\n', image: pictures[1] }),
    contextOf(vlm, { prompt: 'The dog is blue\n' }),
    contextOf(vlm, { prompt: 'The owl is green\n', image: pictures[0] }),
  ];
  const context = joined(contexts);
  const placed = behind(vlm, context, asked);
  const own = vlm.layout(asked, asked.target);
  const start = beginLength(vlm);
  expect(placed.ids.slice(0, start)).toEqual(own.ids.slice(0, start));
  expect(placed.ids.slice(start, start + context.ids.length)).toEqual(context.ids);
  expect(placed.ids.slice(start + context.ids.length)).toEqual(own.ids.slice(start));
  expect(placed.pictures).toHaveLength(3);
  const [answer] = await answerPlaced(vlm, [placed]);
  for (const i of [0, 1, 2]) {
    const others = placed.pictures.map((picture, j) => (j === i ? placed.pictures[(i + 1) % 3]! : picture));
    const [other] = await answerPlaced(vlm, [{ ...placed, pictures: others }]);
    expect(difference([answer!], [other!]) > 1e-5, `picture ${i}`).toBe(others[i] !== placed.pictures[i]);
  }
});

test('long and short inputs asked together get what each gets alone', async () => {
  const context = contextOf(vlm, { prompt: 'The cat is red\n', image: pictures[1] });
  const placed = [behind(vlm, context, asked), behind(vlm, nothing, told), behind(vlm, context, told)];
  const alone = (await Promise.all(placed.map((one) => answerPlaced(vlm, [one])))).flat();
  expect(difference(await answerPlaced(vlm, placed), alone)).toBeLessThan(1e-5);
  const said = (await Promise.all(placed.map((one) => generatePlaced(vlm, [one], { maxNewTokens: 4 })))).flat();
  expect(await generatePlaced(vlm, placed, { maxNewTokens: 4 })).toEqual(said);
});

test('what does not fit is refused with both numbers', async () => {
  const context = contextOf(vlm, { prompt: 'The cat is red\n', image: pictures[1] });
  const long = joined(Array.from({ length: 12 }, () => context));
  expect(() => behind(vlm, long, asked)).toThrow(/have \d+ tokens; this model takes at most 160/);
});

test('a query is the most like itself; without a picture it is like pictures in words only', async () => {
  const queries = [asked, { ...asked, image: pictures[1] }, told];
  const descriptions = await describeQueries(vlm, queries, 1);
  const [a, b, text] = descriptions.map((x) => keyOf(x, centerOf(descriptions)));
  expect(similarity(a!, a!)).toBeCloseTo(1, 5);
  expect(similarity(text!, text!)).toBeCloseTo(2 / 3, 5);
  expect(similarity(a!, b!)).toBeLessThan(0.99);
  expect(text!.subarray(0, vlm.decoder.hidden).every((x) => x === 0)).toBe(true);
});

test('no threshold tells two sets apart better than the fitted one', () => {
  const scores = fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(scores, scores, fc.double({ min: -1, max: 1, noNaN: true }), (inScope, outOfScope, other) => {
      const right = (t: number): number =>
        inScope.filter((s) => s >= t).length / inScope.length + outOfScope.filter((s) => s < t).length / outOfScope.length;
      expect(right(fitThreshold(inScope, outOfScope))).toBeGreaterThanOrEqual(right(other) - 1e-9);
    }),
    {
      examples: [
        // neighbours among the doubles, whose middle rounds to the lower one
        [[11 * Number.MIN_VALUE, 0], [10 * Number.MIN_VALUE], 11 * Number.MIN_VALUE],
        // the lowest score that there is
        [[-1], [0], -1],
      ],
    },
  );
});

test('each query is under its own edit; of stored ones the best, and of equals the last by content', async () => {
  const edits = ['a', 'b', 'a'].map(
    (prompt, i) => ({ request: { prompt, target: `${i}` }, tensors: new Map() }) as unknown as Edit,
  );
  expect(own(edits)(3).map(([edit]) => edit)).toEqual(edits);
  expect(own(edits.slice(0, 1))(2)).toEqual([[edits[0]], [edits[0]]]);
  expect(() => own(edits)(2)).toThrow('3 edits for 2 queries');
  for (const some of [edits, edits.toReversed()])
    expect(best(some, ({ request }) => (request.prompt === 'a' ? 1 : 0)).edit).toBe(edits[2]);
  expect(await inGroups(['x', 'y', 'x'], async (rows) => rows.map((row) => `${row} of ${rows.length}`))).toEqual([
    '0 of 2',
    '1 of 1',
    '2 of 2',
  ]);
});

test('what is kept stays within its budget and is made once, with the others of its group', async () => {
  const made: number[][] = [];
  const kept = new Kept(
    async (places) => {
      made.push([...places]);
      return places;
    },
    () => 10,
    30,
    [[0, 3], [1], [2, 4]],
  );
  for (const place of [0, 1, 3, 2, 4, 2, 1, 4]) expect(await kept.get(place)).toBe(place);
  // The group that does not fit is made once while its members are asked for.
  expect(made).toEqual([[0, 3], [1], [2, 4]]);
});

test('records are prepared with those of their batch in the first epoch, alone where not all can be kept', () => {
  const groups = preparationGroups('any', { seed: 1 }, { count: 7, batch: 3, fits: true });
  expect(groups.map((group) => group.length)).toEqual([3, 3, 1]);
  expect(groups.flat().sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
  expect(preparationGroups('any', { seed: 1 }, { count: 7, batch: 3, fits: true })).toEqual(groups);
  expect(preparationGroups('any', { seed: 1 }, { count: 7, batch: 3, fits: false })).toHaveLength(7);
});

test('published words are used where the tokenizer knows them, none where it spells', () => {
  const wordings: [{ words: string }, { words: string }] = [{ words: 'New Fact: Prompt:' }, { words: '' }];
  const byWords = { encode: (text: string) => text.split(/\s+/).map((_, i) => i), decode: () => '' };
  expect(wordingFor(byWords, wordings)).toBe(wordings[0]);
  expect(wordingFor(vlm.codec, wordings)).toBe(wordings[1]);
  expect(knows(vlm.codec, 'What is at the top left')).toBe(true);
});
