/**
 * Tables 1 to 4 of the paper (VisEdit, Chen et al., AAAI-25) as data, in percent: Rel, T-Gen, M-Gen, T-Loc, M-Loc and their average, then where the
 * table gives it the deviation of the average over runs. BLIP2-OPT is of 2.7, LLaVA-1.5 and MiniGPT-4 are of 7 billion weights.
 */

import { type EditorId, editorIds } from '../../src/editors/index.ts';
import type { DatasetKind } from '../../src/input/records.ts';
import type { Ablation } from './table3.ts';

export type PaperModel = 'blip2-opt' | 'llava' | 'minigpt4';

/** [Rel, T-Gen, M-Gen, T-Loc, M-Loc, average] */
export type PaperFigures = readonly [number, number, number, number, number, number];
type WithDeviation = readonly [...PaperFigures, number];

/** Editors that came after the paper. */
const later = ['dual-edit', 'live-edit', 'm-ore'] as const satisfies readonly EditorId[];

export type PaperEditor = Exclude<EditorId, (typeof later)[number]>;

/** The editors of Tables 1 and 4. */
export const paperEditors = editorIds.filter((id): id is PaperEditor => !(later as readonly string[]).includes(id));

/** Tables 1 and 4. */
export const paperTable1: Readonly<
  Record<PaperModel, Readonly<Record<DatasetKind, Readonly<Record<PaperEditor, WithDeviation>>>>>
> = {
  'blip2-opt': {
    vqa: {
      'ft-v': [24.01, 16.0, 20.22, 100.0, 88.65, 49.78, 0.47],
      'ft-l': [24.86, 16.39, 20.57, 98.92, 89.61, 50.07, 0.6],
      ke: [67.8, 63.0, 66.17, 97.32, 45.89, 68.04, 0.0],
      ike: [99.95, 91.59, 92.33, 13.16, 1.88, 59.78, 0.0],
      serac: [91.2, 91.4, 89.81, 100.0, 0.33, 74.55, 0.0],
      mend: [92.6, 90.8, 91.94, 96.07, 65.15, 87.31, 0.0],
      tp: [68.31, 60.88, 56.35, 98.49, 85.27, 73.86, 0.99],
      lte: [97.74, 97.21, 96.35, 94.34, 84.99, 94.13, 0.97],
      vead: [98.83, 98.63, 97.9, 100.0, 92.3, 97.53, 0.7],
    },
    caption: {
      'ft-v': [42.11, 40.74, 36.43, 100.0, 89.73, 61.8, 0.4],
      'ft-l': [41.61, 40.31, 37.41, 99.35, 88.7, 61.48, 0.77],
      ke: [69.0, 62.8, 61.22, 96.21, 45.55, 66.96, 0.0],
      ike: [96.7, 78.2, 83.15, 13.36, 2.17, 54.72, 0.0],
      serac: [94.4, 96.0, 91.49, 100.0, 0.47, 76.47, 0.0],
      mend: [65.0, 38.0, 36.19, 92.67, 55.72, 57.52, 0.0],
      tp: [49.71, 49.03, 45.46, 93.88, 80.88, 63.79, 1.11],
      lte: [96.69, 95.26, 94.06, 95.25, 87.68, 93.79, 1.05],
      vead: [97.06, 96.83, 94.85, 100.0, 91.74, 96.1, 0.94],
    },
  },
  llava: {
    vqa: {
      'ft-v': [31.68, 29.96, 26.68, 100.0, 91.23, 55.91, 0.71],
      'ft-l': [31.78, 30.02, 26.91, 99.94, 92.03, 56.14, 2.13],
      ke: [85.86, 84.0, 82.23, 93.57, 73.06, 83.74, 1.25],
      ike: [91.35, 90.84, 91.08, 60.18, 51.08, 76.91, 1.42],
      serac: [82.51, 81.6, 80.05, 100.0, 57.48, 80.33, 1.58],
      mend: [92.3, 92.16, 92.1, 90.3, 81.13, 89.6, 2.36],
      tp: [38.68, 36.27, 31.26, 95.31, 91.41, 58.59, 1.32],
      lte: [94.16, 93.54, 93.06, 83.76, 81.65, 89.23, 1.9],
      vead: [95.99, 95.78, 94.71, 100.0, 94.12, 96.12, 0.97],
    },
    caption: {
      'ft-v': [52.85, 51.57, 48.63, 100.0, 92.55, 69.12, 0.29],
      'ft-l': [53.0, 51.02, 49.29, 98.91, 94.89, 69.42, 1.71],
      ke: [83.54, 82.15, 81.12, 92.46, 73.83, 82.62, 0.88],
      ike: [93.72, 88.37, 76.99, 76.6, 64.9, 80.12, 1.18],
      serac: [43.08, 42.37, 42.85, 100.0, 7.63, 47.19, 0.83],
      mend: [93.76, 93.46, 92.14, 91.6, 87.59, 91.71, 1.42],
      tp: [59.07, 57.01, 55.51, 64.79, 89.26, 65.13, 1.85],
      lte: [93.6, 92.38, 91.18, 85.54, 88.49, 90.24, 1.9],
      vead: [95.27, 94.64, 93.57, 100.0, 96.2, 95.94, 0.9],
    },
  },
  minigpt4: {
    vqa: {
      'ft-v': [27.12, 22.04, 21.75, 100.0, 87.8, 51.74, 1.02],
      'ft-l': [29.85, 23.69, 24.66, 98.86, 88.81, 53.17, 1.07],
      ke: [87.77, 86.62, 3.76, 97.15, 55.77, 66.21, 0.0],
      ike: [71.72, 40.23, 70.59, 13.46, 2.0, 39.6, 0.0],
      serac: [87.2, 84.6, 81.87, 100.0, 0.33, 70.8, 0.0],
      mend: [95.51, 95.27, 86.37, 98.73, 71.33, 89.44, 0.0],
      tp: [42.96, 41.53, 40.7, 93.32, 84.61, 60.62, 1.42],
      lte: [95.92, 95.25, 94.92, 87.18, 89.72, 92.6, 1.87],
      vead: [96.83, 96.46, 95.38, 100.0, 90.88, 95.91, 1.15],
    },
    caption: {
      'ft-v': [46.69, 45.58, 44.02, 100.0, 90.85, 65.43, 0.42],
      'ft-l': [46.87, 45.79, 44.36, 99.08, 92.51, 65.72, 0.99],
      ke: [35.1, 24.2, 5.89, 96.78, 52.22, 42.84, 0.0],
      ike: [68.6, 59.8, 63.58, 12.51, 2.96, 41.49, 0.0],
      serac: [40.2, 36.6, 35.12, 100.0, 0.97, 42.58, 0.0],
      mend: [87.1, 84.1, 80.6, 98.34, 59.53, 81.93, 0.0],
      tp: [52.55, 51.93, 49.65, 85.56, 72.66, 62.47, 0.87],
      lte: [89.68, 87.48, 86.15, 86.52, 87.48, 87.46, 1.06],
      vead: [93.25, 90.32, 89.75, 100.0, 94.09, 93.48, 0.45],
    },
  },
};

/** Table 2: BLIP2-OPT, E-VQA, by insert layer. */
export const paperTable2: readonly { readonly layer: number; readonly figures: PaperFigures }[] = [
  { layer: 0, figures: [95.1, 93.7, 94.43, 100.0, 84.51, 93.55] },
  { layer: 5, figures: [95.16, 94.63, 94.49, 100.0, 86.51, 94.16] },
  { layer: 10, figures: [96.36, 95.79, 95.6, 100.0, 85.83, 94.72] },
  { layer: 15, figures: [97.69, 97.48, 97.08, 100.0, 92.2, 96.89] },
  { layer: 19, figures: [98.83, 98.63, 97.9, 100.0, 92.3, 97.53] },
  { layer: 25, figures: [97.54, 96.97, 95.87, 100.0, 88.63, 95.8] },
  { layer: 30, figures: [86.22, 84.18, 83.62, 100.0, 85.98, 88.0] },
];

/** Table 3: LLaVA-1.5, E-VQA. */
export const paperTable3: Readonly<Record<Ablation, PaperFigures>> = {
  full: [95.99, 95.78, 94.71, 100.0, 94.12, 96.12],
  'no-im-down': [95.5, 94.38, 93.87, 100.0, 86.72, 94.09],
  'no-im-up': [94.13, 93.82, 93.58, 100.0, 93.71, 95.05],
  'no-ima': [93.7, 93.05, 92.51, 100.0, 90.18, 93.89],
  'no-im': [93.13, 92.58, 91.89, 100.0, 83.84, 92.29],
  'no-ca': [33.79, 31.98, 28.94, 100.0, 98.98, 58.74],
};

/** The backbone of the paper that a model is a small sister of, by its name; undefined for others. */
export const paperModelOf = (model: string): PaperModel | undefined =>
  (['blip2-opt', 'llava', 'minigpt4'] as const).find((name) =>
    model.toLowerCase().replaceAll('minigpt-4', 'minigpt4').includes(name),
  );

/** LiveEdit's Table 1 (Chen et al. 2025), E-VQA: averages by editor and number of edits. MiniGPT-4 and E-IC are not in it. */
export const paperLifelong: Readonly<Partial<Record<PaperModel, Readonly<Record<string, Readonly<Record<number, number>>>>>>> = {
  llava: {
    'live-edit': { 1: 95.36, 10: 94.68, 1000: 92.76 },
    lte: { 1000: 80.98 },
    serac: { 1000: 64.26 },
    'ft-l': { 1000: 58.63 },
    tp: { 1000: 14.38 },
    mend: { 1000: 0.06 },
  },
  'blip2-opt': {
    'live-edit': { 1: 96.94, 1000: 93.69 },
    lte: { 1000: 83.67 },
    serac: { 1000: 63.05 },
    'ft-l': { 1000: 40.96 },
    tp: { 1000: 14.21 },
    mend: { 1000: 41.97 },
  },
};
