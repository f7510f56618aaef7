/**
 * Where to insert an editor, from attribution (VisEdit, "The Proposed VLLM Editor"): right before the layers whose attention contributes
 * highly to the answer, since they read what the editor writes; those layers, up to the last but one, are the ones whose visual attribution
 * the influence mapper learns (L_h).
 */

import type { Vlm } from '../models/vlm.ts';
import { type AttributedInput, averageModuleContribution } from './dataset-average.ts';

/** A layer counts as high when its attention contributes this share of the largest. */
export const highShare = 0.25;

export interface InsertLayer {
  layer: number;
  traced: number[];
  /** mean contribution of attention per layer */
  contribution: number[];
}

export function chooseInsertLayer(contribution: readonly number[]): { layer: number; traced: number[] } {
  const last = contribution.length - 1;
  const threshold = highShare * Math.max(...contribution);
  const first = contribution.findIndex((c) => c >= threshold);
  const layer = Math.max(0, Math.min(last - 1, first - 1));
  const high = contribution.flatMap((c, i) => (c >= threshold && i > layer && i < last ? [i] : []));
  return { layer, traced: high.length > 0 ? high : [Math.min(layer + 1, last)] };
}

/** Averages module contributions over inputs with pictures and chooses. */
export async function insertLayer(vlm: Vlm, inputs: readonly AttributedInput[]): Promise<InsertLayer> {
  const { contribution } = await averageModuleContribution(vlm, inputs);
  return { ...chooseInsertLayer(contribution.attn), contribution: contribution.attn };
}
