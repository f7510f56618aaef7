import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { answerSequences, generateSequences } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import { randomPicture, writeRandomLlava } from '../tiny-model.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-batch-'));
afterAll(() => rmSync(folder, { recursive: true }));

test('pictures in any place, and several of them, are read in one batch as alone', async () => {
  const vlm = loadModel(writeRandomLlava(join(folder, 'llava'), { positions: 96 }), { threads: 1 });
  const [one, other] = [randomPicture(1), randomPicture(2)];
  const inputs = [
    vlm.layout({ prompt: 'What is this?', image: one }, 'a cat'),
    vlm.layout({ prompt: 'What is <image> this?', image: one }, 'a cat'),
    vlm.layout({ prompt: [{ text: 'Which ' }, { picture: one }, { text: ' or ' }, { picture: other }, { text: '?' }] }, 'a cat'),
  ];
  expect(inputs.map(({ spans }) => spans.length)).toEqual([1, 1, 2]);
  expect(new Set(inputs.map(({ spans }) => spans[0]![0]![0])).size).toBe(3);
  const together = await answerSequences(vlm, inputs);
  for (const [i, sequence] of inputs.entries()) {
    const [alone] = await answerSequences(vlm, [sequence]);
    together[i]!.logProbs.forEach((p, t) => {
      expect(p, `input ${i}, token ${t}`).toBeCloseTo(alone!.logProbs[t]!, 4);
    });
    // The same through what inputs with the same pictures share.
    const [shared] = await answerSequences(vlm, [sequence], undefined, 1);
    expect(shared!.logProbs[0]!).toBeCloseTo(alone!.logProbs[0]!, 4);
  }
  const said = await generateSequences(vlm, inputs, { maxNewTokens: 4, eosIds: [] });
  for (const [i, sequence] of inputs.entries())
    expect(said[i]).toEqual((await generateSequences(vlm, [sequence], { maxNewTokens: 4, eosIds: [] }))[0]);
  const [swapped] = await answerSequences(vlm, [
    vlm.layout({ prompt: [{ text: 'Which ' }, { picture: other }, { text: ' or ' }, { picture: one }, { text: '?' }] }, 'a cat'),
  ]);
  expect(swapped!.logProbs[0]).not.toBeCloseTo(together[2]!.logProbs[0]!, 4);
  await vlm.release();
});

test('a prompt and its pictures must agree', () => {
  const vlm = loadModel(join(folder, 'llava'), { threads: 1 });
  const picture = randomPicture(1);
  expect(() => vlm.layout({ prompt: 'What is <image>?' })).toThrow('no image was given');
  expect(() => vlm.layout({ prompt: '<image> <image>', image: picture })).toThrow('<image> 2 times and one picture');
  expect(() => vlm.layout({ prompt: [{ text: 'What is <image>?' }] })).toThrow('<image> once and no picture');
  expect(() => vlm.layout({ prompt: [{ picture }], image: picture })).toThrow('holds its pictures itself');
  expect(() => vlm.layout({ prompt: [] })).toThrow('the prompt is empty');
});
