/**
 * How editors are trained for the tables on the minis, where an editor's own defaults are not what was used. One line for each column; every seed
 * of a column is trained alike, and the weights that come with a model are of seed 1.
 */

import type { Settings } from '../../src/editors/editor.ts';
import type { DatasetKind } from '../../src/input/records.ts';

export interface Recipe {
  readonly steps?: number;
  readonly layer?: number;
  readonly settings?: Settings;
  /** records to train on: the first so many; all when absent */
  readonly records?: number;
  /** the training goes on from weights that come with the model, or from those of another training, which comes before */
  readonly from?: 'shipped' | Recipe;
}

const recipes: Readonly<Record<string, Recipe>> = {
  'mini-llava/vqa/vead': { steps: 2600 },
  'mini-llava/vqa/mend': { steps: 1500 },
  'mini-llava/caption/vead': { steps: 1200 },
  'mini-llava/caption/mend': { steps: 1500 },
  'mini-blip2-opt/vqa/vead': { steps: 2200 },
  'mini-blip2-opt/vqa/mend': { steps: 1500 },
  'mini-blip2-opt/caption/vead': { steps: 1200 },
  'mini-blip2-opt/caption/mend': { steps: 1500 },
  'mini-minigpt4/vqa/mend': { steps: 1500 },
  'mini-minigpt4/caption/vead': { steps: 1200 },
  'mini-minigpt4/caption/mend': { steps: 1500 },
  'hard/mini-llava/vqa/vead': { steps: 1800, records: 4000, settings: { routing: 0 }, from: 'shipped' },
  'mini-qwen3-vl/vqa/vead': { steps: 600 },
};

/** Trainings in their order, each of which goes on from the one before. */
export const stagesOf = (recipe: Recipe): readonly Recipe[] =>
  typeof recipe.from === 'object' ? [...stagesOf(recipe.from), recipe] : [recipe];

/** @param model the name of its folder @param own what is asked for instead of the recipe's */
export function recipeFor(model: string, dataset: DatasetKind, editor: string, own: Recipe = {}): Recipe {
  const { settings, ...recipe } = recipes[`${model}/${dataset}/${editor}`] ?? {};
  const given = Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined)) as Recipe;
  const all = { ...settings, ...own.settings };
  return { ...recipe, ...given, ...(Object.keys(all).length === 0 ? {} : { settings: all }) };
}
