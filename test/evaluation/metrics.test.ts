import { expect, test } from 'vitest';
import {
  type Answer,
  type AskedKind,
  askedOf,
  exactMatch,
  scoreRecord,
  summarize,
  targetProbability,
  tokenAccuracy,
} from '../../src/evaluation/metrics.ts';
import type { EditRecord } from '../../src/input/records.ts';

const forced = (targetIds: number[], predictedIds: number[], p = 0.5) => ({
  targetIds,
  predictedIds,
  logProbs: targetIds.map(() => Math.log(p)),
});
const answer = (targetIds: number[], predictedIds: number[], text: string, p = 0.5): Answer => ({
  forced: forced(targetIds, predictedIds, p),
  text,
});
const query = (target: string, image: string | null = 'a.png') => ({ image, prompt: 'What?', target });

function record(index: number, more: Partial<EditRecord> = {}): EditRecord {
  const request = { image: 'a.png', prompt: 'What?', target: 'a cat' };
  return {
    index,
    request,
    queries: {
      reliability: request,
      textGenerality: request,
      modalGenerality: request,
      textLocality: query('Rome', null),
      modalLocality: query('red'),
    },
    ...more,
  };
}

const before = new Map<AskedKind, Answer>([
  ['reliability', answer([1, 2], [9, 2], 'dog', 0.1)],
  ['textGenerality', answer([1, 2], [9, 9], 'dog')],
  ['modalGenerality', answer([1, 2], [1, 2], 'a cat')],
  ['textLocality', answer([3, 4], [7, 8], 'Paris')],
  ['modalLocality', answer([5], [5], 'red')],
  ['sameImage', answer([5], [6], 'blue')],
]);
const after = new Map<AskedKind, Answer>([
  ['reliability', answer([1, 2], [1, 2], ' a cat ', 0.9)],
  ['textGenerality', answer([1, 2], [1, 9], 'a dog')],
  ['modalGenerality', answer([1, 2], [1, 2], 'a cat')],
  ['textLocality', answer([3, 4], [7, 8], 'Paris')],
  ['modalLocality', answer([5], [6], 'blue')],
  ['sameImage', answer([5], [6], 'blue')],
]);

test('what the edit should change is compared with the target, the rest with the unedited model', () => {
  expect(tokenAccuracy('reliability', forced([1, 2, 3], [9, 9, 9]), forced([1, 2, 3], [1, 2, 9]))).toBeCloseTo(2 / 3);
  expect(tokenAccuracy('textLocality', forced([1, 2], [7, 8]), forced([1, 2], [7, 2]))).toBe(0.5);
  expect(exactMatch('reliability', 'a cat', answer([1], [1], 'x'), answer([1], [1], ' a cat'))).toBe(true);
  expect(exactMatch('modalLocality', 'a cat', answer([1], [1], 'dog'), answer([1], [1], 'a cat'))).toBe(false);
  expect(targetProbability(forced([1, 2], [1, 2], 0.5))).toBeCloseTo(0.25);
});

test('figures: the five and their average, the hard ones beside, groups, probabilities', () => {
  const hard = { sameImage: query('blue') };
  const results = [
    scoreRecord(record(0, { kind: 'count', edit: 'correction', hard }), before, after),
    scoreRecord(record(1, { kind: 'place', edit: 'counterfactual' }), before, before),
  ];
  expect(results[0]!.queries.reliability).toEqual({
    accuracy: 1,
    text: ' a cat ',
    exact: true,
    textBefore: 'dog',
    accuracyBefore: 0.5,
    probability: [0.01, 0.81],
  });
  const found = summarize(results);
  expect(found).toMatchObject({
    reliability: 0.75,
    textGenerality: 0.25,
    modalGenerality: 1,
    textLocality: 1,
    modalLocality: 0.5,
    count: 2,
  });
  expect(found.average).toBeCloseTo((0.75 + 0.25 + 1 + 1 + 0.5) / 5);
  expect(found.hard).toEqual({ sameImage: 1, sameQuestion: null, noise: null, grey: null });
  expect(found.generation).toMatchObject({
    reliability: 0.5,
    textGenerality: 0,
    modalGenerality: 1,
    textLocality: 1,
    modalLocality: 0.5,
    sameImage: 1,
  });
  expect(found.probability.reliability!.change).toBeCloseTo(0.4);
  expect(found.probability.sameQuestion).toBeNull();
  expect(found.unedited).toEqual({ reliability: 0.5, textGenerality: 0, modalGenerality: 1 });
  expect(Object.keys(found.kinds)).toEqual(['count', 'place']);
  expect(found.edits.counterfactual).toMatchObject({ reliability: 0.5, count: 1, hard: { sameImage: null, sameQuestion: null } });
  expect(JSON.stringify(found)).not.toContain('NaN');
});

test('queries come in a fixed order, hard ones last and only where the record has them', () => {
  const kinds = askedOf(record(0, { hard: { sameQuestion: query('x') } })).map(({ kind }) => kind);
  expect(kinds).toEqual(['reliability', 'textGenerality', 'modalGenerality', 'textLocality', 'modalLocality', 'sameQuestion']);
});
