/** `visedit generate`: an answer, with corrections applied when edit files are given. */

import { defineCommand } from '../frame/command.ts';
import { integer, number, seed, text } from '../frame/values.ts';
import { editOptions, readGivenEdits } from '../given-edits.ts';
import { announceMemory, modelOptions, openingOf } from '../model-options.ts';
import { questionOptions, readQuestion } from '../question.ts';

export const command = defineCommand({
  details:
    'The answer is greedy unless a temperature is given. Edits come from files (--edit) or from a ledger (--edits), where `visedit edits` keeps them. Several edits of one editor are applied one after the other, in the order given. Edits of different editors do not combine.',
  options: {
    model: text('model folder or built-in name', { required: true, placeholder: 'MODEL' }),
    ...questionOptions,
    ...editOptions,
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
    'generate --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --edits corrections',
  ],
  async run({ model, edit, edits: ledgers, editor, maxNewTokens, temperature, topP, seed, ...question }, context) {
    const [{ loadModel }, { stopAt }, { editedModel }, { Random }, { warnOfWords }] = await Promise.all([
      import('../../../src/models/load.ts'),
      import('../../../src/models/chat.ts'),
      import('../../../src/editors/apply.ts'),
      import('../../../src/random.ts'),
      import('../unknown-words.ts'),
    ]);
    const editsFor = await readGivenEdits({ edit, edits: ledgers, editor });
    const vlm = loadModel(model, openingOf(question));
    const edits = editsFor(vlm);
    announceMemory(vlm, context);
    const { asked: put, words, stop } = await readQuestion(vlm, question, context);
    const warnings = warnOfWords(vlm.codec, { 'the prompt': words }, context);
    const asked = await editedModel(vlm, edits);
    const sampling = temperature === 0 ? {} : { temperature, topP, random: new Random(seed) };
    const { onToken, cut } = stopAt(vlm, stop);
    const [answer] = await asked.generate([put], { maxNewTokens, ...sampling, ...(onToken && { onToken }) });
    await vlm.release();
    const { tokenIds } = answer!;
    const text = cut(answer!.text);
    return { data: { text, tokenIds, warnings }, text };
  },
});
