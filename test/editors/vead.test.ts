/** What is VEAD's own: text-only inputs pass untouched, layers are checked, and its training stops, goes on and breaks off without loss. */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { recipeOf } from '../../lab/recipes.ts';
import type { EditorWeights, TrainOptions } from '../../src/editors/editor.ts';
import { readEditorWeights } from '../../src/editors/files.ts';
import { vead } from '../../src/editors/vead/vead.ts';
import { openSafetensors } from '../../src/files/safetensors.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import { unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
const settings = { ...recipeOf({ hidden: 32, layers: 4 }, 'vead').train, width: 32, influenceWidth: 24, heads: 4 };
let vlm: Vlm;
let records: EditRecord[];
let weights: EditorWeights;

const train = (out: string, more: Partial<TrainOptions> = {}): Promise<EditorWeights> =>
  vead.train!(vlm, records, { out: join(root, out), seed: 3, steps: 4, batch: 4, threads: 1, settings, ...more });

beforeAll(async () => {
  vlm = loadModel(writeRandomLlava(join(root, 'model'), { positions: 256 }), { threads: 1 });
  const world = await writeTinyWorld(join(root, 'world'));
  records = loadRecords(world.train, world.images);
  weights = await train('first');
});
afterAll(async () => {
  await vlm.release();
  rmSync(root, { recursive: true, force: true });
});

test('text-only queries get the same bits, alone and beside pictures', async () => {
  const { request, queries } = records[0]!;
  const image = await decodeImage(request.image);
  const [edit] = await vead.edit(vlm, [{ ...request, image }], weights);
  const text = { prompt: queries.textLocality.prompt, target: queries.textLocality.target };
  const picture = { image, prompt: request.prompt, target: request.target };
  const edited = vead.with(vlm, [edit!]);
  const before = await unedited(vlm).answerTargets([text]);
  expect(await edited.answerTargets([text])).toEqual(before);
  expect((await edited.answerTargets([picture, text]))[1]).toEqual(before[0]);
  expect(await edited.generate([text], { maxNewTokens: 5 })).toEqual(await unedited(vlm).generate([text], { maxNewTokens: 5 }));
});

test('a layer out of range is refused with the range', async () => {
  await expect(async () => train('layer', { layer: 3 })).rejects.toThrow(
    'the setting layer of vead must be a whole number from 0 to 2 (a layer must come after it, and model has 4), got 3',
  );
});

describe('training', () => {
  const chosen = (out: string): Buffer => readFileSync(join(root, out, 'weights.safetensors'));
  const steps = 120;

  test('stopped between checkpoints and resumed, it ends with the same bytes as uninterrupted', async () => {
    const losses = new Map<number, number>();
    await train('whole', { steps, onStep: ({ step, loss }) => losses.set(step, loss) });
    const controller = new AbortController();
    const stopped = train('stopped', {
      steps,
      signal: controller.signal,
      onStep: ({ step }) => {
        if (step === 57) controller.abort();
      },
    });
    await expect(stopped).rejects.toThrow('stopped after step 57; run again with --resume');
    const again: number[] = [];
    await train('stopped', {
      steps,
      resume: true,
      onStep: ({ step, loss }) => {
        again.push(step);
        expect(loss).toBe(losses.get(step));
      },
    });
    expect(again[0]).toBe(58);
    expect(chosen('stopped')).toEqual(chosen('whole'));
    const state = (out: string): Buffer => readFileSync(join(root, out, 'checkpoint.safetensors'));
    expect(state('stopped')).toEqual(state('whole'));
  });

  test('a loss that is not finite stops it and leaves the last good checkpoint', async () => {
    // The rate explodes in the second half.
    const exploding = { ...settings, clip: 1e30, hold: 0.5, lastRate: 1e12, hintBias: 0 };
    const run = train('broken', { steps, settings: exploding });
    await expect(run).rejects.toThrow(/the loss is (NaN|-?Infinity)|the gradient norm (NaN|Infinity)/);
    const checkpoint = openSafetensors(join(root, 'broken', 'checkpoint.safetensors'));
    expect(checkpoint.metadata.step).toBe('50');
    for (const entry of checkpoint.entries.values())
      expect(checkpoint.readTensor(entry, { as: 'float32' }).data.every(Number.isFinite)).toBe(true);
    expect(readEditorWeights(join(root, 'broken', 'weights.safetensors')).model.fingerprint).toBe(vlm.fingerprint);
  });
});
