/** Answers as one run are those of one step after the other, for any mix of lengths, pictures, ends and limits, edited and not. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { modelId } from '../../src/editors/editor.ts';
import { initialAdapter } from '../../src/editors/vead/adapter.ts';
import { vead, veadConfig } from '../../src/editors/vead/vead.ts';
import { bind, f32, graphHash, input, mul, sum } from '../../src/graph/index.ts';
import { unedited } from '../../src/models/answer.ts';
import { builtInModels, loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { devices } from '../../src/onnx/device.ts';
import { Random } from '../../src/random.ts';
import { compile, engineFor } from '../../src/runtime/node.ts';
import { randomPicture, writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder } from '../tiny-world.ts';

const root = temporaryFolder();
const whole = { ...devices.cpu, wholeAnswers: true };
const open = (model: string): [Vlm, Vlm] => [
  loadModel(model, { device: 'cpu', threads: 1 }),
  loadModel(model, { device: 'cpu', threads: 1, behind: () => engineFor(whole) }),
];
const models: Vlm[] = [];
const opened = (model: string): [Vlm, Vlm] => {
  const both = open(model);
  models.push(...both);
  return both;
};
afterAll(async () => {
  for (const vlm of models) await vlm.release();
  rmSync(root, { recursive: true, force: true });
});

test('a loop over steps gives the tokens of single steps', async () => {
  const [steps, loop] = opened(writeRandomLlava(join(root, 'model'), { positions: 64 }));
  const asked = fc.array(
    fc.record({
      prompt: fc.constantFrom('What is there?', 'What is in the middle? The answer is:', 'a cat and a tree'),
      image: fc.constantFrom(undefined, 'one', 'two'),
    }),
    { minLength: 1, maxLength: 4 },
  );
  await fc.assert(
    fc.asyncProperty(asked, fc.integer({ min: 1, max: 60 }), fc.boolean(), async (queries, maxNewTokens, ends) => {
      const given = queries.map(({ prompt, image }) => ({
        prompt,
        ...(image === undefined ? {} : { image: randomPicture(image) }),
      }));
      const ask = (vlm: Vlm, eosIds: number[]) => unedited(vlm).generate(given, { maxNewTokens, eosIds });
      const free = await ask(steps, []);
      // A token that one of the answers has in its middle.
      const some = free[0]!.tokenIds;
      const eosIds = ends ? [some[some.length >> 1]!, 7, 7] : [];
      expect(await ask(loop, eosIds)).toEqual(await ask(steps, eosIds));
    }),
    { numRuns: 12 },
  );
});

test.each(builtInModels)('%s answers the same in one run', async (name) => {
  const [steps, loop] = opened(name);
  const given = [{ image: randomPicture('a', 96), prompt: 'What is in the middle? The answer is:' }, { prompt: 'What is' }];
  const ask = (vlm: Vlm) => unedited(vlm).generate(given, { maxNewTokens: 10 });
  expect(await ask(loop)).toEqual(await ask(steps));
});

test('on a device with half precision too, where keys and values are carried in it', async () => {
  const folder = writeRandomLlava(join(root, 'half'), { positions: 64, half: true });
  const half = { ...devices.cpu, half: true };
  const [steps, loop] = [half, { ...half, wholeAnswers: true }].map((device) =>
    loadModel(folder, { device: 'cpu', threads: 1, behind: () => engineFor(device) }),
  ) as [Vlm, Vlm];
  models.push(steps, loop);
  const given = [{ image: randomPicture('a'), prompt: 'What is in the middle?' }, { prompt: 'a cat' }];
  const ask = (vlm: Vlm) => unedited(vlm).generate(given, { maxNewTokens: 12, eosIds: [] });
  expect(await ask(loop)).toEqual(await ask(steps));
});

test('answers under an edit, whose pictures are read once, are those of single steps', async () => {
  const answers = [];
  for (const vlm of opened(writeRandomLlava(join(root, 'edited'), { positions: 64 }))) {
    const settings = { width: 16, influenceWidth: 12, heads: 4 };
    const config = veadConfig(vlm, { layer: 1, settings });
    const tensors = initialAdapter({ hidden: vlm.decoder.hidden, ...settings }, new Random('edit'), false);
    for (const tensor of tensors.values()) for (let i = 0; i < tensor.data.length; i++) tensor.data[i]! *= 3;
    const weights = { editor: 'vead', model: modelId(vlm), settings: { layer: config.layer, ...settings }, tensors };
    const image = randomPicture('a');
    const [edit] = await vead.edit(vlm, [{ image, prompt: 'What is there?', target: 'a cat' }], weights);
    const asked = [
      { image, prompt: 'What is in the middle?' },
      { image: randomPicture('b'), prompt: 'What?' },
      { prompt: 'a cat' },
    ];
    answers.push(await vead.with(vlm, [edit!]).generate(asked, { maxNewTokens: 9, eosIds: [] }));
  }
  expect(answers[1]).toEqual(answers[0]);
});

test('inputs become values of another graph, and only what depends on them is made anew', async () => {
  const [x, w] = [input('x', ['b', 2]), input('w', [2])];
  const kept = mul(w, 2);
  const outputs = { y: sum(mul(x, kept)), kept };
  const bound = bind(outputs, new Map([['x', mul(input('z', ['b', 2]), 3)]]));
  expect(bound.kept).toBe(kept);
  expect(graphHash(bind(outputs, new Map()))).toBe(graphHash(outputs));
  expect(() => bind(outputs, new Map([['x', input('z', ['b', 3])]]))).toThrow(
    'input x is float32[b, 2], and is bound to float32[b, 3]',
  );
  const program = await compile({ y: bound.y! });
  expect((await program.run({ z: f32([1, 2], [1, 2]), w: f32([5, 7], [2]) })).y!.data[0]).toBe(6 * (5 + 14));
  await program.release();
});
