/** `visedit evaluate`: the five metrics of an editor over a data set, and what stands beside them. */
import type { Collateral } from '../../../src/evaluation/collateral.ts';
import type { PerEdit } from '../../../src/evaluation/costs.ts';
import { editorOption } from '../editor-option.ts';
import { defineCommand } from '../frame/command.ts';
import { file, flag, folder, integer, outFolder, text } from '../frame/values.ts';
import { modelOptions } from '../model-options.ts';
import { protocol } from '../protocol.ts';
import { handsOf, queueOption } from '../queue-option.ts';
import { settings, toSettings } from '../settings.ts';
import { stoppable } from '../stoppable.ts';

export const command = defineCommand({
  details:
    "Makes one edit per record, asks its queries before and after, and writes records.jsonl (one line per record), summary.json and manifest.json to --out. The average is that of the five metrics. Beside them stand two localities close to the edit (same image, same question), free generation, and the probability of the target. manifest.json holds seconds, bytes and memory per edit, and the protocol. After Ctrl-C, a crash or a power cut the same command with --resume continues, and its results have the same bytes.\n\n--sequential N keeps N edits in the model, one after the other. After 1, 10, 100, 1000 and N edits, the queries of all edits made so far are asked again. With --restarts the records are cut into runs of 1, 10, 100, 1000 and N edits, and each run begins with the unedited model: all its edits first, then all its queries, as in LiveEdit's lifelong evaluation (a last run that is too short is left out). --moments adds what each edit did at its own moment, before later ones. --sample asks for a random choice of the edits and gives the interval of the average (95 %, over records).\n\n--collateral says what edits do beyond their records' localities, into collateral.json: how many free answers to the same question about eight other pictures stay, and the perplexity of the unedited model's captions of these before and after an edit.\n\nFT-L, FT-V, MEND, KE and TP make each edit on the model with the earlier edits; the other editors make it on the unedited model.",
  options: {
    model: text('model folder or built-in name', { required: true, placeholder: 'MODEL' }),
    editor: editorOption('editor to evaluate'),
    weights: file("the editor's trained weights (default: those that come with the model for this kind of data)"),
    protocol,
    set: settings,
    data: file('records to evaluate (E-VQA or E-IC JSON)', { required: true }),
    images: folder('folder that their image paths start from', { required: true }),
    out: outFolder('folder to write', { required: true }),
    limit: integer('evaluate at most N records', { min: 1 }),
    seed: integer('with --limit: choose the records at random by this seed (default: the first ones)', { min: 0 }),
    sequential: integer('number of edits that stay in the model', { min: 1 }),
    restarts: flag('with --sequential: all records at every length, in runs that each begin with the unedited model'),
    moments: integer('with --sequential: in runs up to N edits, ask for each edit right after it was made, too', { min: 0 }),
    sample: integer('with --sequential: at each length, ask for N of the edits, chosen at random (default: all)', { min: 1 }),
    collateral: file(
      "E-IC records: ask each edit's question about eight of their pictures, too, and for the captions of these pictures (collateral.json)",
    ),
    batch: integer('number of records asked together', { default: 16, min: 1, max: 4096 }),
    maxNewTokens: integer('longest free answer, in tokens', { default: 32, min: 1, max: 4096 }),
    jobs: integer('number of processes', { default: 1, min: 1, max: 256 }),
    threads: integer('number of threads, with one process (default: all cores)', { min: 1 }),
    queue: queueOption,
    unedited: outFolder("folder for the unedited model's answers; evaluations that name the same folder ask that model once"),
    ...modelOptions,
    resume: flag('continue with the results in --out'),
  },
  examples: [
    'evaluate --model mini-llava --editor vead --data runs/world/vqa_test.json --images runs/world/images --out runs/vqa',
    'evaluate --model mini-llava --editor vead --weights runs/vead/weights.safetensors --data vqa_test.json --images images --limit 100 --jobs 2 --out runs/quick',
    'evaluate --model mini-llava --editor ft-l --protocol published --set steps=3 --data vqa_test.json --images images --out runs/ft-l-3',
    'evaluate --model mini-llava --editor vead --sequential 1000 --restarts --moments 10 --data vqa_test.json --images images --out runs/lifelong',
    'evaluate --model mini-llava --editor ft-l --collateral runs/world/caption_test.json --data runs/world/vqa_test.json --images runs/world/images --limit 40 --out runs/collateral',
    'evaluate --model mini-llava --editor ft-l --sequential 100 --data vqa_test.json --images images --out runs/sequential',
  ],
  async run(
    { out, jobs, queue, threads, sequential, restarts, moments, sample, collateral, set, resume, maxMemory, ...rest },
    context,
  ) {
    const [{ recipeOf, sizesOf }, { findEditor }] = await Promise.all([
      import('../../../lab/recipes.ts'),
      import('../../../src/editors/outside.ts'),
    ]);
    const { id } = await findEditor(rest.editor);
    const ofEdits = { ...recipeOf(sizesOf(rest.model), id, rest.protocol).edit, ...toSettings(set) };
    const job = { ...rest, settings: ofEdits, maxMemory: maxMemory === undefined ? undefined : maxMemory / jobs };
    if (sequential !== undefined && (jobs > 1 || queue !== undefined))
      throw new Error('--sequential works in one process, since all edits are in one model; leave out --jobs and --queue');
    const ofSequential = { '--restarts': restarts || undefined, '--moments': moments, '--sample': sample };
    const [needless] = Object.entries(ofSequential).flatMap(([name, value]) => (value === undefined ? [] : [name]));
    if (sequential !== undefined && collateral !== undefined)
      throw new Error('--collateral is about each edit alone; leave out --sequential');
    if (sequential === undefined && needless !== undefined)
      throw new Error(`${needless} is about edits that stay in the model; give --sequential N too`);
    let bar: ReturnType<typeof context.progress> | undefined;
    const options = {
      out,
      resume,
      threads,
      signal: context.signal,
      onWarn: context.warn,
      command: ['visedit', ...process.argv.slice(2)].join(' '),
      onProgress: (done: number, total: number) => {
        bar ??= context.progress(total, 'Evaluating', { unit: 'records', start: done });
        bar.update(done);
      },
    };
    const goesOn = 'Run the same command with --resume to go on.';
    const [{ runEvaluation }, { runSequential }, tables, { perEdit }, { evaluationCollateral }] = await Promise.all([
      import('../../../src/evaluation/runner.ts'),
      import('../../../src/evaluation/sequential.ts'),
      import('../../../src/evaluation/tables.ts'),
      import('../../../src/evaluation/costs.ts'),
      import('../../../src/evaluation/collateral.ts'),
    ]);
    if (sequential !== undefined) {
      const { points, manifest } = await stoppable(context, goesOn, () =>
        runSequential(job, sequential, { ...options, restarts, moments, sample }),
      );
      bar?.finish();
      return {
        data: { points, out, seconds: manifest.timings.seconds, perEdit: perEdit(manifest.costs) },
        text: `${context.table(tables.sequentialRows(points))}\n\nWith so many edits in the model, over all records asked; 95 % is the average's interval over records. Results in ${out}.`,
      };
    }
    const { evaluation, manifest } = await stoppable(context, goesOn, async () =>
      runEvaluation(job, { ...options, jobs, hands: await handsOf(queue, context) }),
    );
    bar?.finish();
    const beside =
      collateral === undefined
        ? undefined
        : await stoppable(context, goesOn, () => evaluationCollateral(job, collateral, { out, threads, signal: context.signal }));
    const costs = perEdit(manifest.costs);
    return {
      data: {
        ...evaluation,
        ...(beside === undefined ? {} : { collateral: beside }),
        out,
        seconds: manifest.timings.seconds,
        perEdit: costs,
      },
      text: [
        context.table(tables.evaluationRows(evaluation)),
        '',
        'The average is that of the five metrics.',
        ...(beside === undefined ? [] : [collateralText(beside)]),
        ...(costs === null ? [] : [costsText(costs)]),
        `Results in ${out}.`,
      ].join('\n'),
    };
  },
});

const collateralText = ({ edits, pictures, sameQuestion, perplexity }: Collateral): string =>
  `Collateral of ${edits} edits: ${(100 * sameQuestion).toFixed(1)} % of the answers to the same question about ${pictures} other pictures stay; perplexity of captions ${perplexity.before.toFixed(3)} before, ${perplexity.after.toFixed(3)} after.`;

function costsText({ editSeconds, askSeconds, editBytes, privateBytes }: PerEdit): string {
  const memory = privateBytes === null ? '' : `; ${Math.round(privateBytes / 2 ** 20)} MiB of private memory`;
  return `An edit: ${editSeconds.toFixed(3)} s to make, ${askSeconds.toFixed(3)} s to ask all its queries, ${(editBytes / 2 ** 10).toFixed(1)} KiB${memory}.`;
}
