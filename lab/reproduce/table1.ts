/**
 * Tables 1 and 4 of the paper: editors on backbones and data sets, in the five metrics and their average, over seeds. An editor that learns is trained
 * once for each seed, except where weights of that seed come with the model; one that draws no random numbers has one cell for all seeds.
 */
import type { DatasetKind } from '../../src/input/records.ts';
import { readCells } from './cell-store.ts';
import { type CellRequest, type CellsOptions, modelName, runCells } from './cells.ts';
import { type Column, columnsOf } from './columns.ts';
import { recipeFor } from './recipes.ts';
import { writeTable } from './table-files.ts';

export interface Table1Options extends CellsOptions {
  readonly models: readonly string[];
  readonly datasets: readonly DatasetKind[];
  readonly editors: readonly string[];
  readonly seeds: readonly number[];
  /** training steps; the recipe's or the editor's own number when absent */
  readonly steps?: number | undefined;
  readonly warn: (text: string) => void;
}

export interface Table1 {
  readonly columns: readonly Column[];
  readonly command: string;
}

/**
 * The table of all finished cells in the folder, after those that were asked for are done.
 * @throws Stopped when the signal asks; the same call goes on. Error when cells failed; the table of the finished ones is written
 */
export async function table1(options: Table1Options, name = 'table1'): Promise<Table1> {
  const { models, datasets, editors, seeds, steps, command } = options;
  const requests = models.flatMap((model) =>
    datasets.flatMap((dataset) =>
      editors.flatMap((editor) =>
        seeds.map((seed): CellRequest => {
          const training = recipeFor(modelName(model), dataset, editor, { steps });
          return { model, dataset, editor, seed, training, shipped: true };
        }),
      ),
    ),
  );
  try {
    await runCells(requests, options);
  } catch (error) {
    tableOfFinished({ ...options, warn: () => {} }, name);
    throw error;
  }
  return { columns: tableOfFinished(options, name), command };
}

/** Writes the table of the cells that are there, whatever is missing. */
export function tableOfFinished(
  { out, command, warn }: Pick<Table1Options, 'out' | 'command' | 'warn'>,
  name = 'table1',
): readonly Column[] {
  // Variants of an editor, which other tables make, have a part more.
  const cells = readCells(out).filter(({ place }) => place.split('/').length === 4);
  const columns = columnsOf(cells, warn);
  if (columns.length > 0) writeTable(out, name, columns, command);
  return columns;
}
