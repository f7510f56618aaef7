/** Tables 1 and 4 as rows, and as files: Markdown for a page, LaTeX for a paper, CSV for other programs, JSON for this one. */
import { join } from 'node:path';
import { perEdit } from '../../src/evaluation/costs.ts';
import { hardKinds } from '../../src/evaluation/metrics.ts';
import { mean } from '../../src/evaluation/statistics.ts';
import { columnNames, type Rows, toCsv, toLatex, toMarkdown } from '../../src/evaluation/tables.ts';
import { writeFileAtomic } from '../../src/files/atomic.ts';
import { queryKinds } from '../../src/input/records.ts';
import { type Column, type Entry, entryName, metricNames, type Spread, significance, VEAD, veadIsBest } from './columns.ts';
import { datasets } from './data.ts';

/** Without a sign where nothing is left to show of it. */
const percent = (x: number): string => (100 * x).toFixed(2).replace(/^-(0\.00)$/, '$1');
const withDeviation = ({ mean, deviation }: Spread, runs: number): string =>
  runs > 1 ? `${percent(mean)} ± ${percent(deviation)}` : percent(mean);
/** ± is half of the interval over records and seeds. */
const averageText = ({ forced, interval }: Entry): string =>
  interval === null
    ? percent(forced.average.mean)
    : `${percent(forced.average.mean)} ± ${percent((interval.high - interval.low) / 2)}`;
/** Doing nothing, as a row of a table. */
const noEdit = 'no edit';

/**
 * The paper's table, with localities closer to the edit beside: one row for each backbone, data set and editor. Bold is the best average of a column;
 * an asterisk stands at VEAD's where it is above every other editor's with p < 0.05.
 */
export function paperRows(columns: readonly Column[]): Rows {
  const asked = hardKinds.filter((kind) => columns.some(({ entries }) => entries.some(({ hard }) => hard[kind] !== null)));
  const head = [
    'Backbone',
    'Data',
    'Editor',
    ...metricNames.map((name) => columnNames[name]),
    'Average, free generation',
    ...asked.map((kind) => columnNames[kind]),
    'Edits',
  ];
  const rows = columns.flatMap((column) => {
    const best = Math.max(...column.entries.map(({ forced }) => forced.average.mean));
    const nothing = [
      column.model,
      datasets[column.dataset],
      noEdit,
      ...metricNames.map((name) => percent(column.floor[name])),
      '',
      ...asked.map(() => ''),
      column.count,
    ];
    const made = column.entries.map((entry) => {
      const { editor, forced, generation, hard, seeds } = entry;
      const average = averageText(entry);
      const marked = forced.average.mean === best ? `**${average}**` : average;
      return [
        column.model,
        datasets[column.dataset],
        entryName(entry),
        ...queryKinds.map((kind) => percent(forced[kind].mean)),
        `${marked}${editor === VEAD && veadIsBest(column) === true ? ' *' : ''}`,
        withDeviation(generation.average, seeds.length),
        ...asked.map((kind) => (hard[kind] === null ? '' : percent(hard[kind].mean))),
        column.count,
      ];
    });
    return [nothing, ...made];
  });
  return { head, rows, align: head.map((_, i) => (i < 3 ? 'left' : 'right')) };
}

/** The averages alone, by the best first: one row for each editor, one column for each backbone and data set. Bold is the best of a column. */
export function averageRows(columns: readonly Column[]): Rows {
  const head = ['Editor', ...columns.map(({ model, dataset }) => `${model} ${datasets[dataset]}`), 'Mean'];
  const editors = [...new Set(columns.flatMap(({ entries }) => entries.map(entryName)))];
  const best = columns.map(({ entries }) => Math.max(...entries.map(({ forced }) => forced.average.mean)));
  const rows = editors.map((editor) => {
    const entries = columns.map((column) => column.entries.find((entry) => entryName(entry) === editor));
    const texts = entries.map((entry, i) => {
      if (entry === undefined) return '';
      const average = averageText(entry);
      return entry.forced.average.mean === best[i] ? `**${average}**` : average;
    });
    const known = entries.flatMap((entry) => (entry === undefined ? [] : [entry.forced.average.mean]));
    // Columns differ; a mean over some of them says nothing beside one over all.
    return { cells: [editor, ...texts], overall: known.length === columns.length ? mean(known) : null };
  });
  const floors = columns.map(({ floor }) => floor.average);
  rows.push({ cells: [noEdit, ...floors.map(percent)], overall: mean(floors) });
  rows.sort((a, b) => (b.overall ?? -1) - (a.overall ?? -1));
  return {
    head,
    rows: rows.map(({ cells, overall }) => [...cells, overall === null ? '' : percent(overall)]),
    align: head.map((_, i) => (i < 1 ? 'left' : 'right')),
  };
}

/** How far each editor's average is from VEAD's, and what it costs. */
export function detailRows(columns: readonly Column[]): Rows {
  const head = [
    'Backbone',
    'Data',
    'Editor',
    'Seeds',
    '− VEAD',
    '95 % interval',
    'p',
    's per edit',
    's asking',
    'KiB per edit',
    'MiB private',
    's training',
  ];
  const rows = columns.flatMap(({ model, dataset, entries }) =>
    entries.map(({ seeds, against, costs, trainingSeconds, ...entry }) => {
      const each = perEdit(costs);
      return [
        model,
        datasets[dataset],
        entryName(entry),
        seedsText(seeds),
        against === null ? '' : percent(against.difference),
        against === null ? '' : `${percent(against.interval.low)} to ${percent(against.interval.high)}`,
        against === null ? '' : pText(against.p),
        ...(each === null
          ? ['', '', '']
          : [each.editSeconds.toFixed(3), each.askSeconds.toFixed(3), (each.editBytes / 2 ** 10).toFixed(1)]),
        costs.privateBytes === null ? '' : Math.round(costs.privateBytes / 2 ** 20),
        trainingSeconds === null ? '' : Math.round(trainingSeconds),
      ];
    }),
  );
  return { head, rows, align: head.map((_, i) => (i < 3 ? 'left' : 'right')) };
}

export const pText = (p: number): string => (p < 0.001 ? '< 0.001' : p.toFixed(3));
const seedsText = (seeds: Entry['seeds']): string => (seeds.some((seed) => seed === null) ? 'draws nothing' : seeds.join(', '));

/** All figures as fractions, one row for each backbone, data set and editor. */
function csvRows(columns: readonly Column[]): Pick<Rows, 'head' | 'rows'> {
  const head = [
    ...['protocol', 'backbone', 'data', 'editor', 'variant', 'seeds', 'edits'],
    ...metricNames.flatMap((name) => [name, `${name}_sd`]),
    ...metricNames.flatMap((name) => [`generation_${name}`, `generation_${name}_sd`]),
    ...['same_image', 'same_question', 'noise', 'grey'],
    ...queryKinds.map((kind) => `probability_change_${kind}`),
    ...['average_low', 'average_high'],
    ...['minus_vead', 'interval_low', 'interval_high', 'p'],
  ];
  const fraction = (x: number | null | undefined): string => (x === null || x === undefined ? '' : x.toFixed(6));
  const spreads = (of: Entry['forced']): string[] =>
    metricNames.flatMap((name) => [fraction(of[name].mean), fraction(of[name].deviation)]);
  const rows = columns.flatMap(({ model, dataset, count, entries, protocol }) =>
    entries.map(({ editor, variant = '', seeds, forced, interval, generation, hard, probability, against }) => [
      ...[protocol, model, datasets[dataset], editor, variant, seeds.map((seed) => seed ?? '').join(' '), count],
      ...spreads(forced),
      ...spreads(generation),
      ...hardKinds.map((kind) => fraction(hard[kind]?.mean)),
      ...queryKinds.map((kind) => fraction(probability[kind])),
      ...[interval?.low, interval?.high].map(fraction),
      ...[against?.difference, against?.interval.low, against?.interval.high].map(fraction),
      against === null ? '' : against.p.toPrecision(6),
    ]),
  );
  return { head, rows };
}

export const caption = `Percentages. Rel, T-Gen, M-Gen, T-Loc, M-Loc: teacher-forced token accuracy, and Average their mean. Beside it, and not in it, localities closer to the edit: another question about the ${columnNames.sameImage}, and the ${columnNames.sameQuestion} about another picture. ± after the average is half of its 95 % interval over records and seeds together, so that it says what other records and other seeds would change; ± after that of free generation is the standard deviation over seeds. no edit: the unedited model. Bold: the best average of a column. *: above every other editor's average, p < ${significance} (paired t-test over edits).`;

/** The same cells give the same .md, .tex and .csv; times and memory, in which machines differ, are in .json and -costs.md. */
export function writeTable(folder: string, name: string, columns: readonly Column[], command: string): void {
  const of = (ending: string): string => join(folder, `${name}.${ending}`);
  writeFileAtomic(of('json'), `${JSON.stringify({ command, columns }, null, 1)}\n`);
  writeFileAtomic(of('md'), `${toMarkdown(paperRows(columns))}\n${caption}\n`);
  writeFileAtomic(of('tex'), toLatex(paperRows(columns)));
  writeFileAtomic(of('csv'), toCsv(csvRows(columns)));
  writeFileAtomic(join(folder, `${name}-costs.md`), toMarkdown(detailRows(columns)));
}
