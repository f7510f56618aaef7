/** A batch whose gradients are computed in parts learns what the whole batch learns, for any sizes. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { recipeOf } from '../../lab/recipes.ts';
import { initialAdapter } from '../../src/editors/vead/adapter.ts';
import { Preparer } from '../../src/editors/vead/prepare.ts';
import { stepFeeds, type VeadConfig, veadTrainer } from '../../src/editors/vead/train.ts';
import { veadConfig } from '../../src/editors/vead/vead.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import type { Trainer } from '../../src/nn/trainer.ts';
import { Random } from '../../src/random.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
let vlm: Vlm;
let records: EditRecord[];
let preparer: Preparer;
let config: VeadConfig;

beforeAll(async () => {
  vlm = loadModel(writeRandomLlava(join(root, 'model'), { positions: 256 }), { threads: 1 });
  const world = await writeTinyWorld(join(root, 'world'));
  records = loadRecords(world.train, world.images);
  config = veadConfig(vlm, {
    layer: 1,
    settings: { ...recipeOf(vlm.decoder, 'vead').train, width: 16, influenceWidth: 12, heads: 4 },
  });
  preparer = new Preparer(vlm, records, config, new Random('noise'));
});
afterAll(async () => {
  await vlm.release();
  rmSync(root, { recursive: true, force: true });
});

const shape = () => ({ hidden: vlm.decoder.hidden, width: 16, heads: 4, influenceWidth: 12 });
const trainer = (microBatch: number): Promise<Trainer> =>
  veadTrainer(vlm, { ...config, batch: 12, microBatch }, shape(), initialAdapter(shape(), new Random('start')), 1);

test('gradients of the parts add up to the gradient of the batch, and so do the steps', async () => {
  const [whole, parts] = await Promise.all([trainer(12), trainer(1)]);
  const start = whole.state();
  const draw = { choice: 1, sampled: [0, 2, 3] };
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 2, max: 12 }), fc.integer({ min: 1, max: 6 }), async (batch, micro) => {
      const prepared = await preparer.get(Array.from({ length: batch }, (_, i) => i));
      const split = Array.from({ length: Math.ceil(batch / micro) }, (_, i) => prepared.slice(i * micro, (i + 1) * micro));
      for (const one of [whole, parts]) one.restore(0, start);
      for (let step = 0; step < 3; step++) {
        const a = await whole.run(stepFeeds(vlm, prepared, draw, -3), 1e-3);
        const b = await parts.run(
          split.map((part) => stepFeeds(vlm, part, draw, -3, undefined, prepared)),
          1e-3,
        );
        expect(Math.abs(a.loss - b.loss)).toBeLessThan(2e-5 * Math.abs(a.loss));
        expect(Math.abs(a.gradientNorm - b.gradientNorm)).toBeLessThan(2e-4 * a.gradientNorm);
        for (const name of ['rel', 'loc', 'up', 'gateRight']) {
          const [x, y] = [a, b].map(({ metrics }) => (metrics[name]!.data as Float32Array)[0]!) as [number, number];
          expect(Math.abs(x - y), name).toBeLessThan(1e-4 * Math.max(1, Math.abs(x)));
        }
        if (step > 0) continue;
        // Adam's first moment after one step is a tenth of the gradient.
        for (const [name, m] of whole.state()) {
          if (!name.startsWith('m:')) continue;
          const other = parts.state().get(name)!.data;
          const largest = m.data.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-6);
          expect(Math.max(...m.data.map((x, i) => Math.abs(x - other[i]!))) / largest, name).toBeLessThan(2e-3);
        }
      }
    }),
    { numRuns: 8, seed: 5 },
  );
  await whole.release();
  await parts.release();
});

test('a trainer for whole batches refuses parts', async () => {
  const whole = await trainer(12);
  const prepared = await preparer.get([0, 1]);
  const feeds = stepFeeds(vlm, prepared, { choice: 0, sampled: [0] }, 0);
  await expect(whole.run([feeds, feeds], 1e-3)).rejects.toThrow('takes a batch whole');
  await whole.release();
});
