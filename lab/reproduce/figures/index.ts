/** The paper's figures by name, and the curves beside its tables; each is loaded when it is asked for. */
import type { PaperFigure } from './figure.ts';

/** One line per figure. */
export const paperFigures = {
  figure1: async () => (await import('./figure1.ts')).figure1,
  figure3: async () => (await import('./figure3.ts')).figure3,
  figure4: async () => (await import('./figure4.ts')).figure4,
  figure5: async () => (await import('./figure5.ts')).figure5,
  figure6: async () => (await import('./figure6.ts')).figure6,
  figure7: async () => (await import('./figure7.ts')).figure7,
  figure8: async () => (await import('./figure3.ts')).figure8,
  figure9: async () => (await import('./figure4.ts')).figure9,
  'layer-sweep': async () => (await import('./layer-sweep.ts')).layerSweep,
  'sequential-costs': async () => (await import('./sequential-costs.ts')).sequentialCosts,
  'training-curves': async () => (await import('./training-curves.ts')).trainingCurves,
} satisfies Record<string, () => Promise<PaperFigure>>;

export type FigureName = keyof typeof paperFigures;
export const figureNames = Object.keys(paperFigures) as FigureName[];
