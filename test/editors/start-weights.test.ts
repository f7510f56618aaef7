/** A training that goes on from weights of an earlier one begins with exactly these, and refuses weights that are not what it learns. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type EditorWeights, fingerprintOf, type TrainOptions } from '../../src/editors/editor.ts';
import { readEditorWeights, trainedWeights } from '../../src/editors/files.ts';
import { findEditor } from '../../src/editors/outside.ts';
import { trainEditor } from '../../src/evaluation/training.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
const model = join(root, 'model');
let world: Awaited<ReturnType<typeof writeTinyWorld>>;

beforeAll(async () => {
  writeRandomLlava(model, { positions: 256 });
  world = await writeTinyWorld(join(root, 'world'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const settings: Readonly<Record<string, TrainOptions['settings']>> = {
  vead: { layer: 1, width: 16, influenceWidth: 12, heads: 4, routing: 0 },
  'live-edit': { layer: 1, width: 16, heads: 4, rank: 2, keys: 2 },
  ike: {},
};

async function train(editor: string, name: string, more: Partial<TrainOptions> = {}): Promise<EditorWeights> {
  const out = join(root, name);
  await trainEditor(
    { model, editor: await findEditor(editor), data: world.train, images: world.images, limit: 8 },
    { out, seed: 1, threads: 1, ...more, settings: { ...settings[editor], ...more.settings } },
  );
  return readEditorWeights(trainedWeights(out));
}

test.each(['vead', 'live-edit'])('%s goes on from what it learned', async (editor) => {
  const first = await train(editor, `${editor}-first`, { steps: 2, batch: 4, rate: 1e-3 });
  const startWeights = trainedWeights(join(root, `${editor}-first`));
  // A rate that moves nothing that float32 can hold.
  const second = await train(editor, `${editor}-second`, { steps: 1, batch: 4, rate: 1e-20, startWeights });
  expect(second.settings.startWeights).toBe(fingerprintOf(first));
  expect(first.settings.startWeights).toBeUndefined();
  for (const [name, { data }] of first.tensors) expect([...second.tensors.get(name)!.data], name).toEqual([...data]);
});

test('weights that this training does not learn are refused by name', async () => {
  const startWeights = trainedWeights(join(root, 'vead-first'));
  await expect(train('vead', 'narrow', { steps: 1, startWeights, settings: { width: 8 } })).rejects.toThrow(
    /cannot be gone on from: its \S+ has the shape \[.*\], this training's \[.*\]/,
  );
  await expect(train('live-edit', 'other', { steps: 1, startWeights })).rejects.toThrow(
    'holds weights of the editor vead, not of live-edit',
  );
  await expect(train('ike', 'none', { startWeights })).rejects.toThrow('--start');
});
