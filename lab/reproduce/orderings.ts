/** Which editors stand above which, here and in the paper. */
import { kendall } from '../../src/evaluation/statistics.ts';
import type { ColumnFigures } from './findings.ts';

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
