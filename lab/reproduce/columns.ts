/**
 * Finished cells as the columns of Tables 1 and 4: the runs of an editor on one backbone and data set under all seeds, their means and deviations,
 * and the difference of its average to VEAD's, paired over the records. Plain data: tables, the comparison with the paper and its findings read it.
 */

import { editorIds } from '../../src/editors/index.ts';
import type { Costs } from '../../src/evaluation/costs.ts';
import { addCosts, noCosts } from '../../src/evaluation/costs.ts';
import { differences } from '../../src/evaluation/manifest.ts';
import { type Evaluation, type HardKind, hardKinds } from '../../src/evaluation/metrics.ts';
import {
  bootstrapInterval,
  type Interval,
  mean,
  pairedTTest,
  standardDeviation,
  twoWayInterval,
} from '../../src/evaluation/statistics.ts';
import { type DatasetKind, queryKinds } from '../../src/input/records.ts';
import { builtInModels } from '../../src/models/load.ts';
import { type Cell, type CellRecord, cellRecords } from './cell-store.ts';
import { datasetKinds } from './data.ts';

export const metricNames = [...queryKinds, 'average'] as const;
export type MetricName = (typeof metricNames)[number];

/** Over seeds; the deviation is 0 for a single run. */
export interface Spread {
  readonly mean: number;
  readonly deviation: number;
}

/** An editor's average minus VEAD's, as fractions, over the records that both were asked. */
export interface AgainstVead {
  readonly difference: number;
  /** 95 %, by bootstrap over records */
  readonly interval: Interval;
  /** of the paired t-test over records, two-sided */
  readonly p: number;
}

export interface Entry {
  /** its id */
  readonly editor: string;
  /** how it was set otherwise, as `steps-3`; absent: as the protocol sets it */
  readonly variant?: string;
  /** of each run; null: the editor draws nothing */
  readonly seeds: readonly (number | null)[];
  readonly forced: Readonly<Record<MetricName, Spread>>;
  /** of the average, 95 %, over records and seeds together; null for a single record */
  readonly interval: Interval | null;
  /** exact match of free generation */
  readonly generation: Readonly<Record<MetricName, Spread>>;
  readonly hard: Readonly<Record<HardKind, Spread | null>>;
  /** mean change of the target's probability */
  readonly probability: Readonly<Record<(typeof queryKinds)[number], number | null>>;
  readonly against: AgainstVead | null;
  readonly costs: Costs;
  /** mean over the runs that were trained; null where none was */
  readonly trainingSeconds: number | null;
  readonly evaluationSeconds: number;
}

export interface Column {
  readonly model: string;
  readonly dataset: DatasetKind;
  /** edits evaluated */
  readonly count: number;
  /** in the registry's order, VEAD last as in the paper */
  readonly entries: readonly Entry[];
  /** doing nothing: the unedited model's answers, as fractions; localities are whole */
  readonly floor: Readonly<Record<MetricName, number>>;
  /** how editors are set */
  readonly protocol: string;
}

export const VEAD = 'vead';
export const significance = 0.05;

const order = [...editorIds.filter((id) => id !== VEAD), VEAD];

const rank = (list: readonly string[], name: string): number => {
  const at = list.indexOf(name);
  return at < 0 ? list.length : at;
};

/** @param warn told of cells that cannot stand beside the others of their column */
export function columnsOf(cells: readonly Cell[], warn: (text: string) => void): Column[] {
  const groups = new Map<string, Cell[]>();
  for (const cell of cells) {
    const { model, data } = cell.manifest.identity;
    const key = `${model.name}/${data.kind}`;
    groups.set(key, [...(groups.get(key) ?? []), cell]);
  }
  const columns = [...groups.values()].map((group) => columnOf(group, warn));
  return columns.sort(
    (a, b) =>
      rank(builtInModels, a.model) - rank(builtInModels, b.model) ||
      a.model.localeCompare(b.model) ||
      datasetKinds.indexOf(a.dataset) - datasetKinds.indexOf(b.dataset),
  );
}

/** What the cells of a column must agree in. */
const shared = ({ manifest: { identity } }: Cell): unknown => ({
  model: identity.model,
  data: identity.data,
  protocol: identity.protocol,
});

function columnOf(group: readonly Cell[], warn: (text: string) => void): Column {
  const alike = (cell: Cell): Cell[] => group.filter((other) => differences(shared(cell), shared(other)).length === 0);
  const reference = group.reduce((best, cell) => (alike(cell).length > alike(best).length ? cell : best));
  const kept = alike(reference);
  for (const cell of group) {
    if (kept.includes(cell)) continue;
    const [first] = differences(shared(reference), shared(cell));
    warn(`${cell.place} is left out: it was made otherwise than ${reference.place} (${first}); make it anew with --redo`);
  }
  const runs = new Map<string, Cell[]>();
  for (const cell of kept) {
    const name = entryName(editorOf(cell));
    runs.set(name, [...(runs.get(name) ?? []), cell]);
  }
  const { model, data, protocol } = reference.manifest.identity;
  const averages = new Map([...runs].map(([id, list]) => [id, recordMeans(list.map(cellRecords))]));
  const entries = [...runs]
    .map(([name, list]) => ({ name, list, ...editorOf(list[0]!) }))
    .sort((a, b) => rank(order, a.editor) - rank(order, b.editor))
    .map(({ name: id, list, ...editor }): Entry => {
      for (const difference of unlikeTrainings(list))
        warn(`${list[0]!.place}: seeds were trained in different ways: ${difference}`);
      return entryOf(
        editor,
        list,
        againstVead(averages.get(id)!, id === VEAD ? undefined : averages.get(VEAD), `${model.name}/${data.kind}/${id}`),
      );
    });
  return {
    ...{ model: model.name, dataset: data.kind, count: data.evaluated, entries },
    ...{ floor: floorOf(reference.evaluation), protocol: protocol.name },
  };
}

/** The editor of a cell, and how it was set otherwise than the protocol says. */
function editorOf({ place, manifest }: Cell): Pick<Entry, 'editor' | 'variant'> {
  const parts = place.split('/');
  return { editor: manifest.identity.editor.id, ...(parts.length > 4 ? { variant: parts[3]! } : {}) };
}

/** As `ft-l, 3 steps`. */
export const entryName = ({ editor, variant }: Pick<Entry, 'editor' | 'variant'>): string =>
  variant === undefined
    ? editor
    : `${editor}, ${variant.replace(/^steps-(\d+)$/, (_, n) => (n === '1' ? '1 step' : `${n} steps`))}`;

function floorOf({ unedited: { reliability, textGenerality, modalGenerality } }: Evaluation): Column['floor'] {
  const five = { reliability, textGenerality, modalGenerality, textLocality: 1, modalLocality: 1 };
  return { ...five, average: mean(Object.values(five)) };
}

/** How the settings of the seeds' weights differ, the seed aside. */
function unlikeTrainings(runs: readonly Cell[]): string[] {
  const settings = runs.map(({ manifest }) => ({ ...manifest.weights?.settings, seed: null }));
  return settings
    .slice(1)
    .flatMap((other) => differences(settings[0], other))
    .slice(0, 1);
}

function spread(values: readonly number[]): Spread {
  return { mean: mean(values), deviation: standardDeviation(values) };
}

function entryOf(editor: Pick<Entry, 'editor' | 'variant'>, runs: readonly Cell[], against: AgainstVead | null): Entry {
  const over = (read: (evaluation: Evaluation) => number): Spread => spread(runs.map(({ evaluation }) => read(evaluation)));
  const trainings = runs.flatMap(({ manifest }) => manifest.seconds.training ?? []);
  return {
    ...editor,
    seeds: runs.map(({ manifest }) => manifest.identity.editor.seed).sort((a, b) => (a ?? 0) - (b ?? 0)),
    forced: record(metricNames, (name) => over((evaluation) => evaluation[name])),
    interval: intervalOf(runs),
    generation: record(metricNames, (name) => over(({ generation }) => generation[name])),
    hard: record(hardKinds, (kind) =>
      runs.some(({ evaluation }) => evaluation.hard[kind] == null) ? null : over(({ hard }) => hard[kind]!),
    ),
    probability: record(queryKinds, (kind) => {
      const changes = runs.flatMap(({ evaluation }) => evaluation.probability[kind]?.change ?? []);
      return changes.length === 0 ? null : mean(changes);
    }),
    against,
    costs: runs.map(({ manifest }) => manifest.costs).reduce(addCosts, noCosts),
    trainingSeconds: trainings.length === 0 ? null : mean(trainings),
    evaluationSeconds: mean(runs.map(({ manifest }) => manifest.seconds.evaluation)),
  };
}

/** Of the average over records and seeds together. @param runs one for each seed */
export function intervalOf(runs: readonly Pick<Cell, 'place' | 'records'>[]): Interval | null {
  const averages = runs.map((run) => recordMeans([cellRecords(run)]));
  const shared = [...averages[0]!.keys()].filter((index) => averages.every((one) => one.has(index)));
  return shared.length < 2 ? null : twoWayInterval(averages.map((one) => shared.map((index) => one.get(index)!)));
}

export const record = <K extends string, V>(names: readonly K[], of: (name: K) => V): Record<K, V> =>
  Object.fromEntries(names.map((name) => [name, of(name)])) as Record<K, V>;

/** Of each record, a metric's mean over runs; the average is that of the record's five accuracies. */
export function recordMeans(runs: readonly (readonly CellRecord[])[], metric: MetricName = 'average'): Map<number, number> {
  const kinds = queryKinds.flatMap((kind, i) => (metric === 'average' || metric === kind ? [i] : []));
  const sums = new Map<number, number>();
  for (const run of runs)
    for (const { index, accuracy } of run)
      sums.set(index, (sums.get(index) ?? 0) + mean(kinds.map((i) => accuracy[i] ?? 0)) / runs.length);
  return sums;
}

export function againstVead(
  editor: ReadonlyMap<number, number>,
  vead: ReadonlyMap<number, number> | undefined,
  seed: string,
): AgainstVead | null {
  if (vead === undefined) return null;
  const both = [...editor.keys()].filter((index) => vead.has(index)).sort((a, b) => a - b);
  if (both.length < 2) return null;
  const [ours, theirs] = [both.map((index) => editor.get(index)!), both.map((index) => vead.get(index)!)];
  const differencesOf = ours.map((x, i) => x - theirs[i]!);
  return {
    difference: mean(differencesOf),
    interval: bootstrapInterval(differencesOf, { seed }),
    p: pairedTTest(ours, theirs).p,
  };
}

/** Whether VEAD's average is above every other editor's of a column with p below 0.05; null where it has no other to stand beside. */
export function veadIsBest({ entries }: Column): boolean | null {
  const others = entries.filter(({ editor }) => editor !== VEAD);
  if (others.length === 0 || others.some(({ against }) => against === null)) return null;
  return others.every(({ against }) => against!.difference < 0 && against!.p < significance);
}
