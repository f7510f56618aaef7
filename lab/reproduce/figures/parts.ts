/** Small things that several figures share. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { AverageContribution } from '../../../src/attribution/dataset-average.ts';
import type { ModuleBars } from '../../../src/figures/index.ts';
import { builtInModels, modelFolder } from '../../../src/models/load.ts';
import type { FigureOptions, PaperFigure } from './figure.ts';

export const pairs = <T>(list: readonly (readonly T[])[]): T[] => list.flatMap((pair) => [...pair]);

export function moduleBarsOf(
  { contribution: { attn, mlp } }: Pick<AverageContribution, 'contribution'>,
  more: Partial<ModuleBars> = {},
): ModuleBars {
  return { layers: attn.map((_, i) => i), attn, mlp, ...more };
}

/**
 * The models to draw: those asked for, else the figure's own that are part of this copy.
 * @throws Error when none is
 */
export function modelsOf({ models }: Pick<PaperFigure, 'models'>, options: FigureOptions): string[] {
  if (options.models !== undefined) return [...options.models];
  const there = models.filter((name) => !isMissing(name));
  const missing = models.filter(isMissing);
  if (there.length === 0)
    throw new Error(`none of the figure's models is part of this copy (${missing.join(', ')}); name another with --model`);
  if (missing.length > 0) options.log(`Left out, since not part of this copy: ${missing.join(', ')}.`);
  return there;
}

function isMissing(name: string): boolean {
  if (!(builtInModels as readonly string[]).includes(name)) return false;
  try {
    return !existsSync(join(modelFolder(name), 'config.json'));
  } catch {
    return true;
  }
}
