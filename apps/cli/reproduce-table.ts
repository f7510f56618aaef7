/** `visedit reproduce table1..5` and `hard`: gathers what the tables have in common and shows their progress. */

import type { DatasetKind } from '../../src/input/records.ts';
import type { ReproduceOptions } from './commands/reproduce.ts';
import type { CommandResult } from './frame/command.ts';
import type { CommandContext } from './frame/context.ts';
import { handsOf } from './queue-option.ts';
import { stoppable } from './stoppable.ts';

export const tableNames = ['table1', 'table2', 'table3', 'table4', 'table5', 'hard'] as const;
export type TableName = (typeof tableNames)[number];

const builtIn = ['mini-llava', 'mini-blip2-opt', 'mini-minigpt4'];
const defaultModels: Readonly<Record<TableName, readonly string[]>> = {
  table1: builtIn,
  table2: ['mini-llava'],
  table3: ['mini-llava'],
  table4: ['mini-minigpt4'],
  table5: builtIn,
  hard: ['mini-llava'],
};

/** Small enough for nine editors, three minis and both data sets in 15 minutes on two cores. */
const quickSizes = { steps: 16, limit: 16, trainLimit: 128 };
/** As many test records as the longest run has edits. */
const lifelongWorld = { vqaTest: 1000, captionTest: 1000 };
/** Edits of the hard world that are evaluated: editors stand tens of points apart there. */
const hardLimit = 100;
/** A world that is drawn in seconds. */
const quickWorld = { vqaTrain: 160, vqaTest: 32, captionTrain: 160, captionTest: 32 };

export async function reproduceTable(what: TableName, given: ReproduceOptions, context: CommandContext): Promise<CommandResult> {
  const { quick, seeds, seed, dtype, redo, jobs, threads } = given;
  const hard = what === 'hard';
  const protocol = hard ? 'published' : given.protocol;
  const how = given.protocol === 'tuned' ? '' : `-${given.protocol}`;
  const out = given.out ?? `runs/${what}${how}${quick ? '-quick' : ''}`;
  // Manifests are committed: paths from here on, not this machine's.
  const command = ['visedit', ...process.argv.slice(2)].join(' ').replaceAll(`${process.cwd()}/`, '');
  const warn = (line: string): void => context.warn(line);
  if (seeds !== undefined && seed !== undefined) throw new Error('--seeds and --seed say the same; give one of them');
  if (given.finished) {
    if (what === 'table5') {
      const { lifelongOfFinished } = await import('../../lab/reproduce/table5.ts');
      return lifelongResult(out, lifelongOfFinished(out), context);
    }
    if (what !== 'table1' && what !== 'table4' && !hard)
      throw new Error(`--finished is for table1, table4, table5 and hard, not for ${what}`);
    const { tableOfFinished } = await import('../../lab/reproduce/table1.ts');
    const columns = tableOfFinished({ out, command, warn }, what);
    if (columns.length === 0) throw new Error(`${out} holds no finished cells; make some by leaving out --finished`);
    return editorsResult(what, out, columns, context);
  }
  const models = given.model.length > 0 ? given.model : defaultModels[what];
  if ((what === 'table2' || what === 'table3') && models.length > 1)
    throw new Error(`${what} is about one model; give one --model`);
  const { tableData, datasetKinds } = await import('../../lab/reproduce/data.ts');
  const data = await tableData(
    { folder: given.world, vqa: given.dataVqa, caption: given.dataCaption, images: given.images },
    // Records of another size are other records.
    quick
      ? { out: `${out}/work/world-quick`, sizes: quickWorld, hard }
      : { out: `${out}/work/world`, hard, ...(what === 'table5' ? { sizes: lifelongWorld } : {}) },
    (line) => context.log(line),
  );
  let bar: ReturnType<typeof context.progress> | undefined;
  const sizes: Partial<typeof quickSizes> = quick ? quickSizes : {};
  const common = {
    out,
    data,
    seeds: seeds ?? [seed ?? 1],
    steps: given.steps ?? sizes.steps,
    limit: given.limit ?? sizes.limit ?? (hard ? hardLimit : undefined),
    trainLimit: given.trainLimit ?? sizes.trainLimit,
    jobs,
    hands: await handsOf(given.queue, context),
    threads,
    dtype,
    redo,
    protocol,
    signal: context.signal,
    command,
    log: (line: string) => context.log(line),
    onProgress: ({ share, what: now }: { share: number; what: string }) => {
      bar ??= context.progress(100, what, { unit: '%' });
      bar.update(Number((100 * share).toFixed(1)), { note: now });
    },
  };
  const goesOn = 'Run the same command again to go on.';
  const one = (): string => {
    if (data.files.vqa === undefined) throw new Error(`${what} is about E-VQA; name its files with --data-vqa`);
    return models[0]!;
  };
  if (what === 'table2') {
    const model = one();
    const { table2, table2Rows } = await import('../../lab/reproduce/table2.ts');
    const table = await stoppable(context, goesOn, () =>
      table2({ ...common, model, layers: given.layers, steps: common.steps ?? 800, limit: common.limit ?? 300 }),
    );
    bar?.finish();
    return { data: { ...table, out }, text: `${context.table(table2Rows(table))}\n\nPictures and numbers in ${out}.` };
  }
  if (what === 'table3') {
    const model = one();
    const { table3, table3Rows } = await import('../../lab/reproduce/table3.ts');
    const table = await stoppable(context, goesOn, () => table3({ ...common, model }));
    bar?.finish();
    return {
      data: { ...table, out },
      text: `${context.table(table3Rows(table))}\n\n*: below VEAD's figure, p < 0.05 (paired t-test over edits). Tables and manifests in ${out}.`,
    };
  }
  const datasets: readonly DatasetKind[] =
    given.dataset.length > 0
      ? given.dataset
      : datasetKinds.filter((kind) => data.files[kind] !== undefined && !(hard && kind === 'caption'));
  if (what === 'table5') {
    const [{ table5 }, { editorIds }] = await Promise.all([
      import('../../lab/reproduce/table5.ts'),
      import('../../src/editors/index.ts'),
    ]);
    const editors = given.editor.length > 0 ? given.editor : editorIds;
    const lifelong = { edits: given.edits ?? 1000, moments: given.moments ?? 10, sample: given.sample ?? 250 };
    const rows = await stoppable(context, goesOn, () => table5({ ...common, models, datasets, editors, lifelong }));
    bar?.finish();
    return lifelongResult(out, rows, context);
  }
  const [{ table1 }, { paperEditors }] = await Promise.all([
    import('../../lab/reproduce/table1.ts'),
    import('../../lab/reproduce/paper-tables.ts'),
  ]);
  const editors = given.editor.length > 0 ? given.editor : hard ? [...paperEditors, 'live-edit'] : paperEditors;
  const { columns } = await stoppable(context, goesOn, () =>
    table1({ ...common, models, datasets, editors, warn, ownTraining: given.ownTraining || hard, hard }, what),
  );
  bar?.finish();
  return editorsResult(what, out, columns, context);
}

async function lifelongResult(
  out: string,
  rows: readonly import('../../lab/reproduce/table5.ts').LifelongRow[],
  context: CommandContext,
): Promise<CommandResult> {
  if (rows.length === 0) throw new Error(`${out} holds no finished cells; make some by leaving out --finished`);
  const { table5Rows } = await import('../../lab/reproduce/table5.ts');
  return {
    data: { rows, out },
    text: `${context.table(table5Rows(rows))}\n\nWith so many edits in the model, over so many records; ± is half of the average's 95 % interval over records and seeds. Tables in ${out}: table5.md, .csv and .json.`,
  };
}

async function editorsResult(
  what: TableName,
  out: string,
  columns: readonly import('../../lab/reproduce/columns.ts').Column[],
  context: CommandContext,
): Promise<CommandResult> {
  const { caption, detailRows, paperRows } = await import('../../lab/reproduce/table-files.ts');
  return {
    data: { columns, out },
    text: [
      context.table(paperRows(columns)),
      caption,
      context.table(detailRows(columns)),
      `Tables in ${out}: ${what}.md, .tex, .csv and .json; every cell's manifest beside its figures.`,
    ].join('\n\n'),
  };
}
