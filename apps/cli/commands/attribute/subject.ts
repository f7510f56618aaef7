/** What an attribution looks at: a question to a model, under edits where some are given, and the token of the answer that is explained. */
import type { Asked, RgbImage } from '../../../../src/input/segments.ts';
import type { Reading } from '../../../../src/models/answer.ts';
import type { Vlm } from '../../../../src/models/vlm.ts';
import { editorModules, loadEditors } from '../../editor-option.ts';
import type { CommandContext } from '../../frame/context.ts';
import { file, integer, type ParsedValues, repeatable } from '../../frame/values.ts';
import { announceMemory, modelOptions } from '../../model-options.ts';
import { questionOptions, readQuestion } from '../../question.ts';
import { key, model } from './values.ts';

export const subjectOptions = {
  model,
  ...questionOptions,
  edit: repeatable(file('edit file to apply')),
  editor: editorModules,
  token: integer('which token of the answer is explained, from 1; the model itself says those before it', { default: 1, min: 1 }),
  key,
  ...modelOptions,
};

export interface Subject {
  readonly vlm: Vlm;
  readonly asked: Asked;
  readonly prompt: string;
  readonly images: readonly RgbImage[];
  /** the question and the answer up to the explained token, and what the edits change */
  readonly reading: Reading;
  /** the key token, where it is given */
  readonly keyId: number | undefined;
  readonly warnings: readonly string[];
}

/** @throws Error when the edits act where attribution does not look, or the answer has no such token */
export async function openSubject(
  { model, edit: paths, editor: modules, token, key, dtype, maxMemory, ...question }: ParsedValues<typeof subjectOptions>,
  context: CommandContext,
): Promise<Subject> {
  const [{ loadModel }, { imagesOf, textOf }, { keyTokenId }, { editedModel, readEdits }, { warnOfWords }] = await Promise.all([
    import('../../../../src/models/load.ts'),
    import('../../../../src/input/segments.ts'),
    import('../../../../src/attribution/key-token.ts'),
    import('../../../../src/editors/apply.ts'),
    import('../../unknown-words.ts'),
  ]);
  await loadEditors(modules);
  const edits = readEdits(paths);
  const vlm = loadModel(model, { dtype, maxMemory });
  announceMemory(vlm, context);
  const { asked, words } = await readQuestion(vlm, question);
  const warnings = warnOfWords(vlm.codec, { 'the prompt': words }, context);
  const edited = await editedModel(vlm, edits);
  if (edited.read === undefined)
    throw new Error(`edits of ${edits[0]!.editor} act outside of what attribution looks at; leave out --edit`);
  const [said] = token === 1 ? [] : await edited.generate([asked], { maxNewTokens: token - 1 });
  const answer = said?.tokenIds ?? [];
  if (answer.length < token - 1) throw new Error(`the answer has ${answer.length} tokens; --token ${token} is behind its end`);
  return {
    ...{ vlm, asked, prompt: textOf(asked.prompt), images: imagesOf(asked), warnings },
    reading: await edited.read({ ...asked, answer }),
    keyId: key === undefined ? undefined : keyTokenId(vlm, asked, key),
  };
}
