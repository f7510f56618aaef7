/** Edits and editors' weights as files: one safetensors file each, whose metadata says what it is, for which model, and how it was made. */

import { z } from 'zod';
import { parseJson } from '../files/json.ts';
import { openSafetensors, type SafetensorsFile, writeSafetensors } from '../files/safetensors.ts';
import { parseConfig } from '../files/schema.ts';
import type { Tensor } from '../graph/dtype.ts';
import type { Edit, EditorWeights, ModelId, Settings } from './editor.ts';

const VERSION = 1;
const model = z.object({ name: z.string(), fingerprint: z.string() });
const settings = z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null(), z.array(z.number())]));
const request = z.object({ prompt: z.string(), target: z.string() });

function metadata(
  kind: 'edit' | 'weights',
  editor: string,
  of: ModelId,
  values: Settings,
  more: Record<string, unknown> = {},
): Record<string, string> {
  return {
    format: `visedit ${kind}`,
    version: String(VERSION),
    editor,
    model: JSON.stringify(of),
    settings: JSON.stringify(values),
    ...Object.fromEntries(Object.entries(more).map(([k, v]) => [k, JSON.stringify(v)])),
  };
}

function field<T>(file: SafetensorsFile, name: string, schema: z.ZodType<T>): T {
  const text = Object.hasOwn(file.metadata, name) ? file.metadata[name] : undefined;
  if (text === undefined)
    throw new Error(`${file.path}: metadata ${name} is missing; this is not a file that visedit wrote, or it is damaged`);
  const what = `${file.path}: metadata ${name}`;
  return parseConfig(what, schema, parseJson(text, what));
}

function open(
  path: string,
  kind: 'edit' | 'weights',
): { file: SafetensorsFile; editor: string; tensors: Map<string, Tensor<'float32'>> } {
  const file = openSafetensors(path);
  const { format, version, editor } = file.metadata;
  if (format !== `visedit ${kind}`) {
    const given =
      format === 'visedit edit'
        ? `an edit by the editor ${editor}`
        : format === 'visedit weights'
          ? `weights of the editor ${editor}`
          : 'something else';
    const wanted = kind === 'edit' ? 'edit, which `visedit edit` writes' : "editor's weights, which `visedit train` writes";
    throw new Error(`${path} is not an ${wanted}; it holds ${given}`);
  }
  if (version !== String(VERSION)) throw new Error(`${path} has version ${version}; this visedit reads version ${VERSION}`);
  if (editor === undefined) throw new Error(`${path}: metadata editor is missing`);
  const tensors = new Map<string, Tensor<'float32'>>();
  for (const [name, entry] of file.entries) {
    const t = file.readTensor(entry, { as: 'float32' }) as Tensor<'float32'>;
    if (!t.data.every(Number.isFinite)) throw new Error(`${path}: ${name} has values that are not finite`);
    tensors.set(name, t);
  }
  return { file, editor, tensors };
}

/** Writes an edit as one safetensors file, whose metadata say what it is and for which model. */
export function writeEdit(path: string, edit: Edit): void {
  writeSafetensors(path, edit.tensors, metadata('edit', edit.editor, edit.model, edit.settings, { request: edit.request }));
}

/**
 * An edit from its file.
 * @throws Error when the file is damaged, or no edit
 */
export function readEdit(path: string): Edit {
  const { file, editor, tensors } = open(path, 'edit');
  return {
    editor,
    model: field(file, 'model', model),
    settings: field(file, 'settings', settings),
    request: field(file, 'request', request),
    tensors,
  };
}

/** Writes an editor's weights as one safetensors file, whose metadata say what they are and for which model. */
export function writeEditorWeights(path: string, weights: EditorWeights): void {
  writeSafetensors(path, weights.tensors, metadata('weights', weights.editor, weights.model, weights.settings));
}

/**
 * What an editor learned, from its file.
 * @throws Error when the file is damaged, or holds no editor's weights
 */
export function readEditorWeights(path: string): EditorWeights {
  const { file, editor, tensors } = open(path, 'weights');
  return { editor, model: field(file, 'model', model), settings: field(file, 'settings', settings), tensors };
}
