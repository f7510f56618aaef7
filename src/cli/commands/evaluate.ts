/** `visedit evaluate`: the five metrics of an editor over a data set, and what stands beside them. */
import { editorIds } from '../../editors/index.ts';
import { defineCommand } from '../frame/command.ts';
import { choice, file, flag, folder, integer, outFolder, text } from '../frame/values.ts';
import { modelOptions } from '../model-options.ts';
import { stoppable } from '../stoppable.ts';

export const command = defineCommand({
  details:
    'Writes records.jsonl (a line per record), summary.json and manifest.json to --out. After Ctrl-C, a crash or a power cut the same command with --resume goes on; the results are the same bytes. The average is that of the five metrics; the localities close to the edit (same image, same question) and free generation stand beside it.',
  options: {
    model: text('model folder or built-in name', { required: true, placeholder: 'MODEL' }),
    editor: choice('editor to evaluate', editorIds, { required: true }),
    weights: file("the editor's trained weights (default: those that come with the model, for the kind of data)"),
    data: file('records to evaluate (E-VQA or E-IC JSON)', { required: true }),
    images: folder('folder that their image paths start from', { required: true }),
    out: outFolder('folder to write', { required: true }),
    limit: integer('at most N records', { min: 1 }),
    seed: integer('with --limit: draw the records at random by this seed, instead of the first ones', { min: 0 }),
    batch: integer('records asked together', { default: 16, min: 1, max: 4096 }),
    maxNewTokens: integer('longest free answer, in tokens', { default: 32, min: 1, max: 4096 }),
    jobs: integer('processes that share the work', { default: 1, min: 1, max: 256 }),
    ...modelOptions,
    resume: flag('go on with the results in --out'),
  },
  examples: [
    'evaluate --model mini-llava --editor vead --data runs/world/vqa_test.json --images runs/world/images --out runs/vqa',
    'evaluate --model mini-llava --editor vead --weights runs/vead/weights.safetensors --data vqa_test.json --images images --limit 100 --jobs 2 --out runs/quick',
  ],
  async run({ out, jobs, resume, maxMemory, ...rest }, context) {
    const job = { ...rest, maxMemory: maxMemory === undefined ? undefined : maxMemory / jobs };
    const [{ runEvaluation }, { evaluationRows }] = await Promise.all([
      import('../../evaluation/runner.ts'),
      import('../../evaluation/tables.ts'),
    ]);
    let bar: ReturnType<typeof context.progress> | undefined;
    const { evaluation, manifest } = await stoppable(context, 'Run the same command with --resume to go on.', () =>
      runEvaluation(job, {
        out,
        resume,
        jobs,
        signal: context.signal,
        command: ['visedit', ...process.argv.slice(2)].join(' '),
        onProgress: (done, total) => {
          bar ??= context.progress(total, 'Evaluating', { unit: 'records', start: done });
          bar.update(done);
        },
      }),
    );
    bar?.finish();
    const { seconds } = manifest.timings;
    return {
      data: { ...evaluation, out, seconds },
      text: `${context.table(evaluationRows(evaluation))}\n\nThe average is that of the five metrics. Results in ${out}.`,
    };
  },
});
