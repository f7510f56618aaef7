/** What edits do beyond their records: nothing where an edit changes nothing, and something that shows where it changes the weights of the last layer. */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ftL } from '../../src/editors/ft-l.ts';
import { evaluationCollateral, measureCollateral } from '../../src/evaluation/collateral.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { type TinyWorld, temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
let vlm: Vlm;
let world: TinyWorld;
let records: EditRecord[];
let captions: EditRecord[];

beforeAll(async () => {
  vlm = loadModel(writeRandomLlava(join(root, 'model'), { positions: 256 }), { threads: 1 });
  world = await writeTinyWorld(join(root, 'world'), { captionTest: 9 });
  records = loadRecords(world.test, world.images).slice(0, 3);
  captions = loadRecords(join(root, 'world', 'caption_test.json'), world.images);
});
afterAll(async () => {
  await vlm.release();
  rmSync(root, { recursive: true, force: true });
});

const options = { maxNewTokens: 4, batch: 2 };

test('an edit that changes nothing has none; one that changes much has', async () => {
  const nothing = await measureCollateral({ vlm, editor: ftL, settings: { steps: 1, rate: 0 } }, records, captions, options);
  expect(nothing).toMatchObject({ edits: 3, pictures: 8, sameQuestion: 1 });
  expect(nothing.perplexity.after).toBeCloseTo(nothing.perplexity.before, 4);
  const much = await measureCollateral({ vlm, editor: ftL, settings: { steps: 5, rate: 0.5 } }, records, captions, options);
  expect(much.perplexity.before).toBe(nothing.perplexity.before);
  expect(much.sameQuestion).toBeLessThan(1);
  expect(much.perplexity.after).toBeGreaterThan(1.01 * much.perplexity.before);
});

test('too few captions are refused, and an evaluation keeps what it found', async () => {
  await expect(measureCollateral({ vlm, editor: ftL }, records, captions.slice(0, 7), options)).rejects.toThrow(
    'collateral is measured on 8 pictures with captions, and there are 7 records of them',
  );
  const job = { model: join(root, 'model'), editor: 'ft-l', settings: { steps: 1 }, data: world.test, images: world.images };
  const found = await evaluationCollateral(
    { ...job, limit: 2, batch: 2, maxNewTokens: 4 },
    join(root, 'world', 'caption_test.json'),
    { out: root, threads: 1 },
  );
  expect(found.edits).toBe(2);
  expect(JSON.parse(readFileSync(join(root, 'collateral.json'), 'utf8'))).toMatchObject(JSON.parse(JSON.stringify(found)));
});
