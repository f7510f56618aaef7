/**
 * What the paper finds in its tables, each as a yes or no with figures. A finding is a rule over plain figures, the same for the paper's tables and for
 * ours, so that the rules themselves can be tested: on the paper's figures all of them hold.
 */

import { mean } from '../../src/evaluation/statistics.ts';
import type { DatasetKind } from '../../src/input/records.ts';
import type { Column } from './columns.ts';
import { datasetKinds, datasets } from './data.ts';
import type { Claim } from './figures/figure.ts';
import { type PaperFigures, paperTable1, paperTable2, paperTable3 } from './paper-tables.ts';
import type { Table2 } from './table2.ts';
import type { Ablation, Table3 } from './table3.ts';

/** In percent. */
export interface RowFigures {
  readonly reliability: number;
  readonly textGenerality: number;
  readonly modalGenerality: number;
  readonly textLocality: number;
  readonly modalLocality: number;
  readonly average: number;
}

/** A backbone and data set. */
export interface ColumnFigures {
  readonly name: string;
  readonly model: string;
  readonly dataset: DatasetKind;
  readonly editors: ReadonlyMap<string, RowFigures>;
}

export interface LayerFigures extends RowFigures {
  readonly layer: number;
}

export type AblationFigures = ReadonlyMap<Ablation, RowFigures>;

const fromPaper = ([
  reliability,
  textGenerality,
  modalGenerality,
  textLocality,
  modalLocality,
  average,
]: PaperFigures): RowFigures => ({
  reliability,
  textGenerality,
  modalGenerality,
  textLocality,
  modalLocality,
  average,
});

export function paperColumns(): ColumnFigures[] {
  return Object.entries(paperTable1).flatMap(([model, data]) =>
    datasetKinds.map((dataset) => ({
      name: `${model} ${datasets[dataset]}`,
      model,
      dataset,
      editors: new Map(
        Object.entries(data[dataset]).map(([id, figures]) => [id, fromPaper(figures.slice(0, 6) as unknown as PaperFigures)]),
      ),
    })),
  );
}
export const paperLayers = (): LayerFigures[] => paperTable2.map(({ layer, figures }) => ({ layer, ...fromPaper(figures) }));
export const paperAblation = (): AblationFigures =>
  new Map(Object.entries(paperTable3).map(([name, figures]) => [name as Ablation, fromPaper(figures)]));

const percentages = (row: Readonly<Record<keyof RowFigures, number>>): RowFigures => ({
  reliability: 100 * row.reliability,
  textGenerality: 100 * row.textGenerality,
  modalGenerality: 100 * row.modalGenerality,
  textLocality: 100 * row.textLocality,
  modalLocality: 100 * row.modalLocality,
  average: 100 * row.average,
});

/** @param variants for some editors, the variant that stands for them */
export function columnFigures(
  { model, dataset, entries }: Column,
  variants: Readonly<Record<string, string | undefined>> = {},
): ColumnFigures {
  const rowOf = ({ forced }: Column['entries'][number]): RowFigures => ({
    reliability: 100 * forced.reliability.mean,
    textGenerality: 100 * forced.textGenerality.mean,
    modalGenerality: 100 * forced.modalGenerality.mean,
    textLocality: 100 * forced.textLocality.mean,
    modalLocality: 100 * forced.modalLocality.mean,
    average: 100 * forced.average.mean,
  });
  return {
    name: `${model} ${datasets[dataset]}`,
    model,
    dataset,
    editors: new Map(
      entries.filter(({ editor, variant }) => variant === variants[editor]).map((entry) => [entry.editor, rowOf(entry)]),
    ),
  };
}
export const layerFigures = ({ rows }: Pick<Table2, 'rows'>): LayerFigures[] =>
  rows.map((row) => ({ layer: row.layer, ...percentages(row) }));
export const ablationFigures = ({ rows }: Pick<Table3, 'rows'>): AblationFigures =>
  new Map(rows.map((row) => [row.ablation, percentages(row)]));

const shown = (x: number): string => x.toFixed(1);

const labels = { textGenerality: 'T-Gen', modalGenerality: 'M-Gen', textLocality: 'T-Loc', modalLocality: 'M-Loc' } as const;
type Shown = keyof typeof labels;

interface PlacedRow {
  readonly where: string;
  readonly row: RowFigures;
}

/** An editor's row by its column, several by their ranges. */
function rowsText(id: string, rows: readonly PlacedRow[], metrics: readonly Shown[]): string {
  const figures = metrics.map((metric) => {
    const values = rows.map(({ row }) => row[metric]);
    const [low, high] = [shown(Math.min(...values)), shown(Math.max(...values))];
    return `${labels[metric]} ${low === high ? low : `${low} to ${high}`}`;
  });
  return `${id} on ${rows.length === 1 ? rows[0]!.where : `${rows.length} columns`}: ${figures.join(', ')}`;
}

/** A claim about every row of some editors; those that break it are told, or all where none does. It is not decided before each editor has rows. */
function everyRow(
  claim: string,
  columns: readonly ColumnFigures[],
  ids: readonly string[],
  rule: (row: RowFigures) => boolean,
  metrics: readonly Shown[],
): Claim {
  const groups = ids.map((id) => ({
    id,
    rows: columns.flatMap(({ name, editors }) => (editors.has(id) ? [{ where: name, row: editors.get(id)! }] : [])),
  }));
  const missing = groups.filter(({ rows }) => rows.length === 0).map(({ id }) => id);
  if (missing.length > 0) return { claim, holds: null, measured: `no rows of ${missing.join(', ')}` };
  const broken = groups.map(({ id, rows }) => ({ id, rows: rows.filter(({ row }) => !rule(row)) }));
  const count = (of: typeof groups): number => of.reduce((sum, { rows }) => sum + rows.length, 0);
  const holds = count(broken) === 0;
  const told = (holds ? groups : broken).filter(({ rows }) => rows.length > 0);
  return {
    claim,
    holds,
    measured: `${count(groups) - count(broken)} of ${count(groups)} rows${holds ? '' : '; not'}: ${told.map(({ id, rows }) => rowsText(id, rows, metrics)).join('; ')}`,
  };
}

const FT_LOCALITY = 85;
const FT_GENERALITY = 60;
const LOST_LOCALITY = 70;

/** Findings of Tables 1 and 4. */
export function editorFindings(columns: readonly ColumnFigures[]): Claim[] {
  const besides = columns.filter(({ editors }) => editors.has('vead') && editors.size > 1);
  const best = besides.filter(({ editors }) => {
    const vead = editors.get('vead')!.average;
    return [...editors].every(([id, { average }]) => id === 'vead' || average < vead);
  });
  const beaten = besides
    .filter((column) => !best.includes(column))
    .map(({ name, editors }) => {
      const vead = editors.get('vead')!.average;
      const above = [...editors].filter(([id, { average }]) => id !== 'vead' && average >= vead);
      return `${name}: ${above.map(([id, { average }]) => `${id} ${shown(average)}`).join(', ')} against ${shown(vead)}`;
    });
  const pairs = [...new Set(columns.map(({ model }) => model))].flatMap((model) => {
    const [vqa, caption] = datasetKinds.map((kind) =>
      columns.find((column) => column.model === model && column.dataset === kind),
    );
    return [...(vqa?.editors ?? [])].flatMap(([id, { average }]) => {
      const other = caption?.editors.get(id)?.average;
      return other === undefined ? [] : [{ id, better: average > other }];
    });
  });
  const easier = pairs.filter(({ better }) => better).length;
  return [
    {
      claim: 'VisEdit has the best average on every backbone and data set',
      holds: besides.length === 0 ? null : best.length === besides.length,
      measured: `${best.length} of ${besides.length} columns${beaten.length === 0 ? '' : `; not on ${beaten.join('; ')}`}`,
    },
    everyRow(
      `fine-tuning (FT-V, FT-L) keeps locality (T-Loc and M-Loc above ${FT_LOCALITY} %) and fails generality (T-Gen and M-Gen below ${FT_GENERALITY} %)`,
      columns,
      ['ft-v', 'ft-l'],
      ({ textLocality, modalLocality, textGenerality, modalGenerality }) =>
        Math.min(textLocality, modalLocality) > FT_LOCALITY && Math.max(textGenerality, modalGenerality) < FT_GENERALITY,
      ['textGenerality', 'modalGenerality', 'textLocality', 'modalLocality'],
    ),
    everyRow(
      `IKE and SERAC lose image locality (M-Loc below ${LOST_LOCALITY} %)`,
      columns,
      ['ike', 'serac'],
      ({ modalLocality }) => modalLocality < LOST_LOCALITY,
      ['modalLocality'],
    ),
    everyRow(
      'editing the visual part alone, or telling text apart, leaves text locality whole (FT-V, SERAC, VisEdit: T-Loc 100 %)',
      columns,
      ['ft-v', 'serac', 'vead'],
      ({ textLocality }) => textLocality === 100,
      ['textLocality'],
    ),
    {
      claim: 'most editors do better on E-VQA than on E-IC',
      // Of one editor nothing can be said about most.
      holds: new Set(pairs.map(({ id }) => id)).size < 2 ? null : easier > pairs.length / 2,
      measured: `${easier} of ${pairs.length} pairs of editor and backbone`,
    },
  ];
}

/** Findings of Table 2. */
export function layerFindings(layers: readonly LayerFigures[]): Claim[] {
  const claim = 'middle-to-late insert layers beat the first and the last';
  if (layers.length < 3) return [{ claim, holds: null, measured: `${layers.length} layers are too few` }];
  const [first, last] = [layers[0]!, layers.at(-1)!];
  const between = layers.slice(1, -1);
  const best = between.reduce((a, b) => (b.average > a.average ? b : a));
  return [
    {
      claim,
      holds: best.average > first.average && best.average > last.average,
      measured: `average ${shown(first.average)} at layer ${first.layer}, ${shown(best.average)} at layer ${best.layer}, ${shown(last.average)} at layer ${last.layer}`,
    },
  ];
}

/** Findings of Table 3. */
export function ablationFindings(rows: AblationFigures): Claim[] {
  const full = rows.get('full');
  const against = (
    claim: string,
    without: readonly Ablation[],
    metrics: readonly (keyof RowFigures)[],
    rule: (with_: number, without: number) => boolean,
    unit: string,
  ): Claim => {
    const found = without.flatMap((name) => (rows.has(name) ? [{ name, row: rows.get(name)! }] : []));
    if (full === undefined || found.length === 0) return { claim, holds: null, measured: 'no such rows' };
    const value = (row: RowFigures): number => mean(metrics.map((metric) => row[metric]));
    return {
      claim,
      holds: found.every(({ row }) => rule(value(full), value(row))),
      measured: `${unit} ${shown(value(full))} in full; ${found.map(({ name, row }) => `${shown(value(row))} with ${name}`).join(', ')}`,
    };
  };
  return [
    against(
      'removing the cross-attention destroys reliability (below half of it is left)',
      ['no-ca'],
      ['reliability'],
      (a, b) => b < a / 2,
      'Rel',
    ),
    against(
      'removing the influence mapper costs image locality (more than a point)',
      ['no-im'],
      ['modalLocality'],
      (a, b) => b < a - 1,
      'M-Loc',
    ),
    against(
      'removing ℓ_im↓ costs image locality (more than a point)',
      ['no-im-down'],
      ['modalLocality'],
      (a, b) => b < a - 1,
      'M-Loc',
    ),
    against(
      'removing ℓ_im↑ or ℓ_ima costs reliability and generality',
      ['no-im-up', 'no-ima'],
      ['reliability', 'textGenerality', 'modalGenerality'],
      (a, b) => b < a,
      'mean of Rel, T-Gen and M-Gen',
    ),
  ];
}
