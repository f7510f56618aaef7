/** `visedit world exam`: asks a model about fresh scenes of the mini world. */
import { defineCommand } from '../../frame/command.ts';
import { flag, integer, seed, text } from '../../frame/values.ts';

export const command = defineCommand({
  details:
    'Compares greedy answers with the right ones, word for word. The world teaches some concepts under a wrong name: questions about them do not count in `overall`, and `misnamed` reports them.',
  arguments: { model: text('model folder or built-in name', { required: true }) },
  options: {
    seed: seed(),
    scenes: integer('number of scenes', { default: 200, min: 1 }),
    shuffled: flag('also ask with the pictures of other scenes, to measure what is guessed without the picture'),
  },
  examples: ['world exam mini-llava --seed 7 --scenes 200', 'world exam mini-llava --shuffled'],
  async run({ model, seed, scenes, shuffled }, context) {
    const { loadModel } = await import('../../../../src/models/load.ts');
    const { exam } = await import('../../../../lab/pretraining/exam.ts');
    const vlm = loadModel(model);
    const bar = context.progress(undefined, 'Asking', { unit: 'questions' });
    const result = await exam(vlm, { seed, scenes, shuffled, onProgress: (done, total) => bar.update(done, { total }) });
    bar.finish();
    await vlm.release();
    const percent = (x: number | undefined): string => (x === undefined ? '' : `${(100 * x).toFixed(1)} %`);
    const rows = [
      ...Object.entries(result.kinds).map(([kind, share]) => [
        kind,
        percent(share),
        ...(shuffled ? [percent(result.shuffled?.kinds[kind])] : []),
      ]),
      ['overall', percent(result.overall), ...(shuffled ? [percent(result.shuffled?.overall)] : [])],
    ];
    const { misnamed, facts, count } = result;
    return {
      data: result,
      text: `${context.table({ head: ['kind', 'right', ...(shuffled ? ['shuffled pictures'] : [])], rows })}\n\n${count} questions. Text-only facts ${percent(facts)}. Misnamed concepts: ${percent(misnamed.taught)} as taught, ${percent(misnamed.real)} by their real name.`,
    };
  },
});
