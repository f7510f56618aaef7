/** Edits from files, applied to a model whatever editor made them. */

import { type AnsweringModel, unedited } from '../models/answer.ts';
import type { Vlm } from '../models/vlm.ts';
import type { Edit } from './editor.ts';
import { readEdit } from './files.ts';
import { editorNamed } from './index.ts';

/** @throws Error that names the file */
export function readEdits(paths: readonly string[]): Edit[] {
  return paths.map((path) => readEdit(path));
}

/**
 * The model under all edits, one after the other; without any, the unedited one.
 * @throws Error when the edits do not combine, or were made for another model
 */
export async function editedModel(vlm: Vlm, edits: readonly Edit[]): Promise<AnsweringModel> {
  const first = edits[0];
  if (first === undefined) return unedited(vlm);
  const ids = [...new Set(edits.map((e) => e.editor))];
  if (ids.length > 1) throw new Error(`edits of different editors do not combine (${ids.join(', ')}); give edits of one editor`);
  const editor = await editorNamed(first.editor);
  if (edits.length === 1) return editor.with(vlm, edits);
  if (editor.chain === undefined) throw new Error(`edits of ${editor.id} do not combine; give one edit`);
  return editor.chain(vlm, edits);
}
