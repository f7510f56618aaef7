/** Edits of weights leave the program: an adapter folder and a merged model, read back here, give the logits of the model under the edits. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { recipeOf } from '../../lab/recipes.ts';
import { moduleOf, writeAdapter } from '../../src/editors/export/peft.ts';
import { wholeChanges } from '../../src/editors/gradients/changes.ts';
import { type EditorId, editorIds, editorNamed } from '../../src/editors/index.ts';
import { openSafetensors } from '../../src/files/safetensors.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import type { AnsweringModel } from '../../src/models/answer.ts';
import { unedited } from '../../src/models/answer.ts';
import { convert } from '../../src/models/convert.ts';
import { loadModel } from '../../src/models/load.ts';
import { openTinyContract } from './tiny-contract.ts';

const { world, model, close } = await openTinyContract();
afterAll(close);
const { vlm, records, requests, queries, root } = world;
const editors = await Promise.all(editorIds.map((id) => editorNamed(id)));
const writing = editors.filter(({ changes }) => changes !== undefined).map(({ id }) => id as EditorId);

const scores = async (model: AnsweringModel): Promise<number[]> =>
  (await model.answerTargets([...queries, requests[1]!])).flatMap(({ logProbs }) => [...logProbs]);
const apart = (a: readonly number[], b: readonly number[]): number => Math.max(...a.map((x, i) => Math.abs(x - b[i]!)));

/** What an adapter adds to each weight, by its module. */
function added(path: string): Map<string, Float32Array> {
  const file = openSafetensors(join(path, 'adapter_model.safetensors'));
  const read = (name: string): Tensor<'float32'> =>
    file.readTensor(file.entries.get(name)!, { as: 'float32' }) as Tensor<'float32'>;
  const out = new Map<string, Float32Array>();
  for (const name of file.entries.keys()) {
    const module = name.replace(/^base_model\.model\./, '').replace(/\.lora_[AB]\.(weight|bias)$/, '');
    if (name.endsWith('.lora_B.bias')) out.set(`${module}.bias`, read(name).data);
    if (!name.endsWith('.lora_A.weight')) continue;
    const [a, b] = [read(name), read(name.replace('lora_A', 'lora_B'))];
    const [r, width] = a.shape as [number, number];
    const [rows] = b.shape as [number];
    const product = new Float32Array(rows * width);
    for (let o = 0; o < rows; o++)
      for (let k = 0; k < r; k++)
        for (let i = 0; i < width; i++) product[o * width + i]! += b.data[o * r + k]! * a.data[k * width + i]!;
    out.set(`${module}.weight`, product);
  }
  return out;
}

describe.each(writing)('%s', (id) => {
  test('an adapter adds what the edits add; the merged model has their logits', async () => {
    const editor = await editorNamed(id);
    const recipe = recipeOf(vlm.decoder, id);
    const options = { out: join(root, id), seed: 1, steps: 2, batch: 2, threads: 1, settings: recipe.train };
    const weights = editor.trained ? await editor.train!(vlm, records, options) : undefined;
    const edits = await editor.edit(vlm, requests, weights, recipe.edit);
    const changes = await editor.changes!(vlm, edits);
    const whole = await wholeChanges(vlm, changes);
    const chained = await scores(editor.chain!(vlm, edits));
    expect(apart(chained, await scores(unedited(vlm)))).toBeGreaterThan(1e-4);

    const adapter = join(root, `${id}-adapter`);
    const { ranks } = await writeAdapter(vlm, changes, { out: adapter, model: vlm.name, maxRank: 4096 });
    const config = JSON.parse(readFileSync(join(adapter, 'adapter_config.json'), 'utf8'));
    expect(config).toMatchObject({ peft_type: 'LORA', r: Math.max(...Object.values(ranks)), target_modules: Object.keys(ranks) });
    const sums = added(adapter);
    for (const [name, { data }] of whole) {
      const kind = name.split('.').at(-1)!;
      const own = sums.get(`${moduleOf(name)}.${kind}`)!;
      expect(apart([...data], [...own])).toBeLessThan(1e-5);
    }
    const largest = Math.max(...Object.values(ranks));
    await expect(writeAdapter(vlm, changes, { out: adapter, model: '', maxRank: 4096 })).rejects.toThrow(
      /is not empty; name a new folder/,
    );
    await expect(writeAdapter(vlm, changes, { out: join(root, 'none'), model: '', maxRank: largest - 1 })).rejects.toThrow(
      `needs rank ${largest}, and the largest allowed is ${largest - 1}`,
    );

    const merged = join(root, `${id}-merged`);
    await convert(model, { out: merged, dtype: 'float32', changes: whole });
    const opened = loadModel(merged, { threads: 1 });
    expect(apart(await scores(unedited(opened)), chained)).toBeLessThan(1e-4);
    await opened.release();
  });
});

test("names of modules are those of transformers' classes", () => {
  const names = {
    'language_model.model.layers.0.mlp.down_proj.weight': 'model.language_model.layers.0.mlp.down_proj',
    'language_model.model.decoder.layers.0.fc2.weight': 'language_model.model.decoder.layers.0.fc2',
    'multi_modal_projector.linear_1.bias': 'model.multi_modal_projector.linear_1',
    'model.layers.0.mlp.up_proj.weight': 'model.language_model.layers.0.mlp.up_proj',
    'visual.merger.mlp.0.weight': 'model.visual.merger.mlp.0',
    'model.language_model.layers.0.mlp.up_proj.weight': 'model.language_model.layers.0.mlp.up_proj',
    'model.text_model.layers.0.mlp.up_proj.weight': 'model.text_model.layers.0.mlp.up_proj',
  };
  expect(Object.fromEntries(Object.keys(names).map((name) => [name, moduleOf(name)]))).toEqual(names);
});

test('weights that transformers has no class for are refused with what to do', async () => {
  expect(() => moduleOf('llama_model.model.layers.0.mlp.down_proj.weight')).toThrow('export merged weights instead');
  const { dtype, shape, data } = { dtype: 'float32' as const, shape: [2], data: new Float32Array(2) };
  const norm = new Map([['language_model.model.norm.weight', { dense: [{ dtype, shape, data }], factored: [] }]]);
  await expect(writeAdapter(vlm, norm, { out: join(root, 'none'), model: '', maxRank: 4 })).rejects.toThrow(
    'language_model.model.norm.weight',
  );
  const change = new Map([['nowhere.weight', { dtype, shape, data }]]);
  await expect(convert(model, { out: join(root, 'nowhere'), changes: change })).rejects.toThrow(
    'stores no weight nowhere.weight',
  );
});
