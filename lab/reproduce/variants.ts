/** VEAD trained in several ways on one backbone and E-VQA (Tables 2 and 3): a row for each way, over seeds. */
import { mean, standardDeviation } from '../../src/evaluation/statistics.ts';
import { columnNames, type Rows } from '../../src/evaluation/tables.ts';
import { type Cell, cellRecords } from './cell-store.ts';
import { type CellRequest, type CellsOptions, modelName, runCells } from './cells.ts';
import {
  type AgainstVead,
  againstVead,
  type MetricName,
  metricNames,
  record,
  recordMeans,
  significance,
  VEAD,
} from './columns.ts';
import { type Recipe, recipeFor } from './recipes.ts';

export interface Variant {
  /** folder of its cells; that of the plain editor when absent */
  readonly folder?: string;
  readonly training: Recipe;
}

export type VariantRow = Readonly<Record<MetricName, number>> & {
  readonly count: number;
  readonly seeds: readonly number[];
  /** over seeds */
  readonly deviation: number;
  /** each metric minus the reference's, paired over records; null for the reference itself */
  readonly against: Readonly<Record<MetricName, AgainstVead | null>> | null;
};

export interface VariantOptions extends CellsOptions {
  readonly model: string;
  readonly seeds: readonly number[];
  /** of every variant; the recipe's or the editor's own number when absent */
  readonly steps?: number | undefined;
}

/** @param reference the variant that the others are compared with, by its place in the list @returns a row for each variant, in their order */
export async function variantRows(
  variants: readonly Variant[],
  reference: number | undefined,
  options: VariantOptions,
): Promise<VariantRow[]> {
  const { model, seeds, steps } = options;
  const requests = variants.flatMap(({ folder, training }) =>
    seeds.map(
      (seed): CellRequest => ({
        model,
        dataset: 'vqa',
        editor: VEAD,
        seed,
        ...(folder === undefined ? {} : { variant: folder }),
        training: recipeFor(modelName(model), 'vqa', VEAD, { ...training, steps }),
        shipped: folder === undefined && steps === undefined,
      }),
    ),
  );
  const cells = await runCells(requests, options);
  const runsOf = (i: number): Cell[] => cells.slice(i * seeds.length, (i + 1) * seeds.length);
  const records = variants.map((_, i) => runsOf(i).map(cellRecords));
  return variants.map((_, i) => {
    const runs = runsOf(i).map(({ evaluation }) => evaluation);
    const compared = reference === undefined || i === reference ? undefined : records[reference];
    return {
      ...record(metricNames, (name) => mean(runs.map((run) => run[name]))),
      count: runs[0]!.count,
      seeds,
      deviation: standardDeviation(runs.map(({ average }) => average)),
      against:
        compared === undefined
          ? null
          : record(metricNames, (name) =>
              againstVead(recordMeans(records[i]!, name), recordMeans(compared, name), `${modelName(model)}/${i}`),
            ),
    };
  });
}

/** An asterisk marks what is below the reference's figure with p < 0.05. */
export function variantTable(first: string, rows: readonly { readonly name: string; readonly row: VariantRow }[]): Rows {
  const percent = (x: number): string => (100 * x).toFixed(2);
  const head = [first, ...metricNames.map((name) => columnNames[name]), 'Edits'];
  return {
    head,
    rows: rows.map(({ name, row }) => [
      name,
      ...metricNames.map((metric) => {
        const spread = metric === 'average' && row.seeds.length > 1 ? ` ± ${percent(row.deviation)}` : '';
        const against = row.against?.[metric];
        const below = against != null && against.difference < 0 && against.p < significance;
        return `${percent(row[metric])}${spread}${below ? ' *' : ''}`;
      }),
      row.count,
    ]),
    align: head.map((_, i) => (i === 0 ? 'left' : 'right')),
  };
}
