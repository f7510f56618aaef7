/** Making edits, and taking over those that were made elsewhere. */

import { recipeOf } from '../../../lab/recipes.ts';
import type { Edit } from '../../../src/editors/editor.ts';
import { readEdit, writeEdit } from '../../../src/editors/files.ts';
import { editorNamed } from '../../../src/editors/index.ts';
import { probesInChat, probesOf } from '../../../src/evaluation/probes.ts';
import { checkEdit } from '../../../src/evaluation/scope-card.ts';
import { wordWarnings } from '../../../src/input/text/unknown-words.ts';
import { unedited } from '../../../src/models/answer.ts';
import type { Vlm } from '../../../src/models/vlm.ts';
import { clientsFault } from '../errors.ts';
import { combined, layoutOf, type Models } from './models.ts';
import { putQuestion } from './question.ts';
import type { AdoptOrder, EditFile, EditMade, EditOrder } from './tasks.ts';
import type { Work } from './worker.ts';

const made = (
  { editor, request, model }: Edit,
  { check, warnings }: Pick<EditMade, 'check' | 'warnings'> = { check: null, warnings: [] },
): EditMade => ({ editor, ...request, fingerprint: model.fingerprint, check, warnings });

/** @throws ApiError 409 when the edit does not combine with those that it would stand beside */
async function checkCombines(models: Models, vlm: Vlm, edit: Edit, beside: readonly EditFile[]): Promise<void> {
  await combined(vlm, [...(await Promise.all(beside.map((one) => models.edit(vlm, one)))), edit]);
}

/** The file is complete when this returns. */
export async function edit(models: Models, order: EditOrder, { signal }: Work<never>): Promise<EditMade> {
  const { model, editor: id, image, prompt, target, out, beside } = order;
  const vlm = models.vlm(model);
  const editor = await clientsFault('editor_not_found', 'editor', () => editorNamed(id));
  const weights = await models.weights(model, id, order.weights);
  const { asked: question, messages } = await clientsFault('invalid_prompt', 'prompt', () => putQuestion(vlm, { prompt, image }));
  await layoutOf(vlm, 'prompt', question, target);
  const request = { ...question, target };
  const [result] = await editor.edit(vlm, [request], weights, recipeOf(vlm.decoder, id).edit);
  signal.throwIfAborted();
  await checkCombines(models, vlm, result!, beside);
  const asked = { before: unedited(vlm), after: editor.with(vlm, [result!]) };
  const probes = () => (messages === undefined ? probesOf(request, vlm.codec) : probesInChat(vlm, messages));
  const check = await checkEdit(asked, request, order.card ? probes() : [], { signal });
  const warnings = [...wordWarnings(vlm.codec, 'the prompt', prompt), ...wordWarnings(vlm.codec, 'the target', target)];
  writeEdit(out, result!);
  return { ...made(result!, { check, warnings }), prompt, form: messages === undefined ? 'bare' : 'chat' };
}

export async function adopt(models: Models, { model, path, beside }: AdoptOrder): Promise<EditMade> {
  const vlm = models.vlm(model);
  const given = await clientsFault('invalid_edit_file', 'file', () => readAndCheck(vlm, path), path);
  await checkCombines(models, vlm, given, beside);
  // Weights that came with it stand once beside all edits.
  if (given.weights !== undefined) writeEdit(path, given);
  return made(given);
}

/** Asks one short question under the edit, so that a file whose tensors do not fit is refused now. */
async function readAndCheck(vlm: Vlm, path: string): Promise<Edit> {
  const given = readEdit(path);
  const editor = await editorNamed(given.editor);
  const edited = editor.with(vlm, [given]);
  const image = { width: 8, height: 8, data: new Uint8Array(8 * 8 * 3) };
  await edited.generate([{ prompt: given.request.prompt, image }], { maxNewTokens: 1 });
  return given;
}
