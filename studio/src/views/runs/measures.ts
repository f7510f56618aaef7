/** Measures and dates of a run, as they are shown. */
import type { QueryKind, Run } from '../../api/types.ts';

export const inPercent = (value: number | undefined | null): string =>
  value === undefined || value === null ? '' : (100 * value).toFixed(1);

export const metricTitles: Record<QueryKind | 'average', string> = {
  reliability: 'Rel',
  textGenerality: 'T-Gen',
  modalGenerality: 'M-Gen',
  textLocality: 'T-Loc',
  modalLocality: 'M-Loc',
  average: 'Average',
};

export const began = (run: Run): Date | undefined => {
  if (run.started === null || run.started === undefined) return undefined;
  return typeof run.started === 'number' ? new Date(1000 * run.started) : new Date(run.started);
};
