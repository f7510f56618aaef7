/** Weights of editors that come with a model: `editors/<editor>-<vqa|caption>.safetensors` in its folder. */
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { DatasetKind } from '../input/records.ts';
import { builtInModels, modelFolder } from '../models/load.ts';
import type { Vlm } from '../models/vlm.ts';
import { checkModel, type Editor, type EditorWeights, needWeights } from './editor.ts';
import { readEditorWeights } from './files.ts';
import { type EditorId, trainingTimes } from './index.ts';

const shippedPath = (model: string, editor: string, kind: DatasetKind): string =>
  join(modelFolder(model), 'editors', `${editor}-${kind}.safetensors`);

/** The file of an editor's weights that comes with a model, if one does. */
export function findShippedWeights(model: string, editor: string, kind: DatasetKind): string | undefined {
  const path = shippedPath(model, editor, kind);
  return existsSync(path) ? path : undefined;
}

/**
 * The file of an editor's weights that comes with a model.
 * @param kind data that the weights were trained on
 * @throws Error that says where the weights were looked for
 */
export function shippedWeights(model: string, editor: string, kind: DatasetKind): string {
  const path = shippedPath(model, editor, kind);
  if (existsSync(path)) return path;
  throw new Error(
    `${model} comes without weights of ${editor} for ${kind} data (${path} does not exist); ${trainingAdvice(editor, model, kind)}`,
  );
}

/** What to do where an editor's weights are missing: the commands that make them, and how long they take. */
function trainingAdvice(editor: string, model: string, kind: DatasetKind): string {
  const time = trainingTimes[editor as EditorId];
  const builtIn = (builtInModels as readonly string[]).includes(model);
  const out = `runs/${editor}-${basename(model)}-${kind}`;
  const data = builtIn ? `runs/world/${kind}_train.json --images runs/world/images` : `${kind}_train.json --images DIR`;
  return [
    `train it first${time === undefined ? '' : ` (about ${time} on one core for mini-llava and questions)`}:`,
    ...(builtIn ? ['  visedit world build --seed 1 --out runs/world'] : []),
    `  visedit train ${editor} --model ${model} --data ${data} --out ${out}`,
    `Then name what it made with: --weights ${out}/weights.safetensors`,
  ].join('\n');
}

/** Reads weights and checks that they are this editor's, for this model. Undefined for editors that learn nothing. */
export function weightsFor(vlm: Vlm, editor: Editor, path: string | undefined): EditorWeights | undefined {
  if (!editor.trained) {
    if (path !== undefined) throw new Error(`the editor ${editor.id} learns nothing and takes no weights; leave out --weights`);
    return undefined;
  }
  if (path === undefined)
    throw new Error(`the editor ${editor.id} needs trained weights; ${trainingAdvice(editor.id, vlm.name, 'vqa')}`);
  const weights = readEditorWeights(path);
  if (weights.editor !== editor.id) throw new Error(`${path} holds weights of the editor ${weights.editor}, not of ${editor.id}`);
  checkModel(path, weights.model, vlm);
  return needWeights(editor.id, vlm, weights, editor.forms?.weights);
}
