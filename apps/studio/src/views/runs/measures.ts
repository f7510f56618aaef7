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

export const began = ({ started }: Run): Date | undefined => (started === null ? undefined : new Date(started));
