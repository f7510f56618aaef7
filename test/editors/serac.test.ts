/** What is SERAC's own: its decisions, unedited bits out of scope, the counterfactual model's answers in scope, and that both parts learn. */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Edit, EditorWeights, EditRequest, TrainOptions } from '../../src/editors/editor.ts';
import { counterfactualFeeds } from '../../src/editors/serac/counterfactual.ts';
import { scopeFeeds, scopeLogit } from '../../src/editors/serac/scope.ts';
import { serac } from '../../src/editors/serac/serac.ts';
import { f32 } from '../../src/graph/dtype.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import { type Query, unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
const settings = { scopeWidth: 32, scopeOutput: 8, width: 32, layers: 2, heads: 4, window: 24, pictures: true };
let vlm: Vlm;
let records: EditRecord[];
let weights: EditorWeights;
let requests: EditRequest[];

const train = (out: string, more: Partial<TrainOptions> = {}): Promise<EditorWeights> =>
  serac.train!(vlm, records, { out: join(root, out), seed: 1, steps: 120, batch: 6, rate: 5e-3, threads: 1, settings, ...more });

const open = async ({ image, prompt, target }: { image: string | null; prompt: string; target: string }): Promise<Query> => ({
  image: image === null ? undefined : await decodeImage(image),
  prompt,
  target,
});

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

/** The edit with a scope that is as wide as β says; α far from 0 leaves nothing but the request itself. */
const withScope = (edit: Edit, alpha: number, beta: number): Edit => ({
  ...edit,
  weights: {
    ...edit.weights!,
    tensors: new Map([...edit.weights!.tensors, ['scope.alpha', f32([alpha], [1, 1])], ['scope.beta', f32([beta], [1, 1])]]),
  },
});

test('a request is in its own scope whatever was learned, and farther queries are less so', () => {
  const number = fc.double({ min: -20, max: 20, noNaN: true });
  const vector = fc.array(fc.double({ min: -5, max: 5, noNaN: true }), { minLength: 4, maxLength: 4 });
  fc.assert(
    fc.property(vector, vector, number, number, (a, b, alpha, beta) => {
      expect(scopeLogit(a, a, alpha, beta)).toBeGreaterThan(0);
      const middle = a.map((x, i) => (x + b[i]!) / 2);
      expect(scopeLogit(a, b, alpha, beta)).toBeLessThanOrEqual(scopeLogit(a, middle, alpha, beta));
    }),
  );
});

test('pairs weigh the same in and out of scope, and only own in-scope queries are labelled so', () => {
  const key = (x: number) => Float32Array.of(x, 0, 0);
  const sample = fc.record({ inScope: fc.integer({ min: 1, max: 3 }), outOfScope: fc.integer({ min: 1, max: 3 }) });
  fc.assert(
    fc.property(fc.array(sample, { minLength: 1, maxLength: 5 }), fc.boolean(), (samples, others) => {
      const made = samples.map(({ inScope, outOfScope }, i) => ({
        request: key(i),
        inScope: Array.from({ length: inScope }, () => key(10 * i)),
        outOfScope: Array.from({ length: outOfScope }, () => key(-10 * i)),
      }));
      const feeds = scopeFeeds(made, others);
      const [labels, given] = [feeds['scope.labels']!.data as Float32Array, feeds['scope.weights']!.data as Float32Array];
      const total = (label: number): number => given.reduce((sum, w, i) => sum + (labels[i] === label ? w : 0), 0);
      expect(total(1)).toBeCloseTo(0.5, 5);
      expect(total(0)).toBeCloseTo(0.5, 5);
      expect(labels.reduce((a, b) => a + b, 0)).toBe(samples.reduce((sum, { inScope }) => sum + inScope, 0));
    }),
  );
});

test('the answer is predicted from the last token of the query and from each given token', () => {
  const tokens = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 9 });
  const one = fc.record({
    prompt: tokens,
    target: tokens,
    query: tokens,
    answer: fc.array(fc.integer({ min: 1, max: 300 }), { maxLength: 5 }),
  });
  fc.assert(
    fc.property(fc.array(one, { minLength: 1, maxLength: 4 }), (inputs) => {
      const window = 6;
      const feeds = counterfactualFeeds(inputs, window);
      const ids = [...(feeds['cf.ids']!.data as BigInt64Array)].map(Number);
      const read = [...(feeds['cf.rows']!.data as BigInt64Array)].map((row) => ids[Number(row)]);
      expect(read).toEqual(inputs.flatMap(({ query, answer }) => [query.at(-1), ...answer]));
      expect(Math.max(...[...(feeds['cf.places']!.data as BigInt64Array)].map(Number))).toBeLessThan(window);
    }),
  );
});

test('out of scope are the unedited bits, whatever else is asked; in scope answers the counterfactual model', async () => {
  const [edit] = await serac.edit(vlm, requests.slice(0, 1), weights);
  const request = requests[0]! as Query;
  const other = await open(records[0]!.queries.modalLocality);
  const text = await open(records[0]!.queries.textLocality);
  const plain = unedited(vlm);
  const narrow = serac.with(vlm, [withScope(edit!, 1e6, 1)]);
  expect((await narrow.answerTargets([request, other, text])).slice(1)).toEqual([
    ...(await plain.answerTargets([other])),
    ...(await plain.answerTargets([text])),
  ]);
  expect((await narrow.generate([other, request], { maxNewTokens: 4 }))[0]).toEqual(
    (await plain.generate([other], { maxNewTokens: 4 }))[0],
  );
  expect(await narrow.answerTargets([request])).not.toEqual(await plain.answerTargets([request]));
  // A scope as wide as all questions about pictures; texts stay out of it.
  const wide = serac.with(vlm, [withScope(edit!, -50, 5)]);
  const [changed, same] = await wide.answerTargets([other, text]);
  expect(changed!.logProbs).not.toEqual((await plain.answerTargets([other]))[0]!.logProbs);
  expect(same).toEqual((await plain.answerTargets([text]))[0]);
});

test('both parts learn: requests get their targets, teacher forced and free, and decisions are right', async () => {
  const log = readFileSync(join(root, 'first', 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, number>);
  expect(log.at(-1)!.scopeRight).toBeGreaterThan(0.9);
  expect(log.at(-1)!.counterfactual).toBeLessThan(0.5 * log[0]!.counterfactual!);
  const edits = await serac.edit(vlm, requests, weights);
  const forced = await serac.with(vlm, edits).answerTargets(requests);
  const free = await serac.with(vlm, edits).generate(requests, { maxNewTokens: 6 });
  forced.forEach(({ predictedIds, targetIds }, i) => {
    // Free answers begin as the forced ones do.
    expect(free[i]!.tokenIds[0]).toBe(predictedIds[0]);
    if (predictedIds.join() === targetIds.join()) expect(free[i]!.tokenIds.slice(0, targetIds.length)).toEqual(targetIds);
  });
  const right = forced.filter(({ predictedIds, targetIds }) => predictedIds.join() === targetIds.join()).length;
  expect(right / forced.length).toBeGreaterThan(0.7);
});

test('of several stored edits a query is under the nearest', async () => {
  const edits = (await serac.edit(vlm, requests.slice(0, 3), weights)).map((edit) => withScope(edit, 1e6, 1));
  const stored = serac.chain!(vlm, edits);
  for (const [i, edit] of edits.entries())
    expect(await stored.answerTargets([requests[i]!])).toEqual(await serac.with(vlm, [edit]).answerTargets([requests[i]!]));
});

test('what reads texts takes the same question about another picture for the same', async () => {
  const read = await train('texts', { steps: 2, settings: { ...settings, pictures: false } });
  const [edit] = await serac.edit(vlm, requests.slice(0, 1), read);
  const model = serac.with(vlm, [withScope(edit!, 1e6, 1)]);
  const elsewhere = { ...requests[0]!, image: requests[1]!.image };
  expect(await model.answerTargets([elsewhere])).not.toEqual(await unedited(vlm).answerTargets([elsewhere]));
});

test('a target longer than the model reads is refused', async () => {
  const target = 'cat '.repeat(25).trim();
  await expect(serac.edit(vlm, [{ ...requests[0]!, target }], weights)).rejects.toThrow(
    /the target has \d+ tokens; .* read at most 24/,
  );
});

test('stopped and resumed, training ends with the same bytes', async () => {
  const chosen = (out: string): Buffer => readFileSync(join(root, out, 'weights.safetensors'));
  const stop = new AbortController();
  const run = (more: Partial<TrainOptions>) => train('stopped', more);
  await expect(run({ signal: stop.signal, onStep: ({ step }) => step === 70 && stop.abort() })).rejects.toThrow('--resume');
  await run({ resume: true });
  expect(chosen('stopped').equals(chosen('first'))).toBe(true);
});
