import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { datasetKind, loadRecords, openRecords, RecordsError } from '../../src/input/records.ts';
import { fixturesDir, hasFixtures } from '../shared.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-records-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
for (const name of ['a.png', 'b.png', 'c.png']) writeFileSync(join(folder, name), '');

const good = {
  src: 'What is this?',
  pred: 'a cat',
  rephrase: 'What do you see?',
  alt: 'a dog',
  image: 'a.png',
  image_rephrase: 'b.png',
  loc: 'who wrote faust',
  loc_ans: 'Goethe',
  m_loc: 'c.png',
  m_loc_q: 'Is it red?',
  m_loc_a: 'no',
};
const write = (name: string, content: unknown): string => {
  const path = join(folder, name);
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
};
const problemsOf = (content: unknown): readonly string[] => {
  try {
    loadRecords(write('vqa.json', content), folder);
  } catch (error) {
    if (error instanceof RecordsError) return error.problems;
    throw error;
  }
  return [];
};

describe('prompts', () => {
  test('VQA prompts get the cue, text locality a question mark', () => {
    const [record] = loadRecords(write('vqa_eval.json', [good]), folder);
    expect(record).toEqual({
      index: 0,
      request: { image: join(folder, 'a.png'), prompt: 'What is this? The answer is:', target: 'a dog' },
      queries: {
        reliability: { image: join(folder, 'a.png'), prompt: 'What is this? The answer is:', target: 'a dog' },
        textGenerality: { image: join(folder, 'a.png'), prompt: 'What do you see? The answer is:', target: 'a dog' },
        modalGenerality: { image: join(folder, 'b.png'), prompt: 'What is this? The answer is:', target: 'a dog' },
        textLocality: { image: null, prompt: 'who wrote faust?', target: 'Goethe' },
        modalLocality: { image: join(folder, 'c.png'), prompt: 'Is it red? The answer is:', target: 'no' },
      },
      pred: 'a cat',
    });
  });

  test('of a caption record only the question about another picture gets the cue', () => {
    const caption = {
      ...good,
      src: 'a photo of',
      rephrase: 'this shows',
      s_loc_q: 'Is it day?',
      s_loc_a: 'yes',
      q_loc: 'b.png',
      q_loc_a: 'a cow',
    };
    const [record] = loadRecords(write('caption_eval.json', [caption]), folder);
    expect(record!.request.prompt).toBe('a photo of');
    expect(record!.queries.textGenerality.prompt).toBe('this shows');
    expect(record!.queries.modalGenerality.prompt).toBe('a photo of');
    expect(record!.queries.modalLocality.prompt).toBe('Is it red? The answer is:');
    expect(record!.queries.textLocality.prompt).toBe('who wrote faust?');
    expect(record!.hard).toEqual({
      sameImage: { image: join(folder, 'a.png'), prompt: 'Is it day? The answer is:', target: 'yes' },
      sameQuestion: { image: join(folder, 'b.png'), prompt: 'a photo of', target: 'a cow' },
    });
  });

  test('the kind comes from the name, else from the prompts, unless given', () => {
    expect(datasetKind('/x/vqa_train.json', [{ src: 'a photo of' }])).toBe('vqa');
    expect(datasetKind('/vqa/caption_train_edit.json', [{ src: 'What?' }])).toBe('caption');
    expect(datasetKind('/x/mine.json', [{ src: 'What?' }])).toBe('vqa');
    expect(datasetKind('/x/mine.json', [{ src: 'a photo of' }])).toBe('caption');
    expect(loadRecords(write('vqa.json', [good]), folder, 'caption')[0]!.request.prompt).toBe('What is this?');
  });
});

describe('problems', () => {
  test('all at once, with record numbers', () => {
    const { alt: _, ...noTarget } = good;
    expect(
      problemsOf([
        good,
        noTarget,
        { ...good, src: '  ', loc_ans: 7 },
        { ...good, image: 'gone.png', m_loc: 'lost.png' },
        'text',
        { ...good, s_loc_q: 'Is it day?' },
        { ...good, edit: 'wish' },
      ]),
    ).toEqual([
      'record 1: alt is missing',
      'record 2: src is empty',
      'record 2: loc_ans must be text, not a number',
      `record 3: image: there is no image gone.png in ${folder}`,
      `record 3: m_loc: there is no image lost.png in ${folder}`,
      'record 4: must be an object, not a string',
      'record 5: s_loc_q is given without s_loc_a',
      'record 6: edit must be "correction" or "counterfactual"',
    ]);
  });

  test('only of the records that are asked for: a part of a data set, with a part of its pictures, is enough', () => {
    const lost = { ...good, image: 'not-downloaded.png' };
    const path = write('vqa.json', [good, good, lost, { src: 3 }]);
    expect(openRecords(path, folder, { limit: 2 })).toMatchObject({
      kind: 'vqa',
      total: 4,
      records: [{ index: 0 }, { index: 1 }],
    });
    expect(() => openRecords(path, folder, { limit: 3 })).toThrow(
      /1 problem .*\n {2}record 2: image: there is no image not-downloaded.png in .*\nThe first 2 of the records .* a limit of 2 takes/,
    );
    fc.assert(
      fc.property(
        fc.array(fc.boolean(), { minLength: 1, maxLength: 12 }),
        fc.integer({ min: 1, max: 12 }),
        fc.nat(5),
        (whole, limit, seed) => {
          const some = write(
            'vqa.json',
            whole.map((there) => (there ? good : lost)),
          );
          for (const choice of [{ limit }, { limit, seed }]) {
            const asked = openRecords(
              write(
                'all.json',
                whole.map(() => good),
              ),
              folder,
              choice,
            ).records.map(({ index }) => index);
            const read = () => openRecords(some, folder, choice).records.map(({ index }) => index);
            if (asked.every((index) => whole[index])) expect(read()).toEqual(asked);
            else expect(read).toThrow(RecordsError);
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  test('files that hold no records', () => {
    expect(problemsOf('{')[0]).toMatch(/^is not valid JSON: line 1, column 2/);
    expect(problemsOf({})).toEqual(['must hold a list of records, not an object']);
    expect(problemsOf([])).toEqual(['holds no records; a list of at least one is needed']);
    expect(() => loadRecords(join(folder, 'none.json'), folder)).toThrow(/none\.json does not exist; records are one JSON list/);
    expect(() => loadRecords(write('vqa.json', [good]), join(folder, 'nowhere'))).toThrow(
      /folder of images .*nowhere does not exist/,
    );
  });

  test('a long list is cut in the message, not in `problems`', () => {
    const path = write(
      'vqa.json',
      Array.from({ length: 100 }, () => ({})),
    );
    expect(() => loadRecords(path, folder)).toThrow(/1000 problems .*and 960 more/s);
  });
});

test.skipIf(!hasFixtures)('the conformance records', () => {
  const path = join(fixturesDir, 'vqa_records.json');
  const records = loadRecords(path, join(fixturesDir, 'images'));
  const raw = JSON.parse(readFileSync(path, 'utf8')) as { alt: string; src: string }[];
  expect(records.map((r) => r.request.target)).toEqual(raw.map((r) => r.alt));
  expect(records.map((r) => r.request.prompt)).toEqual(raw.map((r) => `${r.src} The answer is:`));
});
