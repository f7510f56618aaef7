/** What an attribution looks at: a question to a model, under edits where some are given, and the token of the answer that is explained. */
import type { Subject as Looked } from '../../../../src/attribution/tools/tool.ts';
import type { Asked, RgbImage } from '../../../../src/input/segments.ts';
import type { Vlm } from '../../../../src/models/vlm.ts';
import type { CommandContext } from '../../frame/context.ts';
import { integer, type ParsedValues } from '../../frame/values.ts';
import { editOptions, readGivenEdits } from '../../given-edits.ts';
import { announceMemory, modelOptions, openingOf } from '../../model-options.ts';
import { questionOptions, readQuestion } from '../../question.ts';
import { key, model } from './values.ts';

export const subjectOptions = {
  model,
  ...questionOptions,
  ...editOptions,
  token: integer('which token of the answer is explained, from 1; the model itself says those before it', { default: 1, min: 1 }),
  key,
  ...modelOptions,
};

type Given = ParsedValues<typeof subjectOptions>;

/** A model under edits, ready to be looked into. */
export interface OpenModel {
  readonly vlm: Vlm;
  /** @param token of the answer, from 1 @param key the explained token as text; absent: what the model says */
  look(asked: Asked, token: number, key: string | undefined): Promise<UnderEdits>;
}

/** A question under edits, and the same without them: the same tokens of the answer stand behind it. */
export interface UnderEdits extends Looked {
  readonly without?: Looked;
}

/** @throws Error when the edits act where attribution does not look */
export async function openModel(
  { model, edit, edits: ledgers, editor, ...given }: Given,
  context: CommandContext,
): Promise<OpenModel> {
  const [{ loadModel }, { readInput }, { keyTokenId }, { editedModel }] = await Promise.all([
    import('../../../../src/models/load.ts'),
    import('../../../../src/models/answer.ts'),
    import('../../../../src/attribution/key-token.ts'),
    import('../../../../src/editors/apply.ts'),
  ]);
  const editsFor = await readGivenEdits({ edit, edits: ledgers, editor });
  const vlm = loadModel(model, openingOf(given));
  const edits = editsFor(vlm);
  announceMemory(vlm, context);
  const edited = await editedModel(vlm, edits);
  const { read } = edited;
  if (read === undefined)
    throw new Error(`edits of ${edits[0]!.editor} act outside of what attribution looks at; leave out --edit and --edits`);
  return {
    vlm,
    async look(asked, token, key) {
      const [said] = token === 1 ? [] : await edited.generate([asked], { maxNewTokens: token - 1 });
      const answer = said?.tokenIds ?? [];
      if (answer.length < token - 1)
        throw new Error(`the answer has ${answer.length} tokens; --token ${token} is behind its end`);
      const keyId = key === undefined ? undefined : keyTokenId(vlm, asked, key);
      const plain = (other: Asked) => readInput(vlm, { ...other, answer });
      return {
        ...{ vlm, asked, keyId },
        reading: await read({ ...asked, answer }),
        read: (other) => read({ ...other, answer }),
        ...(edits.length === 0 ? {} : { without: { vlm, asked, keyId, reading: await plain(asked), read: plain } }),
      };
    },
  };
}

export interface Subject extends UnderEdits {
  readonly prompt: string;
  readonly images: readonly RgbImage[];
  readonly warnings: readonly string[];
}

/** @throws Error when the edits act where attribution does not look, or the answer has no such token */
export async function openSubject(given: Given, context: CommandContext): Promise<Subject> {
  const [{ imagesOf, textOf }, { warnOfWords }] = await Promise.all([
    import('../../../../src/input/segments.ts'),
    import('../../unknown-words.ts'),
  ]);
  const model = await openModel(given, context);
  const { asked, words } = await readQuestion(model.vlm, given, context);
  const warnings = warnOfWords(model.vlm.codec, { 'the prompt': words }, context);
  const looked = await model.look(asked, given.token, given.key);
  return { ...looked, prompt: textOf(asked.prompt), images: imagesOf(asked), warnings };
}
