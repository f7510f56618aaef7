/** `visedit generate`: an answer, with corrections applied when edit files are given. */

import { editorModules, loadEditors } from '../editor-option.ts';
import { defineCommand } from '../frame/command.ts';
import { file, integer, number, repeatable, seed, text } from '../frame/values.ts';
import { announceMemory, modelOptions } from '../model-options.ts';

export const command = defineCommand({
  details:
    'The answer is greedy unless a temperature is given. Several edits of one editor are applied one after the other, in the order given. Edits of different editors do not combine.',
  options: {
    model: text('model folder or built-in name', { required: true, placeholder: 'MODEL' }),
    prompt: text('question', { required: true }),
    image: file('picture that the question is about'),
    edit: repeatable(file('edit file to apply')),
    editor: editorModules,
    maxNewTokens: integer('longest answer, in tokens (default: what the generation_config.json of the model says, or 32)', {
      min: 1,
      max: 100_000,
    }),
    temperature: number('0 takes the most probable token; higher values give more varied answers', {
      default: 0,
      min: 0,
      max: 100,
    }),
    topP: number('sample from the most probable tokens that together have this probability', { default: 1, above: 0, max: 1 }),
    seed: seed(),
    ...modelOptions,
  },
  examples: [
    'generate --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:"',
    'generate --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --edit cat.safetensors',
  ],
  async run(
    { model, prompt, image: picture, edit: paths, editor: modules, maxNewTokens, temperature, topP, seed, dtype, maxMemory },
    context,
  ) {
    const [{ loadModel }, { decodeImage }, { editedModel, readEdits }, { Random }, { warnOfWords }] = await Promise.all([
      import('../../../src/models/load.ts'),
      import('../../../src/input/image/decode.ts'),
      import('../../../src/editors/apply.ts'),
      import('../../../src/random.ts'),
      import('../unknown-words.ts'),
    ]);
    await loadEditors(modules);
    const edits = readEdits(paths);
    const vlm = loadModel(model, { dtype, maxMemory });
    announceMemory(vlm, context);
    const warnings = warnOfWords(vlm.codec, { 'the prompt': prompt }, context);
    const image = picture === undefined ? undefined : await decodeImage(picture);
    const asked = await editedModel(vlm, edits);
    const sampling = temperature === 0 ? {} : { temperature, topP, random: new Random(seed) };
    const [answer] = await asked.generate([{ image, prompt }], { maxNewTokens, ...sampling });
    await vlm.release();
    const { text, tokenIds } = answer!;
    return { data: { text, tokenIds, warnings }, text };
  },
});
