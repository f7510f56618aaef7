import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { loadModel } from '../../src/models/load.ts';
import { randomPicture, writeRandomLlava } from '../tiny-model.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-batch-'));
afterAll(() => rmSync(folder, { recursive: true }));

test('a picture in another place than the program reads it is refused, not read wrong', async () => {
  const vlm = loadModel(writeRandomLlava(join(folder, 'llava')), { threads: 1 });
  const usual = vlm.layout('What is this?', true);
  const late = vlm.layout('What is <image> this?', true);
  expect(late.visualSpan![0]).toBeGreaterThan(vlm.visualStart);
  const picture = randomPicture(1);
  await expect(vlm.batch([usual, late], [picture, picture])).rejects.toThrow(
    /input 1 has its picture after \d+ tokens, but llava reads it after 1; put the picture/,
  );
  const { feeds } = await vlm.batch([usual], [picture]);
  expect(feeds.ids!.shape).toEqual([1, usual.ids.length]);
  await vlm.release();
});
