/** `visedit edits add`: one correction more in a ledger, or those of a file of records. */
import { basename } from 'node:path';
import type { Correction, Maker } from '../../../../src/ledger/adding.ts';
import { editorOption } from '../../editor-option.ts';
import { defineCommand } from '../../frame/command.ts';
import { choice, file, flag, folder, integer, repeatable, text } from '../../frame/values.ts';
import {
  changedLines,
  conflictLines,
  editData,
  editRows,
  ledgerArgument,
  measureAgain,
  measureOption,
  scopeLegend,
} from '../../ledger.ts';
import { announceMemory, modelOptions, openingOf } from '../../model-options.ts';
import { settings, toSettings } from '../../settings.ts';

export const command = defineCommand({
  details: `The edit is made from a prompt, a picture and a target, or taken from a file that \`visedit edit\` wrote (--file), or made of each record of a data set (--data). Editors that change weights make it on the model under the set's edits.

An edit that contradicts one of the set (the same question about the same picture, another target) is not stored: the exit code is 1. --force stores it all the same.

Then its scope card is measured, and those of the set's other edits again. Questions and pictures that are not given are made by templates. When the target does not come under the set, the edit is stored, and the exit code is 2: \`visedit edits disable\` switches it off.`,
  arguments: { ledger: ledgerArgument },
  options: {
    model: text('model folder or built-in name', { required: true, placeholder: 'MODEL' }),
    editor: editorOption('editor to use; with --file, the module of an editor from outside', false),
    weights: file("the editor's trained weights (default: those that come with the model)"),
    for: choice('which of the weights that come with the model: trained on questions (vqa) or captions', ['vqa', 'caption'], {
      default: 'vqa',
    }),
    set: settings,
    prompt: text('question whose answer is corrected'),
    image: file('picture that the question is about'),
    target: text('answer that the model should give'),
    rephrase: repeatable(text('the prompt in other words (default: made by templates)')),
    sameImage: repeatable(file('another picture to which the prompt has the same answer (default: changed copies)')),
    otherImage: repeatable(file('a picture that the edit is not about (default: a drawn landscape)')),
    file: file('edit file to take in, instead of making an edit; --image gives its picture'),
    data: file('records to make an edit of each (E-VQA or E-IC JSON), instead of one'),
    images: folder('folder that the image paths of --data start from'),
    limit: integer('of --data, the first N records', { min: 1 }),
    note: text('a note that stays with the edit'),
    force: flag('store the edit though it contradicts another one'),
    measure: measureOption,
    maxNewTokens: integer('longest answer, in tokens', { default: 32, min: 1, max: 4096 }),
    ...modelOptions,
  },
  examples: [
    'edits add corrections --model mini-llava --editor ft-l --image scene.png --prompt "What is at the top left? The answer is:" --target "a cat"',
    'edits add corrections --model mini-llava --file cat.safetensors --image scene.png',
    'edits add corrections --model mini-llava --editor ft-l --data runs/world/vqa_test.json --images runs/world/images --limit 10',
  ],
  async run({ ledger: reference, model, measure, maxNewTokens, force, ...given }, context) {
    const [{ loadModel }, { openLedger, defaultSet }, { Additions }, { setId }, { lastCard }] = await Promise.all([
      import('../../../../src/models/load.ts'),
      import('../../../../src/ledger/reference.ts'),
      import('../../../../src/ledger/adding.ts'),
      import('../../../../src/ledger/ledger.ts'),
      import('../../../../src/ledger/cards.ts'),
    ]);
    const vlm = loadModel(model, openingOf(given));
    announceMemory(vlm, context);
    const { maker, editor, corrections } = await whatToAdd(vlm, model, given);
    const ledger = openLedger(reference, 'make');
    try {
      const name = reference.name ?? defaultSet;
      const additions = await Additions.to(vlm, ledger, name, editor);
      const added: string[] = [];
      const conflicts = [];
      let bar: ReturnType<typeof context.progress> | undefined;
      for (const [i, make] of corrections.entries()) {
        context.signal.throwIfAborted();
        if (corrections.length > 1) bar ??= context.progress(corrections.length, 'Adding', { unit: 'edits' });
        bar?.update(i);
        const correction = await make();
        const found = additions.conflicts(correction);
        conflicts.push(...found);
        if (!force && found.some(({ kind }) => kind === 'contradicts')) continue;
        for (const line of conflictLines(ledger, found)) context.warn(line);
        const { id, warnings } = await additions.add(correction, maker, { maxNewTokens, signal: context.signal });
        for (const line of warnings) context.warn(line);
        added.push(id);
      }
      bar?.finish();
      const refused = corrections.length - added.length;
      const set = setId({ model: vlm.name, name });
      const by = added.length === 1 ? added[0] : undefined;
      const { changed } =
        added.length === 0 || measure === 'none'
          ? { changed: [] }
          : await measureAgain(vlm, ledger, set, context, { maxNewTokens, by });
      await vlm.release();
      const edits = await Promise.all(added.map((id) => editData(ledger, ledger.edit(id))));
      const untaken = added.filter((id) => lastCard(ledger.edit(id))?.took === false);
      const contradictions = conflicts.filter(({ kind }) => kind === 'contradicts');
      const lines = [
        ...(refused === 0
          ? []
          : [...conflictLines(ledger, contradictions), `${refused} not stored; --force stores what contradicts.`]),
        ...(added.length === 0 ? [] : [await editRows(ledger, ledger.set(set), context, added), '', scopeLegend]),
        ...changedLines(changed),
        ...untaken.map((id) => `${id} did not take: switch it off with \`visedit edits disable\`, or try another editor.`),
      ];
      return {
        data: { ledger: reference.folder, set, added: edits, conflicts, changed },
        text: lines.join('\n'),
        exitCode: refused > 0 ? 1 : untaken.length > 0 ? 2 : 0,
      };
    } finally {
      ledger.close();
    }
  },
});

type Given = Pick<
  Parameters<(typeof command)['run']>[0],
  | 'editor'
  | 'weights'
  | 'for'
  | 'set'
  | 'prompt'
  | 'image'
  | 'target'
  | 'rephrase'
  | 'sameImage'
  | 'otherImage'
  | 'file'
  | 'data'
  | 'images'
  | 'limit'
  | 'note'
>;

interface ToAdd {
  readonly maker: Maker;
  /** its id */
  readonly editor: string;
  /** each read when its turn comes */
  readonly corrections: readonly (() => Promise<Correction>)[];
}

/** @throws Error when too much or too little is given */
async function whatToAdd(vlm: import('../../../../src/models/vlm.ts').Vlm, model: string, given: Given): Promise<ToAdd> {
  const [{ findEditor }, { decodeImage }] = await Promise.all([
    import('../../../../src/editors/outside.ts'),
    import('../../../../src/input/image/decode.ts'),
  ]);
  const ways = [given.file, given.data, given.prompt].filter((way) => way !== undefined);
  if (ways.length !== 1) throw new Error('give one of: --prompt with --image and --target, or --file, or --data with --images');
  const pictures = (paths: readonly string[]) => Promise.all(paths.map((path) => decodeImage(path)));
  const around = async () => ({
    rephrasings: given.rephrase,
    samePictures: await pictures(given.sameImage),
    otherPictures: await pictures(given.otherImage),
    note: given.note,
  });
  if (given.file !== undefined) {
    const [{ readEdit }, { editorNamed }] = await Promise.all([
      import('../../../../src/editors/files.ts'),
      import('../../../../src/editors/index.ts'),
    ]);
    if (given.editor !== undefined) await findEditor(given.editor);
    const edit = readEdit(given.file);
    (await editorNamed(edit.editor)).with(vlm, [edit]);
    const { image } = given;
    const correction = async () => ({
      ...edit.request,
      picture: image === undefined ? undefined : await decodeImage(image),
      ...(await around()),
    });
    return { maker: { edit }, editor: edit.editor, corrections: [correction] };
  }
  if (given.editor === undefined) throw new Error('no editor is named; give --editor, such as --editor ft-l');
  const [{ shippedWeights, weightsFor }, { recipeOf }] = await Promise.all([
    import('../../../../src/editors/shipped.ts'),
    import('../../../../lab/recipes.ts'),
  ]);
  const editor = await findEditor(given.editor);
  const path = given.weights ?? (editor.trained ? shippedWeights(model, editor.id, given.for) : undefined);
  const maker: Maker = {
    editor,
    weights: weightsFor(vlm, editor, path),
    weightsName: path === undefined ? null : basename(path, '.safetensors'),
    settings: { ...recipeOf(vlm.decoder, editor.id).edit, ...toSettings(given.set) },
  };
  if (given.data !== undefined) {
    if (given.images === undefined) throw new Error('--data needs --images, the folder that its image paths start from');
    const { loadRecords } = await import('../../../../src/input/records.ts');
    const records = loadRecords(given.data, given.images).slice(0, given.limit);
    const corrections = records.map(({ request, queries: { textGenerality, modalGenerality, modalLocality } }) => async () => ({
      ...{ prompt: request.prompt, target: request.target, picture: await decodeImage(request.image), note: given.note },
      rephrasings: [textGenerality.prompt],
      samePictures: await pictures(modalGenerality.image === null ? [] : [modalGenerality.image]),
      otherPictures: await pictures(modalLocality.image === null ? [] : [modalLocality.image]),
    }));
    return { maker, editor: editor.id, corrections };
  }
  const { prompt, image, target } = given;
  if (image === undefined || target === undefined)
    throw new Error(
      `--prompt needs ${image === undefined ? '--image, the picture that it is about' : '--target, the answer that the model should give'}`,
    );
  const correction = async () => ({ prompt: prompt!, target, picture: await decodeImage(image), ...(await around()) });
  return { maker, editor: editor.id, corrections: [correction] };
}
