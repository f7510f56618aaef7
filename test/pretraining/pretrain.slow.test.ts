/** Both stages of every mini for a few steps: the losses fall, the folder opens, a stopped run goes on. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { exam } from '../../lab/pretraining/exam.ts';
import { minis } from '../../lab/pretraining/minis.ts';
import { miniNamed, pretrain } from '../../lab/pretraining/pretrain.ts';
import { loadModel } from '../../src/models/load.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-pretrain-'));
afterAll(() => rmSync(folder, { recursive: true }));

test.each(Object.keys(minis))('%s', async (model) => {
  const out = join(folder, model);
  const lines: Record<string, number[]> = { vision: [], decoder: [] };
  const short = { scenes: 2, lessons: 4, drills: 1, facts: 1 };
  const options = {
    model,
    seed: 3,
    out,
    threads: 1,
    settings: {
      ...Object.fromEntries(miniNamed(model).lessons.map(({ name }) => [name, { ...short, steps: 4 }])),
      vision: { steps: 16, batch: 8 },
      // A mini that begins with parts of another first has to put them together.
      decoder: { ...short, scenes: 4, steps: 48 },
    },
    onStep: (stage: string, _step: number, _steps: number, { loss }: { loss: number }) => void lines[stage]?.push(loss),
  };
  const { folder: written } = await pretrain(options);
  // A mini that is put together from others takes over its tower, too.
  const learnsTower = model !== 'mini-minigpt4';
  for (const stage of learnsTower ? ['vision', 'decoder'] : ['decoder']) {
    const losses = lines[stage]!;
    const mean = (part: readonly number[]): number => part.reduce((a, b) => a + b, 0) / part.length;
    const quarter = losses.length / 4;
    expect(losses).toHaveLength(stage === 'vision' ? 16 : 48);
    expect(mean(losses.slice(-quarter)), stage).toBeLessThan(mean(losses.slice(0, quarter)));
  }
  const log = JSON.parse(readFileSync(join(written, 'training.json'), 'utf8'));
  expect(log).toMatchObject({
    model,
    seed: '3',
    stages: { ...(learnsTower ? { vision: { steps: 16 } } : {}), decoder: { scenes: 4 } },
  });
  expect(existsSync(join(written, 'unscaled'))).toBe(false);

  const vlm = loadModel(written, { threads: 1 });
  const { count, overall } = await exam(vlm, { seed: 1, scenes: 1 });
  expect(count).toBeGreaterThan(5);
  expect(overall).toBeGreaterThanOrEqual(0);
  await vlm.release();

  // What is done is not done again.
  const before = lines.decoder!.length;
  await pretrain(options);
  expect(lines.decoder!.length).toBe(before);
});
