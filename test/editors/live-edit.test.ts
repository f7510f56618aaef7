/** What is LiveEdit's own: stored edits do not know of each other, whatever their order, and routing never reads an answer. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { recipeOf } from '../../lab/recipes.ts';
import type { Edit, EditorWeights, EditRequest } from '../../src/editors/editor.ts';
import { liveEdit, queryKeys, routes, shapeOf } from '../../src/editors/live-edit/live-edit.ts';
import { StoredKeys } from '../../src/editors/routing/stored-keys.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { loadRecords } from '../../src/input/records.ts';
import { type Query, unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
let vlm: Vlm;
let weights: EditorWeights;
let requests: EditRequest[];
let edits: Edit[];

const scores = async (asked: readonly Query[], some: readonly Edit[]): Promise<string> =>
  JSON.stringify(await liveEdit.chain!(vlm, some).answerTargets(asked));

beforeAll(async () => {
  vlm = loadModel(writeRandomLlava(join(root, 'model'), { positions: 256 }), { threads: 1 });
  const world = await writeTinyWorld(join(root, 'world'));
  const records = loadRecords(world.train, world.images);
  const { train } = recipeOf(vlm.decoder, 'live-edit');
  const settings = { ...train, width: 32, heads: 4 };
  weights = await liveEdit.train!(vlm, records, {
    out: join(root, 'trained'),
    seed: 1,
    steps: 6,
    batch: 4,
    threads: 1,
    settings,
  });
  requests = await Promise.all(
    records.slice(0, 6).map(async ({ request }) => ({ ...request, image: await decodeImage(request.image) })),
  );
  edits = await liveEdit.edit(vlm, requests, weights);
});
afterAll(async () => {
  await vlm.release();
  rmSync(root, { recursive: true, force: true });
});

test('edits in any order, made together or one by one, give the same bytes', async () => {
  const expected = await scores(requests, edits);
  const single = [];
  for (const request of [...requests].reverse()) single.push(...(await liveEdit.edit(vlm, [request], weights)));
  expect(await scores(requests, single)).toBe(expected);
  await fc.assert(
    fc.asyncProperty(fc.shuffledSubarray(edits, { minLength: edits.length }), async (shuffled) => {
      expect(await scores(requests, shuffled)).toBe(expected);
    }),
    { numRuns: 5 },
  );
});

test('a dropped edit leaves every query that it did not act on as it was', async () => {
  const stored = new StoredKeys(vlm, edits);
  const keys = await queryKeys(
    vlm,
    requests.map(({ prompt, image }) => vlm.layout({ prompt, image })),
    weights,
  );
  const acting = await routes(stored, keys, shapeOf(weights));
  expect(acting.some((kept) => kept.length > 0)).toBe(true);
  // Of those that are kept, the closest alone: it weighs as much as its prompt says.
  const closest = await routes(stored, keys, shapeOf(weights), 1);
  acting.forEach((kept, q) => {
    expect(closest[q]).toHaveLength(Math.min(1, kept.length));
    for (const one of closest[q]!) {
      expect(one.weight).toBe(one.absolute);
      expect(one.visual + one.prompt).toBe(Math.max(...kept.map(({ visual, prompt }) => visual + prompt)));
    }
  });
  for (const dropped of edits) {
    const rest = edits.filter((edit) => edit !== dropped);
    const after = await routes(new StoredKeys(vlm, rest), keys, shapeOf(weights));
    acting.forEach((kept, q) => {
      if (kept.some(({ edit }) => edit === dropped)) return;
      expect(after[q]!.map(({ edit }) => edit)).toEqual(kept.map(({ edit }) => edit));
      after[q]!.forEach(({ weight }, i) => {
        expect(weight).toBeCloseTo(kept[i]!.weight, 6);
      });
    });
  }
});

test('a query that no edit acts on gets the bits of the unedited model', async () => {
  // A sentinel's key that is the query's own scaled up is closer than any edit's.
  const far = edits.map((edit) => ({
    ...edit,
    tensors: new Map(
      [...edit.tensors].map(([name, t]) => [name, name === 'visual' ? { ...t, data: t.data.map((x) => -10 * x) } : t]),
    ),
  }));
  const untouched = await liveEdit.chain!(vlm, far).answerTargets(requests.slice(0, 1));
  expect(untouched).toEqual(await unedited(vlm).answerTargets(requests.slice(0, 1)));
});

test('what is generated is what is forced: the answer never changes the routing', async () => {
  const model = liveEdit.chain!(vlm, edits);
  for (const { prompt, image } of requests.slice(0, 3)) {
    const [said] = await model.generate([{ prompt, image }], { maxNewTokens: 4, eosIds: [] });
    if (said!.text === '') continue;
    const [forced] = await model.answerTargets([{ prompt, image, target: said!.text }]);
    // Words may come apart into other tokens than were said; where they do not, each is the forced model's own choice.
    if (String(forced!.targetIds) === String(said!.tokenIds)) expect(forced!.predictedIds).toEqual(said!.tokenIds);
  }
});
