/** `visedit world exam`: asks a model about fresh scenes of the mini world. */
import { defineCommand } from '../../frame/command.ts';
import { flag, integer, seed, text } from '../../frame/values.ts';

const canvas = 72;

export const command = defineCommand({
  details:
    'Compares greedy answers with the right ones, word for word. The world teaches some concepts under a wrong name: questions about them do not count in `overall`, and `misnamed` reports them. With --pairs, questions about two pictures are asked too ("Which picture has a pizza?", answered with "one" or "two"), in both orders of the pictures.',
  arguments: { model: text('model folder or built-in name', { required: true }) },
  options: {
    seed: seed(),
    scenes: integer('number of scenes', { default: 200, min: 1 }),
    pairs: integer('number of pairs of scenes to ask about as two pictures', { default: 0, min: 0 }),
    size: text('width and height of the pictures, both even and 72 or more (default: 72x72)'),
    shuffled: flag('also ask with the pictures of other scenes, to measure what is guessed without the picture'),
  },
  examples: ['world exam mini-llava --seed 7 --scenes 200', 'world exam mini-llava --shuffled'],
  async run({ model, seed, scenes, pairs, size, shuffled }, context) {
    const shape = size === undefined ? undefined : shapeOf(size);
    const { loadModel } = await import('../../../../src/models/load.ts');
    const { exam } = await import('../../../../lab/pretraining/exam.ts');
    const vlm = loadModel(model);
    const bar = context.progress(undefined, 'Asking', { unit: 'questions' });
    const result = await exam(vlm, {
      ...{ seed, scenes, pairs, shape, shuffled },
      onProgress: (done, total) => bar.update(done, { total }),
    });
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
    const { misnamed, facts, count, pairs: two } = result;
    const aboutPairs =
      two === undefined
        ? ''
        : `\n\n${context.table({
            head: ['about two pictures', 'right', 'in the other order'],
            rows: [...Object.keys(two.inOrder.kinds), 'overall'].map((kind) => [
              kind,
              ...[two.inOrder, two.swapped].map((marks) => percent(kind === 'overall' ? marks.overall : marks.kinds[kind])),
            ]),
          })}\n\n${two.count} questions in each order.`;
    return {
      data: result,
      text: `${context.table({ head: ['kind', 'right', ...(shuffled ? ['shuffled pictures'] : [])], rows })}\n\n${count} questions. Text-only facts ${percent(facts)}. Misnamed concepts: ${percent(misnamed.taught)} as taught, ${percent(misnamed.real)} by their real name.${aboutPairs}`,
    };
  },
});

/** As `108x72`. */
function shapeOf(size: string): readonly [height: number, width: number] {
  const found = /^(\d{2,3})x(\d{2,3})$/.exec(size);
  const [width, height] = found === null ? [0, 0] : [Number(found[1]), Number(found[2])];
  if (width < canvas || height < canvas || width % 2 !== 0 || height % 2 !== 0)
    throw new Error(`--size ${size}: give width and height in pixels, both even and from ${canvas} to 998, as 108x72`);
  return [height, width];
}
