/** Which editors stand above which, here and in the paper. */
import { kendall } from '../../src/evaluation/statistics.ts';
import { toMarkdown } from '../../src/evaluation/tables.ts';
import { type Column, entryName } from './columns.ts';
import { datasets } from './data.ts';
import { type ColumnFigures, columnFigures, paperColumns } from './findings.ts';
import { paperModelOf, paperTable1 } from './paper-tables.ts';

export interface Ordering {
  readonly rows: readonly {
    readonly editor: string;
    readonly ours: number;
    readonly theirs: number;
    readonly rank: number;
    readonly theirRank: number;
  }[];
  /** pairs of editors that stand in the same order */
  readonly held: number;
  readonly pairs: number;
  /** as "ft-l above lte" here, below in the paper */
  readonly turned: readonly string[];
  /** Kendall's τ of the averages; null where it is not defined */
  readonly tau: number | null;
}

export function ordering(ours: ColumnFigures, paper: ColumnFigures): Ordering {
  const editors = [...ours.editors.keys()].filter((id) => paper.editors.has(id));
  const [here, there] = [ours, paper].map(({ editors: rows }) => editors.map((id) => rows.get(id)!.average)) as [
    number[],
    number[],
  ];
  const rankIn = (values: readonly number[], i: number): number => 1 + values.filter((value) => value > values[i]!).length;
  const turned: string[] = [];
  let pairs = 0;
  for (let i = 0; i < editors.length; i++)
    for (let j = 0; j < i; j++) {
      pairs++;
      const [a, b] = [here[i]! - here[j]!, there[i]! - there[j]!];
      if (a * b > 0) continue;
      turned.push(
        a > 0
          ? `${editors[i]} above ${editors[j]}`
          : a < 0
            ? `${editors[j]} above ${editors[i]}`
            : `${editors[i]} level with ${editors[j]}`,
      );
    }
  return {
    rows: editors
      .map((editor, i) => ({ editor, ours: here[i]!, theirs: there[i]!, rank: rankIn(here, i), theirRank: rankIn(there, i) }))
      .sort((a, b) => a.rank - b.rank),
    held: pairs - turned.length,
    pairs,
    turned,
    tau: kendall(here, there),
  };
}

/** Kendall's τ to the paper where fine-tuning takes a budget of steps. */
export interface BudgetOrdering {
  /** by fine-tuning editor, its variant; absent: the protocol's own steps */
  readonly variants: Readonly<Record<string, string | undefined>>;
  /** whether these are, for each, the budget whose average is nearest to the paper's */
  readonly nearest: boolean;
  readonly tau: number | null;
}

/**
 * Papers do not agree on the budget of fine-tuning, so an ordering stands for each budget that was measured, and for the ones whose averages are nearest to the
 * paper's. The last were chosen by the paper's own figures, so that their τ is no independent agreement.
 */
export function budgetOrderings(column: Column, paper: ColumnFigures): BudgetOrdering[] {
  const tuned = [...new Set(column.entries.flatMap(({ editor, variant }) => (variant === undefined ? [] : [editor])))];
  if (tuned.length === 0) return [];
  const of = (variants: BudgetOrdering['variants'], nearest: boolean): BudgetOrdering => ({
    variants,
    nearest,
    tau: ordering(columnFigures(column, variants), paper).tau,
  });
  const budgets = [...new Set(column.entries.filter(({ editor }) => tuned.includes(editor)).map(({ variant }) => variant))];
  const nearest = tuned.map((editor): [string, string | undefined] => {
    const theirs = paper.editors.get(editor)?.average ?? 0;
    const far = (average: number): number => Math.abs(100 * average - theirs);
    const own = column.entries.filter((entry) => entry.editor === editor);
    return [editor, own.reduce((a, b) => (far(b.forced.average.mean) < far(a.forced.average.mean) ? b : a)).variant];
  });
  return [
    ...budgets.map((budget) => of(Object.fromEntries(tuned.map((editor) => [editor, budget])), false)),
    of(Object.fromEntries(nearest), true),
  ];
}

const two = (x: number): string => x.toFixed(2);
const table = (head: readonly string[], rows: readonly (readonly (string | number)[])[]): string =>
  toMarkdown({ head, rows, align: head.map((_, i) => (i < 1 ? 'left' : 'right')) });

/** The orderings of columns that stand in the paper too, as Markdown; empty where none does. */
export function orderSection(columns: readonly Column[]): string {
  const paper = paperColumns();
  return columns
    .flatMap((column) => {
      const sister = paperModelOf(column.model);
      const theirs = paper.find(({ model, dataset }) => model === sister && dataset === column.dataset);
      if (sister === undefined || theirs === undefined) return [];
      const { rows, held, pairs, turned, tau } = ordering(columnFigures(column), theirs);
      if (pairs === 0) return [];
      const deviations = paperTable1[sister][column.dataset];
      const lines = rows.map(({ editor, ours, theirs: average, rank, theirRank }) => [
        editor,
        two(ours),
        rank,
        `${two(average)} ± ${two(deviations[editor as keyof typeof deviations][6])}`,
        theirRank,
      ]);
      const text = [
        `**${column.model}, ${datasets[column.dataset]}**: ${held} of ${pairs} orderings of two editors are the paper's${tau === null ? '' : ` (Kendall's τ ${two(tau)})`}.`,
        ...(turned.length === 0 ? [] : [`Turned: ${turned.join(', ')}.`]),
      ];
      const budgets = budgetOrderings(column, theirs);
      const byBudget =
        budgets.length === 0
          ? ''
          : `\n${table(
              ['Steps of fine-tuning', "Kendall's τ to the paper"],
              budgets.map(({ variants, nearest, tau: one }) => [
                `${Object.keys(variants)
                  .map((editor) =>
                    entryName({ editor, ...(variants[editor] === undefined ? {} : { variant: variants[editor] }) }),
                  )
                  .join(
                    '; ',
                  )}${nearest ? ' (nearest to the paper)' : Object.values(variants).every((variant) => variant === undefined) ? ' (as the protocol sets them)' : ''}`,
                one === null ? '' : two(one),
              ]),
            )}`;
      return [`${text.join(' ')}\n\n${table(['Editor', 'Average', 'Rank', 'Paper', 'Rank in the paper'], lines)}${byBudget}`];
    })
    .join('\n');
}
