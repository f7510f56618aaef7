/** Weights that come with the minis stand for seed 1 of a table, so other seeds must be trained in the same way. */
import { expect, test } from 'vitest';
import { withRecipe } from '../../lab/recipes.ts';
import { datasetKinds } from '../../lab/reproduce/data.ts';
import { recipeFor } from '../../lab/reproduce/recipes.ts';
import { readEditorWeights } from '../../src/editors/files.ts';
import { findShippedWeights } from '../../src/editors/shipped.ts';
import { veadSettings } from '../../src/editors/vead/train.ts';
import { veadConfig } from '../../src/editors/vead/vead.ts';
import { builtInModels, loadModel } from '../../src/models/load.ts';

test.each(builtInModels)('%s: the recipe of VEAD is that of its weights', async (model) => {
  const vlm = loadModel(model, { threads: 1 });
  for (const dataset of datasetKinds) {
    const path = findShippedWeights(model, 'vead', dataset);
    const weights = path === undefined ? undefined : readEditorWeights(path);
    // Weights of an earlier backbone are not taken for a table.
    if (weights === undefined || weights.model.fingerprint !== vlm.fingerprint) continue;
    // The routing of stored edits is fitted to the records, beside the training.
    const { seed, records, routingLayer, routingThreshold, ...settings } = weights.settings;
    expect([routingLayer, routingThreshold]).toEqual([expect.any(Number), expect.any(Number)]);
    expect(seed).toBe('1');
    expect(records).toBeGreaterThan(0);
    expect(
      { ...veadSettings(veadConfig(vlm, withRecipe(vlm.decoder, 'vead', recipeFor(model, dataset, 'vead')))) },
      `lab/reproduce/recipes.ts: ${model}/${dataset}/vead`,
    ).toEqual(settings);
  }
  await vlm.release();
});

test('what is asked for comes before the recipe, setting by setting', () => {
  expect(recipeFor('mini-llava', 'caption', 'vead', { steps: undefined, settings: { lossDown: false } })).toEqual({
    steps: 1200,
    settings: { lossDown: false },
  });
  expect(recipeFor('mini-llava', 'caption', 'vead', { steps: 7, settings: { hold: 0.9 } })).toEqual({
    steps: 7,
    settings: { hold: 0.9 },
  });
  expect(recipeFor('other', 'vqa', 'vead')).toEqual({});
});
