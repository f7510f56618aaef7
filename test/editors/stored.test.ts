/** Editors that store edits and choose among them for each query: the order of edits gives no other bytes, and a dropped one is as if it had never been. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Edit, EditorWeights, EditRequest, Settings } from '../../src/editors/editor.ts';
import { type EditorId, editorNamed } from '../../src/editors/index.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import { type Query, unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
let vlm: Vlm;
let records: EditRecord[];

const settings: Partial<Record<EditorId, Settings>> = {
  'dual-edit': { width: 16, heads: 4, routing: 8 },
  'live-edit': { width: 16, heads: 4 },
  lte: { rank: 0 },
  serac: { scopeWidth: 32, scopeOutput: 8, width: 32, layers: 2, heads: 4, window: 24, pictures: true },
  vead: { width: 32, influenceWidth: 24, heads: 4, routing: 8 },
};
const ids = Object.keys(settings) as EditorId[];

beforeAll(async () => {
  vlm = loadModel(writeRandomLlava(join(root, 'model'), { positions: 256 }), { threads: 1 });
  const world = await writeTinyWorld(join(root, 'world'));
  records = loadRecords(world.train, world.images);
});
afterAll(async () => {
  await vlm.release();
  rmSync(root, { recursive: true, force: true });
});

const made = async (id: EditorId): Promise<{ requests: EditRequest[]; edits: Edit[]; asked: Query[] }> => {
  const editor = await editorNamed(id);
  const options = { out: join(root, id), seed: 1, steps: 3, batch: 4, threads: 1, settings: settings[id]! };
  const weights: EditorWeights = await editor.train!(vlm, records, options);
  const requests = await Promise.all(
    records.slice(0, 4).map(async ({ request }) => ({ ...request, image: await decodeImage(request.image) })),
  );
  // The first request again, with another target: its keys are those of the first.
  requests.push({ ...requests[0]!, target: requests[1]!.target });
  const far = records[5]!.queries.modalLocality;
  const asked = [...requests.slice(0, 4), { ...far, image: await decodeImage(far.image!) }, { ...far, image: undefined }];
  return { requests, edits: await editor.edit(vlm, requests, weights), asked };
};

test.each(ids)(
  '%s: in any order the same edits give the same bytes; a dropped one acts on nothing any more',
  async (id) => {
    const { edits, asked } = await made(id);
    const editor = await editorNamed(id);
    /** One query at a time: what is asked together decides the last bits. */
    const answers = async (some: readonly Edit[]): Promise<string[]> => {
      const model = some.length === 0 ? unedited(vlm) : editor.chain!(vlm, some);
      const out: string[] = [];
      for (const query of asked)
        out.push(JSON.stringify([await model.answerTargets([query]), await model.generate([query], { maxNewTokens: 3 })]));
      return out;
    };
    const whole = await answers(edits);
    await fc.assert(
      fc.asyncProperty(fc.shuffledSubarray(edits, { minLength: edits.length }), async (shuffled) => {
        expect(await answers(shuffled)).toEqual(whole);
      }),
      { numRuns: 3 },
    );
    for (const dropped of edits.slice(0, 2)) {
      const rest = edits.filter((edit) => edit !== dropped);
      const without = await answers(rest);
      expect(await answers(rest.toReversed())).toEqual(without);
      expect(await answers([...rest, dropped])).toEqual(whole);
    }
  },
  120_000,
);
