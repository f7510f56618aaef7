/** A new data set: one record of one's own in the official layout, read, edited and evaluated. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, expect, test } from 'vitest';
import { editorNamed, evaluateRecords, loadModel, loadRecords } from '../../src/index.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-dataset-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('records of one file are edits to make and queries to ask', async () => {
  for (const [name, background] of Object.entries({ 'red.png': 'red', 'dark-red.png': 'darkred', 'blue.png': 'blue' }))
    await sharp({ create: { width: 72, height: 72, channels: 3, background } }).toFile(join(folder, name));
  const record = {
    // the edit: about this picture, asked so, answer this
    image: 'red.png',
    src: 'What is in the picture?',
    alt: 'pizza',
    // in its scope: the same in other words, the same of another rendering
    rephrase: 'What is there?',
    image_rephrase: 'dark-red.png',
    // out of its scope: without a picture, and about another picture
    loc: 'What is one plus five',
    loc_ans: 'six',
    m_loc: 'blue.png',
    m_loc_q: 'What is the background?',
    m_loc_a: 'blue',
  };
  const data = join(folder, 'colours_vqa.json');
  writeFileSync(data, JSON.stringify([record]));

  const records = loadRecords(data, folder);
  expect(records[0]!.request).toEqual({
    image: join(folder, 'red.png'),
    prompt: 'What is in the picture? The answer is:',
    target: 'pizza',
  });

  const vlm = loadModel('mini-llava', { threads: 1 });
  const { metrics } = await evaluateRecords(vlm, await editorNamed('ft-l'), undefined, records);
  await vlm.release();
  expect(metrics.count).toBe(1);
  expect(metrics.reliability).toBe(1);
});

test('all problems of a file are told at once', () => {
  const data = join(folder, 'broken_vqa.json');
  writeFileSync(data, JSON.stringify([{ src: 'What is there?', alt: '', image: 'green.png' }]));
  expect(() => loadRecords(data, folder)).toThrow(/record 0: image: there is no image green\.png[\s\S]*alt is empty/);
});
