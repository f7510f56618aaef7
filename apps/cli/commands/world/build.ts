/** `visedit world build`: the mini world's records in the format of E-VQA and E-IC, with their pictures. */

import { defineCommand } from '../../frame/command.ts';
import { choice, flag, integer, outFolder, seed } from '../../frame/values.ts';

const records = (what: string, count: number) => integer(`number of ${what}`, { default: count, min: 0, max: 1_000_000 });

export const command = defineCommand({
  details:
    'Writes vqa_train.json, vqa_test.json, caption_train.json, caption_test.json and images/ to --out, which must be new or empty. The same options give the same bytes.\n\nA scene, a pair of wording and concept, and a target of a --hard world are for training or for testing in every world alike: what one world trains on is in no other world\'s test. --split seed gives the records of worlds of version 1, where each seed had a split of its own; with seed 1 both are the same.\n\n--hard gives question edits targets such as "pink parrot": a colour and a name that are answers by themselves, but never together. Captions name every thing so and give the background another colour. Text-only questions of the test are in no training record. Each record also asks its question about noise (n_loc) and about a grey picture (g_loc).',
  options: {
    out: outFolder('folder to write', { required: true }),
    seed: seed(),
    hard: flag('targets of two words that are no answer anywhere, captions with a low floor, noise and grey pictures'),
    split: choice(
      'what says which edits are for training: their content, or the seed too, as in worlds of version 1',
      ['content', 'seed'] as const,
      {
        default: 'content',
      },
    ),
    vqaTrain: records('question edits in the training split', 12000),
    vqaTest: records('question edits in the test split', 1200),
    captionTrain: records('caption edits in the training split', 6000),
    captionTest: records('caption edits in the test split', 500),
  },
  examples: [
    'world build --seed 1 --out runs/world',
    'world build --hard --seed 1 --out runs/hard',
    'world build --out /tmp/small --vqa-train 40 --vqa-test 10 --caption-train 20 --caption-test 5',
  ],
  async run({ out, seed, hard, split, ...sizes }, context) {
    const { buildWorld } = await import('../../../../lab/world/build.ts');
    const progress = context.progress(undefined, 'Drawing', { unit: 'pictures' });
    const manifest = await buildWorld({
      seed,
      out,
      hard,
      split,
      sizes,
      onProgress: (done, total) => progress.update(done, { total }),
    });
    progress.finish();
    const { vqaTrain, vqaTest, captionTrain, captionTest } = manifest.sizes;
    const rows = [
      ['vqa_train.json', vqaTrain],
      ['vqa_test.json', vqaTest],
      ['caption_train.json', captionTrain],
      ['caption_test.json', captionTest],
      ['images/', manifest.images],
    ];
    return {
      data: { out, ...manifest },
      text: `${context.table({ head: ['file', 'count'], rows })}\n\nWritten to ${out} (seed ${manifest.seed}).`,
    };
  },
});
