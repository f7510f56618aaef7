/** Routing of stored edits: their order does not matter, a dropped one leaves the others as they were, and ten thousand are compared in no time. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { recipeOf } from '../../lab/recipes.ts';
import { shared } from '../../src/editors/context/memory.ts';
import type { Edit, EditorWeights, EditRequest } from '../../src/editors/editor.ts';
import { Routed, routingOf } from '../../src/editors/routing/routing.ts';
import { highest, StoredKeys } from '../../src/editors/routing/stored-keys.ts';
import { vead } from '../../src/editors/vead/vead.ts';
import { f32 } from '../../src/graph/dtype.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { loadRecords } from '../../src/input/records.ts';
import { unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Random } from '../../src/random.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
let vlm: Vlm;
let weights: EditorWeights;
let requests: EditRequest[];
let edits: Edit[];

beforeAll(async () => {
  vlm = loadModel(writeRandomLlava(join(root, 'model'), { positions: 256 }), { threads: 1 });
  const world = await writeTinyWorld(join(root, 'world'));
  const records = loadRecords(world.train, world.images);
  const settings = { ...recipeOf(vlm.decoder, 'vead').train, width: 32, influenceWidth: 24, heads: 4 };
  weights = await vead.train!(vlm, records, { out: join(root, 'trained'), seed: 1, steps: 2, batch: 4, threads: 1, settings });
  requests = await Promise.all(
    records.slice(0, 5).map(async ({ request }) => ({ ...request, image: await decodeImage(request.image) })),
  );
  edits = await vead.edit(vlm, requests, weights);
});
afterAll(async () => {
  await vlm.release();
  rmSync(root, { recursive: true, force: true });
});

const routes = (some: readonly Edit[]): Promise<(Edit | undefined)[]> => new Routed(vlm, weights, shared(some)).routes(requests);

test('every request is about its own edit, and the order of edits gives no other bytes', async () => {
  expect(await routes(edits)).toEqual(edits);
  const answers = async (some: readonly Edit[]): Promise<string> =>
    JSON.stringify(await vead.chain!(vlm, some).answerTargets(requests));
  const expected = await answers(edits);
  await fc.assert(
    fc.asyncProperty(fc.shuffledSubarray(edits, { minLength: edits.length }), async (shuffled) => {
      expect(await answers(shuffled)).toBe(expected);
    }),
    { numRuns: 5 },
  );
});

test('an edit has the same key whatever is made beside it', async () => {
  const three = requests.map((request, i) => (i % 2 === 0 ? request : { ...request, prompt: `the ${request.prompt}` }));
  const together = await vead.edit(vlm, three, weights);
  for (const [i, request] of three.entries()) {
    const [alone] = await vead.edit(vlm, [request], weights);
    expect(together[i]!.tensors.get('key')).toEqual(alone!.tensors.get('key'));
  }
});

test('dropping an edit changes the routes of what it acted on alone', async () => {
  const before = await routes(edits);
  for (const dropped of edits) {
    const after = await routes(edits.filter((edit) => edit !== dropped));
    before.forEach((edit, q) => {
      if (edit !== dropped) expect(after[q]).toBe(edit);
    });
  }
});

test('a query that is about no stored edit gets the bits of the unedited model', async () => {
  const strict = { ...weights, settings: { ...weights.settings, routingThreshold: 1 } };
  const far = (await vead.edit(vlm, requests.slice(1), strict)) as Edit[];
  const [query] = requests;
  expect(await vead.chain!(vlm, far).answerTargets([query!])).toEqual(await unedited(vlm).answerTargets([query!]));
});

test('dropping any of a thousand stored edits leaves the routes of all queries but its own', async () => {
  const width = routingOf(weights)!.center.data.length;
  const random = new Random('thousand');
  const many = Array.from({ length: 1000 }, (_, i): Edit => {
    return { ...edits[0]!, tensors: new Map([['key', f32(random.fork(i).normals(width, 1), [width])]]) };
  });
  const queries = Array.from({ length: 200 }, (_, q) => {
    const noise = random.fork(`query ${q}`).normals(width, 1);
    return many[5 * q]!.tensors.get('key')!.data.map((x, i) => (x + noise[i]!) as number) as Float32Array;
  });
  const routesOf = async (some: readonly Edit[]): Promise<Edit[]> => {
    const stored = new StoredKeys(vlm, some);
    return (await stored.products('key', queries)).map((scores) => stored.edits[highest(scores)]!);
  };
  const before = await routesOf(many);
  await fc.assert(
    fc.asyncProperty(fc.nat(many.length - 1), async (place) => {
      const after = await routesOf(many.toSpliced(place, 1));
      before.forEach((edit, q) => {
        if (edit !== many[place]) expect(after[q]).toBe(edit);
        else expect(after[q]).not.toBe(edit);
      });
    }),
    { numRuns: 20 },
  );
}, 60_000);

test('ten thousand stored edits are compared in less than 5 ms a query', async () => {
  const width = routingOf(weights)!.center.data.length;
  const random = new Random('many');
  const many = Array.from({ length: 10_000 }, (_, i): Edit => {
    return { ...edits[0]!, tensors: new Map([['key', f32(random.fork(i).normals(width, 1), [width])]]) };
  });
  const stored = new StoredKeys(vlm, many);
  const queries = Array.from({ length: 16 }, (_, i) => stored.edits[i]!.tensors.get('key')!.data);
  await stored.products('key', queries.slice(0, 1));
  const times: number[] = [];
  for (const query of queries) {
    const started = performance.now();
    const [products] = await stored.products('key', [query]);
    times.push(performance.now() - started);
    expect(products!.length).toBe(many.length);
  }
  expect(times.sort((a, b) => a - b)[0]!).toBeLessThan(5);
}, 60_000);
