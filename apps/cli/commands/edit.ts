/** `visedit edit`: one correction as a file, whether it took, and what it changed around it. */
import { trainingTimeList } from '../../../src/editors/index.ts';
import type { AskedKind } from '../../../src/evaluation/metrics.ts';
import type { CardEntry, EditCheck } from '../../../src/evaluation/scope-card.ts';
import { editorOption } from '../editor-option.ts';
import { defineCommand } from '../frame/command.ts';
import type { CommandContext } from '../frame/context.ts';
import { choice, file, flag, integer, outFile, repeatable, text } from '../frame/values.ts';
import { announceMemory, modelOptions, openingOf } from '../model-options.ts';
import { questionOptions, readQuestion } from '../question.ts';
import { settings, toSettings } from '../settings.ts';

export const command = defineCommand({
  details: `The model itself is not changed; \`generate --edit FILE\` answers with the edit.

The edited model is then asked for the target, and the questions of a scope card are asked before and after the edit: the prompt in other words and on a changed copy of the picture must give the target; other questions and other pictures must keep their answers. When the edited model does not answer with the target, the edit did not take: the file is written all the same, and the exit code is 2.

The prompt is used as it is given. The data sets put " The answer is:" after their questions, and editors trained on them work best with it.

ft-l, ft-v and m-ore need no training. vead comes with weights for the built-in models. The other editors need weights, which this command makes: visedit train EDITOR --model MODEL --data FILE --images DIR --out DIR. For mini-llava and the 12,000 questions of the mini world it takes, on one core: ${trainingTimeList}.`,
  options: {
    model: text('model folder or built-in name', { required: true, placeholder: 'MODEL' }),
    editor: editorOption('editor to use'),
    weights: file("the editor's trained weights (default: those that come with the model)"),
    ...questionOptions,
    target: text('answer that the model should give', { required: true }),
    out: outFile('edit file to write', { required: true, endings: ['.safetensors'] }),
    for: choice('which of the weights that come with the model: trained on questions (vqa) or captions', ['vqa', 'caption'], {
      default: 'vqa',
    }),
    probes: choice('questions asked around the edit: the scope card, or none', ['card', 'none'], { default: 'card' }),
    rephrase: repeatable(text('the prompt in other words (default: made by a template)')),
    sameImage: repeatable(
      file('another picture to which the prompt has the same answer (default: a changed copy of the picture)'),
    ),
    otherImage: repeatable(file('a picture that the edit is not about (default: a drawn landscape)')),
    maxNewTokens: integer('longest answer, in tokens', { default: 32, min: 1, max: 4096 }),
    ...modelOptions,
    set: settings,
    bundle: flag('keep the weights that the edit acts through in its file, instead of once beside all edits of the folder'),
  },
  examples: [
    'edit --model mini-llava --editor vead --image scene.png --prompt "What is at the top left? The answer is:" --target "a cat" --out cat.safetensors',
  ],
  async run({ model, editor: reference, target, out, maxNewTokens, ...given }, context) {
    const [
      { findEditor },
      { shippedWeights, weightsFor },
      { weightsBeside, writeEdit },
      { loadModel },
      { decodeImage },
      { imagesOf, textOf },
      { unedited },
      { checkEdit },
      { probesInChat, probesOf },
      { warnOfWords },
      { recipeOf },
    ] = await Promise.all([
      import('../../../src/editors/outside.ts'),
      import('../../../src/editors/shipped.ts'),
      import('../../../src/editors/files.ts'),
      import('../../../src/models/load.ts'),
      import('../../../src/input/image/decode.ts'),
      import('../../../src/input/segments.ts'),
      import('../../../src/models/answer.ts'),
      import('../../../src/evaluation/scope-card.ts'),
      import('../../../src/evaluation/probes.ts'),
      import('../unknown-words.ts'),
      import('../../../lab/recipes.ts'),
    ]);
    const editor = await findEditor(reference);
    const { id } = editor;
    const vlm = loadModel(model, openingOf(given));
    announceMemory(vlm, context);
    const path = given.weights ?? (editor.trained ? shippedWeights(model, id, given.for) : undefined);
    const weights = weightsFor(vlm, editor, path);
    const pictures = (paths: readonly string[]) => Promise.all(paths.map((path) => decodeImage(path)));
    const { asked, messages, words } = await readQuestion(vlm, given, context);
    const request = { ...asked, target };
    const prompt = textOf(asked.prompt);
    if (imagesOf(asked).length === 0) throw new Error('an edit is about a picture; give --image FILE');
    const around = {
      rephrasings: given.rephrase,
      samePictures: await pictures(given.sameImage),
      otherPictures: await pictures(given.otherImage),
    };
    // Says what is wrong with the prompt or target before any work.
    vlm.layout(request, target);
    const rephrasings = Object.fromEntries(given.rephrase.map((words) => [`the rephrasing ${JSON.stringify(words)}`, words]));
    const warnings = warnOfWords(vlm.codec, { 'the prompt': words, 'the target': target, ...rephrasings }, context);
    const [edit] = await editor.edit(vlm, [request], weights, { ...recipeOf(vlm.decoder, id).edit, ...toSettings(given.set) });
    writeEdit(out, edit!, { bundle: given.bundle });
    const beside = weightsBeside(out);
    const made = () => (messages === undefined ? probesOf(request, vlm.codec, around) : probesInChat(vlm, messages, around));
    const probes = given.probes === 'none' ? [] : made();
    const models = { before: unedited(vlm), after: editor.with(vlm, [edit!]) };
    const check = await checkEdit(models, request, probes, { maxNewTokens, signal: context.signal });
    await vlm.release();
    return {
      data: {
        out,
        ...(beside === undefined ? {} : { weights: beside }),
        editor: id,
        model: edit!.model,
        settings: edit!.settings,
        prompt,
        target,
        ...check,
        warnings,
      },
      text: report(check, target, out, beside, context),
      exitCode: check.took ? 0 : 2,
    };
  },
});

const titles: Readonly<Record<AskedKind, string>> = {
  reliability: 'the question',
  textGenerality: 'in other words',
  modalGenerality: 'similar picture',
  textLocality: 'no picture',
  modalLocality: 'other question, other picture',
  noise: 'same question, noise',
  grey: 'same question, grey picture',
  sameImage: 'other question, same picture',
  sameQuestion: 'same question, other picture',
};

function report(
  { took, exact, before, after, card }: EditCheck,
  target: string,
  out: string,
  beside: string | undefined,
  { table }: CommandContext,
): string {
  const row = ({ kind, prompt, expected, before: then, after: now, ok }: CardEntry) => [
    titles[kind],
    prompt,
    expected,
    then,
    now,
    ok ? 'ok' : 'NO',
  ];
  const said = JSON.stringify(after.text);
  return [
    `before: ${before.text}`,
    `after:  ${after.text}`,
    `probability of "${target}": ${before.probability.toPrecision(3)} before, ${after.probability.toPrecision(3)} after`,
    ...(card.length < 2
      ? []
      : ['', table({ head: ['asked', 'prompt', 'expected', 'before', 'after', ''], rows: card.map(row) }), '']),
    took
      ? `The edit took${exact ? '' : `, and the answer goes on after the target: ${said}`}.`
      : `The edit did not take: the edited model answers ${said}, not ${JSON.stringify(target)}. Try another editor, or a target in words that the model knows.`,
    `The edit is in ${out}.${beside === undefined ? '' : ` It acts through the weights in ${beside}: keep both together.`}`,
  ].join('\n');
}
