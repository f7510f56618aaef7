/** A search over settings of an edit: the grid, its metrics beside those of an evaluation, and going on with what is in the file. */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ftL } from '../../src/editors/ft-l.ts';
import { evaluateRecords } from '../../src/evaluation/asking.ts';
import { type Combination, gridOf, type SearchJob, searchSettings } from '../../src/evaluation/search.ts';
import { openRecords } from '../../src/input/records.ts';
import { loadModel } from '../../src/models/load.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
const path = join(root, 'search', 'ft-l.json');
let job: SearchJob;

beforeAll(async () => {
  const world = await writeTinyWorld(join(root, 'world'));
  job = {
    model: writeRandomLlava(join(root, 'model'), { positions: 256 }),
    editor: 'ft-l',
    data: world.train,
    images: world.images,
    edits: 3,
    seed: 1,
    grid: gridOf({ rate: [1e-6, 3e-3], steps: [25] }),
    threads: 1,
  };
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

test('a grid is every combination, the last setting varying fastest', () => {
  expect(gridOf({ rate: [1, 2], steps: [3, 4] })).toEqual([
    { rate: 1, steps: 3 },
    { rate: 1, steps: 4 },
    { rate: 2, steps: 3 },
    { rate: 2, steps: 4 },
  ]);
});

test('the best average is the choice, its metrics are those of an evaluation, and a finished combination is not made again', async () => {
  const seen: Combination[] = [];
  const result = await searchSettings(job, path, { command: 'test', onCombination: (done) => seen.push(done) });
  expect(seen).toEqual(result.combinations);
  expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual(result);
  const [none, some] = result.combinations as [Combination, Combination];
  expect(some.metrics.reliability).toBeGreaterThan(none.metrics.reliability);
  expect(result.best).toEqual(some.metrics.average > none.metrics.average ? some.settings : none.settings);
  const vlm = loadModel(job.model, { threads: 1 });
  const edited = {
    ...ftL,
    edit: (...[model, requests]: Parameters<typeof ftL.edit>) => ftL.edit(model, requests, undefined, some.settings),
  };
  const { metrics } = await evaluateRecords(
    vlm,
    edited,
    undefined,
    openRecords(job.data, job.images, { limit: job.edits, seed: job.seed }).records,
    {
      maxNewTokens: 2,
    },
  );
  await vlm.release();
  const { count, ...five } = metrics;
  expect(count).toBe(3);
  expect(some.metrics).toEqual(five);
  const more = await searchSettings({ ...job, grid: [...job.grid, { rate: 1e-2, steps: 1 }] }, path, { command: 'test' });
  expect(more.combinations.slice(0, 2)).toEqual(result.combinations);
  expect(more.combinations).toHaveLength(3);
  await expect(searchSettings({ ...job, edits: 2 }, path, { command: 'test' })).rejects.toThrow('a search of something else');
});
