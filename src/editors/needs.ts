/** What answering and training take of memory, by type of weights, device and editor, against what a machine has. */

import { bytesOnCard, fastestWithin, type Residency, trainingBytes } from '../models/memory.ts';
import { sizeAs } from '../models/size.ts';
import type { Vlm } from '../models/vlm.ts';
import { type WeightType, weightTypes } from '../models/weight-types.ts';
import { allEditorIds, editorNamed } from './index.ts';

/** What one input takes while it is answered, with weights of one type. */
export interface AnsweringNeeds {
  readonly type: WeightType;
  /** bytes of private memory on the processor, and how it runs there */
  readonly bytes: number;
  readonly residency: Residency;
  readonly fits: boolean;
  /** bytes of a card's memory */
  readonly card: number;
}

/**
 * @param memory bytes of the machine
 * @param stored the type of weights that are whole numbers already
 */
export function answeringNeeds(vlm: Vlm, memory: number, stored?: WeightType): AnsweringNeeds[] {
  if (vlm.sizes === undefined) return [];
  const sizes = vlm.sizes;
  return (stored === undefined ? weightTypes : [stored]).map((type) => {
    const size = sizeAs(sizes(type), type);
    const { bytes, residency } = fastestWithin(size, memory);
    return { type, bytes, residency, fits: bytes <= memory, card: bytesOnCard(size) };
  });
}

/** What a training step over one record takes; other records of a batch are added with `--micro-batch 1`. */
export interface TrainingNeeds {
  readonly editor: string;
  /** false: nothing is trained before an edit */
  readonly trained: boolean;
  /** decoder layers that its gradients go through */
  readonly layers: number;
  readonly bytes: number;
  readonly fits: boolean;
}

/**
 * What each editor's training takes by its own defaults, with weights as they are stored.
 * @param memory bytes of the machine
 */
export async function trainingNeeds(vlm: Vlm, memory: number): Promise<TrainingNeeds[]> {
  if (vlm.sizes === undefined) return [];
  const estimate = fastestWithin(vlm.sizes(), memory, { training: true });
  const out: TrainingNeeds[] = [];
  for (const id of allEditorIds()) {
    const editor = await editorNamed(id);
    const layers = editor.layersTrained?.(vlm) ?? 0;
    const bytes = trainingBytes(estimate, layers, 1);
    out.push({ editor: id, trained: editor.trained, layers, bytes, fits: bytes <= memory });
  }
  return out;
}
