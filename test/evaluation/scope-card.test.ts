/** Whether an edit took: an edit that the model cannot say is told from one that it can, whatever the editor calls it. */
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { ftL } from '../../src/editors/ft-l.ts';
import { changedCopy, landscape, probesOf, rephrased } from '../../src/evaluation/probes.ts';
import { checkEdit } from '../../src/evaluation/scope-card.ts';
import { answerCue } from '../../src/input/records.ts';
import { unknownWords } from '../../src/input/text/unknown-words.ts';
import { unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';

const vlm = loadModel('mini-llava', { threads: 1 });
afterAll(() => vlm.release());

const image = landscape({ width: 96, height: 96 });
const prompt = `Which color is the background?${answerCue}`;

async function checked(target: string) {
  const request = { image, prompt, target };
  const [edit] = await ftL.edit(vlm, [request]);
  return checkEdit({ before: unedited(vlm), after: ftL.with(vlm, [edit!]) }, request, probesOf(request, vlm.codec));
}

test('a word spelled letter by letter is not learned: the edit did not take', async () => {
  const check = await checked('PIZZA');
  expect(check).toMatchObject({ took: false, exact: false, forced: false });
  expect(check.after.probability).toBeLessThan(1e-6);
  expect(check.card[0]).toMatchObject({ kind: 'reliability', prompt, expected: 'PIZZA', after: check.after.text, ok: false });
});

test('a word of the vocabulary is learned, and every question of the card is judged by its own rule', async () => {
  const check = await checked('pink');
  expect(check).toMatchObject({ took: true, exact: true, forced: true, after: { text: 'pink' } });
  expect(check.before.probability).toBeLessThan(check.after.probability);
  expect(check.card.map(({ kind, picture }) => `${kind} ${picture}`)).toEqual([
    'reliability own',
    'textGenerality own',
    'modalGenerality copy',
    'textLocality none',
    'modalLocality other',
    'sameImage own',
    'sameQuestion other',
  ]);
  for (const { kind, expected, before, after, ok } of check.card) {
    expect(expected).toBe(/Generality|reliability/.test(kind) ? 'pink' : before);
    expect(ok).toBe(after === expected);
  }
});

test('given probes take the place of made ones', () => {
  const other = landscape({ width: 8, height: 8 });
  const probes = probesOf({ image, prompt, target: 'pink' }, vlm.codec, {
    rephrasings: ['one', 'two'],
    samePictures: [other],
    otherPictures: [other],
  });
  expect(probes.filter(({ kind }) => kind === 'textGenerality').map((probe) => probe.prompt)).toEqual(['one', 'two']);
  expect(probes.filter((probe) => probe.image === other).map(({ kind }) => kind)).toEqual([
    'modalGenerality',
    'modalLocality',
    'sameQuestion',
  ]);
});

test('a rephrasing has other words, the same cue, and no word that the prompt did not need', () => {
  expect(rephrased(prompt, vlm.codec)).toBe(`What color is the background?${answerCue}`);
  expect(rephrased('How often does a bus appear?', vlm.codec)).toBe('How many times does a bus appear?');
  // "Look" is no word of the minis.
  expect(rephrased('Just below the bus there is what?', vlm.codec)).toBeUndefined();
  for (const question of ['What is at the top left?', 'Is there a bus?', 'Where is the bus?', 'Describe the picture.']) {
    const other = rephrased(question + answerCue, vlm.codec)!;
    expect(other.endsWith(answerCue)).toBe(true);
    expect(other).not.toBe(question + answerCue);
    expect(unknownWords(vlm.codec, other)).toEqual([]);
  }
});

test('made pictures have the size of the edit’s and are others', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }), (width, height) => {
      const drawn = landscape({ width, height });
      expect(drawn.data).toHaveLength(3 * width * height);
      const copy = changedCopy({ width, height, data: new Uint8Array(3 * width * height).fill(100) });
      expect([...copy.data].every((value) => value === 106)).toBe(true);
    }),
    { numRuns: 20 },
  );
});
