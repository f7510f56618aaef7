/** `visedit edit`: one correction as a file, and what the model says before and after. */
import { editorIds } from '../../../src/editors/index.ts';
import type { AnsweringModel } from '../../../src/models/answer.ts';
import { defineCommand } from '../frame/command.ts';
import { choice, file, integer, outFile, text } from '../frame/values.ts';
import { announceMemory, modelOptions } from '../model-options.ts';

export const command = defineCommand({
  details:
    'The file can be given to `generate --edit`; the model itself is not changed. The prompt is taken as it is: data sets of questions put " The answer is:" after theirs, and editors trained on them work best with it.',
  options: {
    model: text('model folder or built-in name', { required: true, placeholder: 'MODEL' }),
    editor: choice('editor to use', editorIds, { required: true }),
    weights: file("the editor's trained weights (default: those that come with the model)"),
    image: file('picture', { required: true }),
    prompt: text('what is asked about it', { required: true }),
    target: text('what the model should answer', { required: true }),
    out: outFile('edit file to write', { required: true, endings: ['.safetensors'] }),
    for: choice('data that default weights were trained on', ['vqa', 'caption'], { default: 'vqa' }),
    maxNewTokens: integer('longest answer shown, in tokens', { default: 32, min: 1, max: 4096 }),
    ...modelOptions,
  },
  examples: [
    'edit --model mini-llava --editor vead --image scene.png --prompt "What is in the middle? The answer is:" --target "a cat" --out cat.safetensors',
  ],
  async run(
    { model, editor: id, weights: path, image: picture, prompt, target, out, for: kind, maxNewTokens, dtype, maxMemory },
    context,
  ) {
    const [
      { editorNamed },
      { shippedWeights, weightsFor },
      { writeEdit },
      { loadModel },
      { decodeImage },
      { unedited },
      { targetProbability },
    ] = await Promise.all([
      import('../../../src/editors/index.ts'),
      import('../../../src/editors/shipped.ts'),
      import('../../../src/editors/files.ts'),
      import('../../../src/models/load.ts'),
      import('../../../src/input/image/decode.ts'),
      import('../../../src/models/answer.ts'),
      import('../../../src/evaluation/metrics.ts'),
    ]);
    const editor = await editorNamed(id);
    const vlm = loadModel(model, { dtype, maxMemory });
    announceMemory(vlm, context);
    const weights = weightsFor(vlm, editor, path ?? (editor.trained ? shippedWeights(model, id, kind) : undefined));
    const image = await decodeImage(picture);
    // Says what is wrong with the prompt or target before any work.
    vlm.layout(prompt, true, target);
    const query = { image, prompt, target };
    const [edit] = await editor.edit(vlm, [query], weights);
    writeEdit(out, edit!);
    const ask = async (asking: AnsweringModel) => {
      const forced = await asking.answerTargets([query]);
      const free = await asking.generate([query], { maxNewTokens });
      return { text: free[0]!.text, probability: targetProbability(forced[0]!) };
    };
    const [before, after] = [await ask(unedited(vlm)), await ask(editor.with(vlm, [edit!]))];
    await vlm.release();
    return {
      data: { out, editor: id, model: edit!.model, settings: edit!.settings, prompt, target, before, after },
      text: [
        `before: ${before.text}`,
        `after:  ${after.text}`,
        `probability of "${target}": ${before.probability.toPrecision(3)} before, ${after.probability.toPrecision(3)} after`,
        `The edit is in ${out}.`,
      ].join('\n'),
    };
  },
});
