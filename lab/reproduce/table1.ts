/**
 * Tables 1 and 4 of the paper, under one protocol: editors on backbones and data sets, in the five metrics and their average, over seeds. An editor that learns is trained
 * once for each seed, except where weights of that seed come with the model; one that draws no random numbers has one cell for all seeds. Under the published
 * protocol fine-tuning stands there after fewer steps too, since papers do not agree on its budget.
 */
import { join } from 'node:path';
import { writeFileAtomic } from '../../src/files/atomic.ts';
import type { DatasetKind } from '../../src/input/records.ts';
import { setsTraining } from '../recipes.ts';
import { readCells } from './cell-store.ts';
import { type CellRequest, type CellsOptions, modelName, runCells } from './cells.ts';
import { type Column, columnsOf } from './columns.ts';
import { orderSection } from './orderings.ts';
import { recipeFor } from './recipes.ts';
import { writeTable } from './table-files.ts';

const fineTuning = ['ft-l', 'ft-v'];
const fewerSteps = [1, 3, 5];

/** Variants of an editor have a part more; those of other tables are not steps of an edit. */
export const isOfTable1 = (place: string): boolean => place.split('/').length === 4 || /\/steps-\d+\//.test(place);

export interface Table1Options extends CellsOptions {
  readonly models: readonly string[];
  readonly datasets: readonly DatasetKind[];
  readonly editors: readonly string[];
  readonly seeds: readonly number[];
  /** training steps; the recipe's or the editor's own number when absent */
  readonly steps?: number | undefined;
  /** train on the given records even where weights come with the model */
  readonly ownTraining?: boolean | undefined;
  /** whether the records are of the hard world, which has recipes of its own */
  readonly hard?: boolean | undefined;
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
  const { models, datasets, editors, seeds, steps, command, ownTraining = false, hard = false, protocol = 'tuned' } = options;
  const requests = models.flatMap((model) =>
    datasets.flatMap((dataset) =>
      editors.flatMap((editor) =>
        seeds.flatMap((seed): CellRequest[] => {
          const training = setsTraining(protocol, editor)
            ? steps === undefined
              ? {}
              : { steps }
            : recipeFor(`${hard ? 'hard/' : ''}${modelName(model)}`, dataset, editor, { steps });
          const request: CellRequest = { model, dataset, editor, seed, training, shipped: !ownTraining };
          const shorter = protocol === 'published' && fineTuning.includes(editor) ? fewerSteps : [];
          return [...shorter.map((n) => ({ ...request, variant: `steps-${n}`, edit: { steps: n } })), request];
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
  const cells = readCells(out).filter(({ place }) => isOfTable1(place));
  const columns = columnsOf(cells, warn);
  if (columns.length > 0) writeTable(out, name, columns, command);
  const order = orderSection(columns);
  if (order !== '') writeFileAtomic(join(out, `${name}-order.md`), order);
  return columns;
}
