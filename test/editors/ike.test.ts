/** What is IKE's own: which demonstrations are chosen, in which order and of which kinds they stand before a query, and what makes room. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { similarity } from '../../src/editors/context/representation.ts';
import type { Edit, EditorWeights, EditRequest } from '../../src/editors/editor.ts';
import { demonstration, ike, kinds, retrieve } from '../../src/editors/ike.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import { unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
const settings = { k: 1, pool: 256, context: 400, pictures: true };
let vlm: Vlm;
let records: EditRecord[];
let weights: EditorWeights;
let request: EditRequest;

const train = (name: string, positions: number, more: Record<string, number | boolean> = {}) => {
  const model = loadModel(writeRandomLlava(join(root, name), { positions }), { threads: 1 });
  return {
    model,
    weights: ike.train!(model, records, { out: join(root, `${name}-ike`), seed: 1, settings: { ...settings, ...more } }),
  };
};

beforeAll(async () => {
  const world = await writeTinyWorld(join(root, 'world'));
  records = loadRecords(world.train, world.images);
  const made = train('model', 512);
  vlm = made.model;
  weights = await made.weights;
  const { image, prompt, target } = records[0]!.request;
  request = { image: await decodeImage(image), prompt, target };
});
afterAll(async () => {
  await vlm.release();
  rmSync(root, { recursive: true, force: true });
});

const contextOf = ({ tensors }: Edit): number[][] => {
  const { data, shape } = tensors.get('ids')!;
  const [n, width] = shape as [number, number];
  return Array.from({ length: n }, (_, i) => [...data.subarray(i * width, (i + 1) * width)].filter((id) => id !== -2));
};

test('each place has the most similar edit of its kind that no place before it took', () => {
  const vector = fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 3, maxLength: 3 });
  const index = fc.array(fc.record({ key: vector, kind: fc.nat(2) }), { minLength: 1, maxLength: 20 });
  const order = ['update', 'retain', 'update', 'retain', 'copy', 'retain', 'update', 'retain'] as const;
  fc.assert(
    fc.property(vector, index, fc.nat(16), (of, entries, k) => {
      const key = Float32Array.from(of);
      const keys = entries.map((entry) => Float32Array.from(entry.key));
      const kindOf = entries.map((entry) => entry.kind);
      const chosen = retrieve(key, keys, kindOf, k);
      const left = new Set(keys.keys());
      const expected: number[] = [];
      for (let place = 0; place < k; place++) {
        const wanted = [...left].filter((i) => kinds[kindOf[i]!] === order[place % 8]);
        if (wanted.length === 0) continue;
        const scores = wanted.map((i) => similarity(key, keys[i]!));
        const first = wanted[scores.indexOf(Math.max(...scores))]!;
        expected.push(first);
        left.delete(first);
      }
      expect(chosen).toEqual(expected);
    }),
  );
});

test('a demonstration says the fact, then its answer, each behind the picture that it is about', async () => {
  const record = records[0]!;
  const v = vlm.architecture.fixed!.count;
  const { reliability, modalGenerality, textLocality, modalLocality } = record.queries;
  const of = (query: (typeof record.queries)['reliability'], pictures = true) => demonstration(vlm, record, query, pictures);
  const said = async (query: typeof reliability): Promise<string> =>
    vlm.codec.decode((await of(query)).ids.filter((id) => id >= 0));
  for (const query of [reliability, modalGenerality, modalLocality]) {
    const text = await said(query);
    expect(text.indexOf(record.request.target)).toBeGreaterThan(0);
    expect(text.trimEnd().endsWith(query.target)).toBe(true);
  }
  for (const [query, count] of [
    [reliability, 1],
    [modalGenerality, 2],
    [modalLocality, 2],
    [textLocality, 1],
  ] as const) {
    const { ids, pictures } = await of(query);
    expect(pictures).toHaveLength(count);
    expect(ids.filter((id) => id === -1)).toHaveLength(count * v);
    expect((await of(query, false)).ids).not.toContain(-1);
  }
});

test('the most similar demonstration stands nearest to the fact, which stands last; fewer are the nearest ones', async () => {
  const made = (k: number): Promise<Edit[]> => ike.edit(vlm, [request], weights, { k });
  const [four, two, none] = [...(await made(4)), ...(await made(2)), ...(await made(0))];
  const [long, short, bare] = [contextOf(four!), contextOf(two!), contextOf(none!)];
  expect(long).toHaveLength(5);
  expect(short).toEqual(long.slice(2));
  expect(bare).toEqual(long.slice(4));
  expect(vlm.codec.decode(bare[0]!.filter((id) => id >= 0))).toContain(request.target);
  // The request itself is in the index: it is the nearest of its kind.
  const keys = weights.tensors.get('keys')!;
  const width = keys.shape[1]!;
  const key = four!.tensors.get('key')!.data;
  const scores = Array.from({ length: keys.shape[0]! }, (_, i) =>
    similarity(key, keys.data.subarray(i * width, (i + 1) * width)),
  );
  expect(Math.max(...scores)).toBeCloseTo(1, 4);
});

test('a context stays within its tokens, and a long query takes the place of the least similar', async () => {
  const [edit] = await ike.edit(vlm, [request], weights, { k: 16, context: 150 });
  expect(contextOf(edit!).flat().length).toBeLessThanOrEqual(150);
  expect(contextOf(edit!).length).toBeGreaterThan(1);
  const small = train('small', 160);
  const [made] = await ike.edit(small.model, [request], await small.weights, { k: 16, context: 160 });
  const query = { ...request, prompt: `${'What is at the top left? '.repeat(6)}The answer is:` };
  const [answer] = await ike.with(small.model, [made!]).answerTargets([query]);
  expect(answer!.predictedIds.length).toBeGreaterThan(0);
  await small.model.release();
});

test('texts without a picture stand behind the fact, too', async () => {
  const [edit] = await ike.edit(vlm, [request], weights);
  const { prompt, target } = records[0]!.queries.textLocality;
  const [before] = await unedited(vlm).answerTargets([{ prompt, target }]);
  const [after] = await ike.with(vlm, [edit!]).answerTargets([{ prompt, target }]);
  expect(after!.targetIds).toEqual(before!.targetIds);
  expect(Math.abs(after!.logProbs[0]! - before!.logProbs[0]!)).toBeGreaterThan(1e-5);
});

test('the index is the same for the same seed, and another for another', async () => {
  const index = async (seed: number) =>
    (await ike.train!(vlm, records, { out: join(root, `seed-${seed}`), seed, settings })).tensors.get('ids')!;
  expect(await index(1)).toEqual(weights.tensors.get('ids'));
  expect(await index(2)).not.toEqual(weights.tensors.get('ids'));
});
