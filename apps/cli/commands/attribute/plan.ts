/** `visedit attribute plan`: where to insert an editor, with the evidence. */

import type { EditPlan } from '../../../../src/attribution/plan.ts';
import type { Vlm } from '../../../../src/models/vlm.ts';
import { defineCommand } from '../../frame/command.ts';
import type { CommandContext } from '../../frame/context.ts';
import { file, folder, integer } from '../../frame/values.ts';
import { announceMemory, modelOptions } from '../../model-options.ts';
import { model, picture } from './values.ts';

/** Records that a plan reads when nothing else is said. */
export const planRecords = 32;

/** A plan from the first records of a data set. */
export async function planFrom(
  vlm: Vlm,
  data: string,
  images: string,
  limit: number,
  context: CommandContext,
): Promise<EditPlan> {
  const [{ openRecords }, { decodeImage }, { planEdit }] = await Promise.all([
    import('../../../../src/input/records.ts'),
    import('../../../../src/input/image/decode.ts'),
    import('../../../../src/attribution/plan.ts'),
  ]);
  const { records } = openRecords(data, images, { limit });
  const bar = context.progress(records.length, 'Planning', { unit: 'records' });
  const inputs = records.map(({ request: { prompt, image } }) => ({ prompt, image: () => decodeImage(image) }));
  const plan = await planEdit(vlm, inputs, { signal: context.signal, onProgress: (done) => bar.update(done) });
  bar.finish();
  return plan;
}

/** The evidence as lines of a table. */
export const planRows = ({ layer, traced, evidence: { carried, attention } }: EditPlan) =>
  carried.map((share, i) => [
    i,
    share.toFixed(2),
    attention[i]!.toFixed(2),
    i === layer ? 'insert after this layer' : traced.includes(i) ? 'reads what is written' : '',
  ]);

export const planHead = ['layer', 'carried by the picture', 'attention', ''];

export const command = defineCommand({
  details:
    'For questions about two pictures with different answers, the states of the visual tokens after each layer are put from one run into the other. What they carry of the other answer says up to which layer an editor of visual tokens can change it. The plan is the last layer that carries 80 % of the most: later, the words have read the picture; earlier, an edit changes more than it should. `train --layer auto` takes this layer.',
  options: {
    model,
    data: file('records (E-VQA or E-IC JSON)', { required: true }),
    images: folder('folder that their image paths start from', { required: true }),
    limit: integer('at most N records', { default: planRecords, min: 2 }),
    out: picture,
    ...modelOptions,
  },
  examples: ['attribute plan --model mini-llava --data vqa_test.json --images images --out plan.svg'],
  async run({ model, data, images, limit, out, dtype, maxMemory, maxPixels, minPixels }, context) {
    const { loadModel } = await import('../../../../src/models/load.ts');
    const vlm = loadModel(model, { dtype, maxMemory, maxPixels, minPixels });
    announceMemory(vlm, context);
    const plan = await planFrom(vlm, data, images, limit, context);
    await vlm.release();
    const { layer, traced, evidence } = plan;
    if (out !== undefined) {
      const { drawFigure, savePicture } = await import('../../../../src/figures/index.ts');
      const { planPanel } = await import('../../../../src/attribution/plan.ts');
      savePicture(out, await drawFigure({ panels: [planPanel(vlm.name, plan)], columns: 1 }));
    }
    return {
      data: { model: vlm.name, ...plan, ...(out === undefined ? {} : { out }) },
      text: [
        `Insert after layer ${layer}; traced: ${traced.join(', ')}. From ${evidence.pairs} pairs of pictures with different answers.`,
        context.table({ head: planHead, rows: planRows(plan) }),
        ...(out === undefined ? [] : ['', `Picture in ${out}.`]),
      ].join('\n'),
    };
  },
});
