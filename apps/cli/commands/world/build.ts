/** `visedit world build`: the mini world's records in the format of E-VQA and E-IC, with their pictures. */
import { defineCommand } from '../../frame/command.ts';
import { integer, outFolder, seed } from '../../frame/values.ts';

const records = (what: string, count: number) => integer(`number of ${what}`, { default: count, min: 0, max: 1_000_000 });

export const command = defineCommand({
  details:
    'Writes vqa_train.json, vqa_test.json, caption_train.json, caption_test.json and images/ to --out, which must be new or empty. The same seed and counts give the same bytes.',
  options: {
    out: outFolder('folder to write', { required: true }),
    seed: seed(),
    vqaTrain: records('question edits in the training split', 12000),
    vqaTest: records('question edits in the test split', 1200),
    captionTrain: records('caption edits in the training split', 6000),
    captionTest: records('caption edits in the test split', 500),
  },
  examples: [
    'world build --seed 1 --out runs/world',
    'world build --out /tmp/small --vqa-train 40 --vqa-test 10 --caption-train 20 --caption-test 5',
  ],
  async run({ out, seed, ...sizes }, context) {
    const { buildWorld } = await import('../../../../lab/world/build.ts');
    const progress = context.progress(undefined, 'Drawing', { unit: 'pictures' });
    const manifest = await buildWorld({ seed, out, sizes, onProgress: (done, total) => progress.update(done, { total }) });
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
