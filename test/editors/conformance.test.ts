/**
 * Every editor of the registry keeps the contract and learns an easy case. An editor joins by its line in the registry.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { editorContract } from '../../lab/contract.ts';
import { recipeOf } from '../../lab/recipes.ts';
import type { Settings } from '../../src/editors/editor.ts';
import { type EditorId, editorIds, editorNamed } from '../../src/editors/index.ts';
import type { TargetAnswer } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { openTinyContract } from './tiny-contract.ts';

const { world, close } = await openTinyContract();
afterAll(close);

test('the registry names its editors by their ids, and names them all when asked for another', async () => {
  for (const id of editorIds) expect((await editorNamed(id)).id).toBe(id);
  await expect(editorNamed('toString')).rejects.toThrow(`editors: ${editorIds.join(', ')}`);
});

for (const id of editorIds)
  describe(id, async () => {
    for (const { name, run } of editorContract(await editorNamed(id), world)) test(name, run);
  });

// Of a training as short as the easy case's; the default is for thousands of edits.
const quicker: Partial<Record<EditorId, Settings>> = { 'dual-edit': { muonRate: 0.02 }, vead: { muonRate: 0.02 } };

const answering = (await Promise.all(editorIds.map((id) => editorNamed(id)))).filter(
  ({ promises }) => promises.answersTarget !== false,
);

describe('an easy case on a model that reads pictures', () => {
  let mini: Vlm;
  beforeAll(() => {
    mini = loadModel('mini-llava', { threads: 1 });
  });
  afterAll(async () => {
    await mini.release();
  });

  test.each(answering.map((editor) => [editor.id as EditorId, editor] as const))(
    '%s: edits that it was trained on, where it is trained, give their targets, word for word when generated',
    async (id, editor) => {
      const { root, records, requests } = world;
      // Targets of one and of two words.
      expect(requests.map(({ target }) => target.split(' ').length)).toEqual([2, 1]);
      const recipe = recipeOf(mini.decoder, id);
      const options = {
        ...{ out: join(root, `${id}-easy`), seed: 1, steps: 40, batch: 2, threads: 1 },
        settings: { ...recipe.train, ...quicker[id] },
      };
      const weights = await editor.train?.(mini, records.slice(0, 2), options);
      // Tables tell by these whether finished weights are those of the settings of today.
      const told = editor.trainingSettings?.(mini, options);
      if (told !== undefined) expect(weights!.settings).toMatchObject(told);
      const edits = await editor.edit(mini, requests, weights, recipe.edit);
      for (const [i, request] of requests.entries()) {
        const edited = editor.with(mini, [edits[i]!]);
        const [{ targetIds, predictedIds }] = (await edited.answerTargets([request])) as [TargetAnswer];
        expect(predictedIds).toEqual(targetIds);
        const [said] = await edited.generate([request], { maxNewTokens: targetIds.length });
        expect(said!.tokenIds).toEqual(targetIds);
      }
    },
    300_000,
  );
});
