/** What is LTE's own: the edit before queries in scope, the fine-tuned model alone out of it, and what its training asks for. */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { EditorWeights, EditRequest, TrainOptions } from '../../src/editors/editor.ts';
import { lte } from '../../src/editors/lte/lte.ts';
import { promptBehind } from '../../src/editors/lte/train.ts';
import { f32 } from '../../src/graph/dtype.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import { textOf } from '../../src/input/segments.ts';
import { type Query, type TargetAnswer, unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
let vlm: Vlm;
let records: EditRecord[];
let requests: EditRequest[];
let weights: EditorWeights;

const train = (out: string, more: Partial<TrainOptions> = {}): Promise<EditorWeights> =>
  lte.train!(vlm, records, { out: join(root, out), seed: 1, steps: 4, batch: 4, threads: 1, settings: { rank: 0 }, ...more });

const open = async ({ image, prompt, target }: { image: string | null; prompt: string; target: string }): Promise<Query> => ({
  image: image === null ? undefined : await decodeImage(image),
  prompt,
  target,
});
const log = (out: string): Record<string, number>[] =>
  readFileSync(join(root, out, 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, number>);

beforeAll(async () => {
  vlm = loadModel(writeRandomLlava(join(root, 'model')), { threads: 1 });
  const world = await writeTinyWorld(join(root, 'world'));
  records = loadRecords(world.train, world.images);
  requests = (await Promise.all(records.map(({ request }) => open(request)))) as EditRequest[];
  weights = await train('first');
}, 60_000);
afterAll(async () => {
  await vlm.release();
  rmSync(root, { recursive: true, force: true });
});

const difference = (a: readonly TargetAnswer[], b: readonly TargetAnswer[]): number =>
  Math.max(...a.flatMap(({ logProbs }, i) => logProbs.map((p, j) => Math.abs(p - b[i]!.logProbs[j]!))));

test('without what was learned, in scope is the unedited model behind the edit, and out of scope the unedited model', async () => {
  const untrained = {
    ...weights,
    tensors: new Map(
      [...weights.tensors].map(([name, t]) => [name, name === 'center' ? t : f32(new Float32Array(t.data.length), t.shape)]),
    ),
  };
  const queries = (await Promise.all([records[0]!.queries.modalLocality, records[0]!.queries.textLocality].map(open))) as Query[];
  const asked = [requests[0]!, ...queries];
  const [never] = await lte.edit(vlm, requests.slice(0, 1), untrained, { threshold: 2 });
  expect(difference(await lte.with(vlm, [never!]).answerTargets(asked), await unedited(vlm).answerTargets(asked))).toBeLessThan(
    1e-5,
  );
  const [always] = await lte.edit(vlm, requests.slice(0, 1), untrained, { threshold: -2 });
  const behind = asked.map((query) => ({ ...query, prompt: promptBehind(vlm, records[0]!.request, textOf(query.prompt)) }));
  expect(difference(await lte.with(vlm, [always!]).answerTargets(asked), await unedited(vlm).answerTargets(behind))).toBeLessThan(
    1e-5,
  );
  expect((await lte.with(vlm, [always!]).generate(asked, { maxNewTokens: 3 })).map(({ text }) => text)).toEqual(
    (await unedited(vlm).generate(behind, { maxNewTokens: 3 })).map(({ text }) => text),
  );
});

test('the edit stands before its own request and not before what is unlike it', async () => {
  const [edit] = await lte.edit(vlm, requests.slice(0, 1), weights);
  const [never] = await lte.edit(vlm, requests.slice(0, 1), weights, { threshold: 2 });
  const other = await open(records[0]!.queries.textLocality);
  const [inScope, outOfScope] = await lte.with(vlm, [edit!]).answerTargets([requests[0]!, other]);
  const [tuned, tunedOther] = await lte.with(vlm, [never!]).answerTargets([requests[0]!, other]);
  expect(difference([inScope!], [tuned!])).toBeGreaterThan(1e-4);
  expect(difference([outOfScope!], [tunedOther!])).toBeLessThan(1e-6);
});

test('of several stored edits the one that is like the query stands before it', async () => {
  const edits = await lte.edit(vlm, requests.slice(0, 3), weights);
  const stored = lte.chain!(vlm, edits);
  for (const [i, edit] of edits.entries()) {
    const alone = await lte.with(vlm, [edit]).answerTargets([requests[i]!]);
    expect(difference(await stored.answerTargets([requests[i]!]), alone)).toBeLessThan(1e-5);
  }
});

test('the edit says prompt and target, then the query', () => {
  const { request, queries } = records[0]!;
  const text = promptBehind(vlm, request, queries.textGenerality.prompt);
  const places = [request.prompt, request.target, queries.textGenerality.prompt].map((part) => text.lastIndexOf(part));
  expect(places).toEqual([...places].sort((a, b) => a - b));
  expect(places[0]).toBe(0);
  expect(text.endsWith(queries.textGenerality.prompt)).toBe(true);
});

test.each([0, 3])('training of rank %i follows the edit, and begins where nothing is changed', async (rank) => {
  const out = `rank-${rank}`;
  await train(out, { steps: 40, batch: 6, rate: 1e-2, settings: { rank } });
  const lines = log(out);
  expect(lines[0]).toMatchObject({ noEdit: expect.closeTo(0, 5) });
  const mean = (part: Record<string, number>[]): number => part.reduce((sum, { inScope }) => sum + inScope!, 0) / part.length;
  expect(mean(lines.slice(-5))).toBeLessThan(0.8 * mean(lines.slice(0, 5)));
});

test('parts of a batch add up to the batch', async () => {
  const whole = await train('whole', { steps: 2, batch: 6 });
  const parts = await train('parts', { steps: 2, batch: 6, microBatch: 2 });
  const far = [...whole.tensors].map(([name, { data }]) => {
    const other = parts.tensors.get(name)!.data;
    const moved = data.reduce((sum, x) => sum + Math.abs(x), 0);
    return data.reduce((sum, x, i) => sum + Math.abs(x - other[i]!), 0) / moved;
  });
  // Adam's first steps have the size of the rate whatever the gradient, so those near 0 turn with rounding.
  expect(Math.max(...far)).toBeLessThan(0.02);
  expect(log('parts').map(({ loss }) => loss)).toEqual(log('whole').map(({ loss }) => expect.closeTo(loss!, 4)));
});
