/** Trainings on a device that takes several steps in one run, beside the other programs of its model, learn what those of the processor learn. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { recipeOf } from '../../lab/recipes.ts';
import { type EditorId, editorNamed } from '../../src/editors/index.ts';
import { openSafetensors } from '../../src/files/safetensors.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { devices } from '../../src/onnx/device.ts';
import { engineFor } from '../../src/runtime/node.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
let models: Vlm[];
let records: EditRecord[];
beforeAll(async () => {
  const folder = writeRandomLlava(join(root, 'model'), { positions: 256 });
  const like = { ...devices.cpu, oneSession: true, stepsPerRun: 3 };
  models = [devices.cpu, like].map((device) => loadModel(folder, { device: 'cpu', threads: 1, behind: () => engineFor(device) }));
  const world = await writeTinyWorld(join(root, 'world'));
  records = loadRecords(world.train, world.images);
});
afterAll(async () => {
  for (const vlm of models) await vlm.release();
  rmSync(root, { recursive: true, force: true });
});

/** Those whose steps follow from the seed alone. */
const ids: readonly EditorId[] = ['dual-edit', 'live-edit', 'lte', 'mend', 'serac', 'vead'];

test.each(ids)('%s', async (id) => {
  const editor = await editorNamed(id);
  const losses: number[][] = [];
  const state: Float32Array[] = [];
  for (const [i, vlm] of models.entries()) {
    const own: number[] = [];
    const settings = recipeOf(vlm.decoder, id).train;
    const options = { out: join(root, `${id}${i}`), seed: 1, steps: 4, batch: 2, threads: 1, settings };
    await editor.train!(vlm, records, { ...options, onStep: ({ loss }) => own.push(loss) });
    losses.push(own);
    const file = openSafetensors(join(options.out, 'checkpoint.safetensors'));
    expect(file.metadata.step).toBe('4');
    const weights = [...file.entries].filter(([name]) => name.startsWith('w:'));
    state.push(
      Float32Array.from(weights.flatMap(([, entry]) => [...(file.readTensor(entry, { as: 'float32' }).data as Float32Array)])),
    );
  }
  const [a, b] = losses as [number[], number[]];
  expect(b).toHaveLength(4);
  // Products within a loop are not laid out anew, which moves their last bits.
  for (const [i, loss] of a.entries()) expect(Math.abs(b[i]! - loss)).toBeLessThan(1e-5 * Math.abs(loss));
  const size = Math.hypot(...state[0]!.subarray(0, 10_000));
  expect(Math.hypot(...state[0]!.subarray(0, 10_000).map((x, i) => x - state[1]![i]!))).toBeLessThan(1e-4 * size);
});
