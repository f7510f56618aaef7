/** Weights of editors that come with a model: `editors/<editor>-<vqa|caption>.safetensors` in its folder. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { DatasetKind } from '../input/records.ts';
import { modelFolder } from '../models/load.ts';
import type { Vlm } from '../models/vlm.ts';
import { checkModel, type Editor, type EditorWeights } from './editor.ts';
import { readEditorWeights } from './files.ts';

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
    `${model} comes without ${editor} weights for ${kind} data (${path} does not exist); train some with: visedit train ${editor}, and name them with --weights`,
  );
}

/** Reads weights and checks that they are this editor's, for this model. Undefined for editors that learn nothing. */
export function weightsFor(vlm: Vlm, editor: Editor, path: string | undefined): EditorWeights | undefined {
  if (!editor.trained) {
    if (path !== undefined) throw new Error(`the editor ${editor.id} learns nothing and takes no weights; leave out --weights`);
    return undefined;
  }
  if (path === undefined)
    throw new Error(
      `the editor ${editor.id} needs trained weights; train some with: visedit train ${editor.id}, and name them with --weights`,
    );
  const weights = readEditorWeights(path);
  if (weights.editor !== editor.id) throw new Error(`${path} holds weights of the editor ${weights.editor}, not of ${editor.id}`);
  checkModel(path, weights.model, vlm);
  return weights;
}
