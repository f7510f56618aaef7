/**
 * Table 5, edits that stay (not a table of the paper): LiveEdit's lifelong protocol for every editor (Chen et al. 2025, Table 1). The records are cut into
 * runs of 1, 10, 100 and 1 000; a run begins with the unedited model, makes all its edits and then asks all their queries; localities are against
 * the unedited model, and figures are means over the records of all runs of a length, or over a sample of them with the interval of the average.
 */
import { join } from 'node:path';
import { type Interval, mean } from '../../src/evaluation/statistics.ts';
import { columnNames, type Rows, toCsv, toMarkdown } from '../../src/evaluation/tables.ts';
import { writeFileAtomic } from '../../src/files/atomic.ts';
import type { DatasetKind } from '../../src/input/records.ts';
import { type Cell, type CellPoint, type Lifelong, readCells } from './cell-store.ts';
import { type CellRequest, type CellsOptions, modelName, runCells } from './cells.ts';
import { intervalOf, metricNames } from './columns.ts';
import { datasets } from './data.ts';
import { paperLifelong, paperModelOf } from './paper-tables.ts';
import { recipeFor } from './recipes.ts';

export interface Table5Options extends CellsOptions {
  readonly models: readonly string[];
  readonly datasets: readonly DatasetKind[];
  readonly editors: readonly string[];
  readonly seeds: readonly number[];
  /** training steps; the recipe's or the editor's own number when absent */
  readonly steps?: number | undefined;
  readonly lifelong: Lifelong;
}

/** An editor on a backbone and a data set with so many edits in the model, over all its seeds. */
export interface LifelongRow {
  readonly model: string;
  readonly dataset: DatasetKind;
  readonly editor: string;
  readonly edits: number;
  readonly records: number;
  readonly seeds: readonly (number | null)[];
  /** teacher-forced, as fractions */
  readonly forced: Readonly<Record<(typeof metricNames)[number], number>>;
  /** of the average, 95 %, over records and seeds together; null for a single record */
  readonly interval: Interval | null;
  /** average by free generation */
  readonly generation: number;
  /** average of each edit at its own moment; null where it was not asked */
  readonly own: number | null;
  /** the average that LiveEdit's paper gives for the backbone that this one is a small sister of */
  readonly published: number | null;
}

/** @throws Stopped when the signal asks; the same call goes on. Error when cells failed; the table of the finished ones is written */
export async function table5(options: Table5Options): Promise<LifelongRow[]> {
  const requests = options.models.flatMap((model) =>
    options.datasets.flatMap((dataset) =>
      options.editors.flatMap((editor) =>
        options.seeds.map((seed): CellRequest => {
          const training = recipeFor(modelName(model), dataset, editor, { steps: options.steps });
          return { model, dataset, editor, seed, training, shipped: true };
        }),
      ),
    ),
  );
  try {
    await runCells(requests, options);
  } finally {
    lifelongOfFinished(options.out);
  }
  return lifelongOfFinished(options.out);
}

/** Writes the table of the cells that are there, whatever is missing. */
export function lifelongOfFinished(out: string): LifelongRow[] {
  const rows = lifelongRows(readCells(out));
  if (rows.length === 0) return rows;
  writeFileAtomic(join(out, 'table5.json'), `${JSON.stringify(rows, null, 1)}\n`);
  writeFileAtomic(join(out, 'table5.md'), toMarkdown(table5Rows(rows)));
  writeFileAtomic(join(out, 'table5.csv'), toCsv(table5Rows(rows)));
  return rows;
}

export function lifelongRows(cells: readonly Cell[]): LifelongRow[] {
  const groups = new Map<string, { readonly cell: Cell; readonly point: CellPoint }[]>();
  for (const cell of cells)
    for (const point of cell.points ?? []) {
      const key = `${cell.place.split('/').slice(0, -1).join('/')}/${point.edits}`;
      groups.set(key, [...(groups.get(key) ?? []), { cell, point }]);
    }
  return [...groups.values()].map((runs): LifelongRow => {
    const { model, data, editor } = runs[0]!.cell.manifest.identity;
    const [{ edits, evaluation }] = runs.map(({ point }) => point) as [CellPoint];
    const owns = runs.flatMap(({ point }) => point.own?.average ?? []);
    const sister = paperModelOf(model.name);
    return {
      model: model.name,
      dataset: data.kind,
      editor: editor.id,
      edits,
      records: evaluation.count,
      seeds: runs.map(({ cell }) => cell.manifest.identity.editor.seed),
      forced: Object.fromEntries(
        metricNames.map((name) => [name, mean(runs.map(({ point }) => point.evaluation[name]))]),
      ) as LifelongRow['forced'],
      interval: intervalOf(runs.map(({ cell, point: { records } }) => ({ place: cell.place, records }))),
      generation: mean(runs.map(({ point }) => point.evaluation.generation.average)),
      own: owns.length === 0 ? null : mean(owns),
      published: (sister && data.kind === 'vqa' && paperLifelong[sister]?.[editor.id]?.[edits]) || null,
    };
  });
}

const percent = (x: number | null): string => (x === null ? '' : (100 * x).toFixed(2));

export function table5Rows(rows: readonly LifelongRow[]): Rows {
  const head = ['Backbone', 'Data', 'Editor', 'Edits', ...metricNames.map((name) => columnNames[name])];
  head.push('±', 'Average, free generation', 'Average, own moment', 'Published average', 'Records', 'Seeds');
  return {
    head,
    align: head.map((_, i) => (i < 3 ? 'left' : 'right')),
    rows: rows.map(({ model, dataset, editor, edits, forced, interval, generation, own, published, records, seeds }) => [
      model,
      datasets[dataset],
      editor,
      edits,
      ...metricNames.map((name) => percent(forced[name])),
      percent(interval && (interval.high - interval.low) / 2),
      percent(generation),
      percent(own),
      published === null ? '' : published.toFixed(2),
      records,
      seeds.some((seed) => seed === null) ? '' : seeds.join(', '),
    ]),
  };
}
