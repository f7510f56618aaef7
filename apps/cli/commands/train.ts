/** `visedit train EDITOR`: trains an editor that learns on a data set's training split. */
import { trainingTimeList } from '../../../src/editors/index.ts';
import { editorOption } from '../editor-option.ts';
import { defineCommand } from '../frame/command.ts';
import type { CommandContext } from '../frame/context.ts';
import { file, flag, folder, integer, number, outFolder, seed, text, type Value } from '../frame/values.ts';
import { announceMemory, type ModelOptions, modelOptions, openingOf } from '../model-options.ts';
import { protocol } from '../protocol.ts';
import { settings, toSettings } from '../settings.ts';
import { stoppable } from '../stoppable.ts';

const whole = integer('', { min: 0 });
const layerOption: Value<number | 'auto' | undefined> = {
  ...whole,
  help: 'decoder layer to edit at, counted from 0, or auto: planned from the data, as `attribute plan` does (default: chosen for the model)',
  parse: (given) => (given.trim() === 'auto' ? 'auto' : whole.parse(given)),
};

export const command = defineCommand({
  details: `The default settings are the published ones; models of the size of the mini world have settings of their own (lab/recipes.ts).

Writes checkpoints, log.jsonl, manifest.json and weights.safetensors to --out; the weights are those of the smallest smoothed loss. After Ctrl-C, a crash or a power cut the same command with --resume continues from the last checkpoint, and ends with the same weights as a run without a break.

ft-l and ft-v need no training. For mini-llava and the 12,000 questions of the mini world, training takes on one core: ${trainingTimeList}.`,
  arguments: { editor: editorOption('editor to train') },
  options: {
    model: text('model folder or built-in name', { required: true, placeholder: 'MODEL' }),
    data: file('records to train on (E-VQA or E-IC JSON)', { required: true }),
    images: folder('folder that their image paths start from', { required: true }),
    out: outFolder('folder to write', { required: true }),
    layer: layerOption,
    steps: integer('number of optimizer steps', { min: 1 }),
    batch: integer('number of records per step', { min: 1 }),
    microBatch: integer(
      'number of records whose gradients are computed together (default: the whole batch); a smaller number needs less memory and gives the same gradients',
      {
        min: 1,
      },
    ),
    lr: number('learning rate', { above: 0 }),
    start: file('weights of an earlier training to go on from, with the same widths; the records may be others'),
    seed: seed(),
    limit: integer('train on the first N records only', { min: 1 }),
    threads: integer('number of threads (default: all cores)', { min: 1 }),
    ...modelOptions,
    protocol,
    set: settings,
    resume: flag('continue from the last checkpoint in --out'),
  },
  examples: [
    'train vead --model mini-llava --data runs/world/vqa_train.json --images runs/world/images --out runs/vead',
    'train vead --model mini-llava --data vqa_train.json --images images --layer 3 --set lossDown=false --out runs/no-down',
    'train vead --model mini-llava --start models/mini-llava/editors/vead-vqa.safetensors --data runs/hard/vqa_train.json --images runs/hard/images --out runs/vead-hard',
  ],
  async run(
    {
      editor: given,
      model,
      data,
      images,
      out,
      lr,
      start,
      set,
      protocol: how,
      limit,
      threads,
      resume,
      dtype,
      maxMemory,
      maxPixels,
      minPixels,
      ...rest
    },
    context,
  ) {
    const [{ findEditor }, { trainEditor }, { sizesOf, withRecipe }] = await Promise.all([
      import('../../../src/editors/outside.ts'),
      import('../../../src/evaluation/training.ts'),
      import('../../../lab/recipes.ts'),
    ]);
    const editor = await findEditor(given);
    const { id } = editor;
    const layer =
      rest.layer === 'auto'
        ? await plannedLayer({ model, data, images, limit, dtype, maxMemory, maxPixels, minPixels }, context)
        : rest.layer;
    let bar: ReturnType<typeof context.progress> | undefined;
    const trained = await stoppable(context, 'Run the same command with --resume to go on.', () =>
      trainEditor(
        {
          model,
          editor,
          data,
          images,
          limit,
          opening: { dtype, maxMemory, maxPixels, minPixels },
          onOpen: (vlm) => announceMemory(vlm, context),
        },
        {
          ...withRecipe(sizesOf(model), id, { ...rest, layer, rate: lr, startWeights: start, settings: toSettings(set) }, how),
          protocol: how,
          out,
          resume,
          threads,
          command: ['visedit', ...process.argv.slice(2)].join(' '),
          signal: context.signal,
          onWarn: context.warn,
          onStep: ({ step, steps, loss }) => {
            bar ??= context.progress(steps, `Training ${id}`, { unit: 'steps', start: step - 1 });
            bar.update(step, { note: `loss ${loss.toPrecision(4)}` });
          },
        },
      ),
    );
    bar?.finish(trained.loss === null ? '' : `loss ${trained.loss.toPrecision(4)}`);
    return {
      data: trained,
      text: [
        `Trained ${id} for ${trained.steps} steps on ${trained.records} records; weights in ${trained.weights}.`,
        `Next: visedit evaluate --model ${model} --editor ${given} --weights ${trained.weights} --data TEST.json --images ${images} --out DIR`,
      ].join('\n'),
    };
  },
});

/** Plans where to edit, and says why. */
async function plannedLayer(
  given: { model: string; data: string; images: string; limit: number | undefined } & ModelOptions,
  context: CommandContext,
): Promise<number> {
  const [{ loadModel }, { planFrom, planHead, planRecords, planRows }] = await Promise.all([
    import('../../../src/models/load.ts'),
    import('./attribute/plan.ts'),
  ]);
  const vlm = loadModel(given.model, openingOf(given));
  const plan = await planFrom(vlm, given.data, given.images, Math.min(planRecords, given.limit ?? planRecords), context);
  await vlm.release();
  context.log(`Planned layer: ${plan.layer}, from ${plan.evidence.pairs} pairs of pictures with different answers.`);
  context.log(context.table({ head: planHead, rows: planRows(plan) }));
  return plan.layer;
}
