/**
 * The editor contract. An editor turns requests into edits; an edit is data (tensors and a description), and a model with an edit is a new
 * value: nothing is mutated, and dropping the edit gives bit-identical outputs.
 */

import type { EditRecord } from '../data/records.ts';
import type { Tensor } from '../graph/dtype.ts';
import type { AnsweringModel } from '../models/answer.ts';
import type { RgbImage, Vlm } from '../models/vlm.ts';

export interface EditRequest {
  readonly image: RgbImage;
  readonly prompt: string;
  readonly target: string;
}

/** JSON values that describe an edit or an editor's weights. */
export type Settings = Readonly<Record<string, string | number | boolean | null | readonly number[]>>;

export interface ModelId {
  readonly name: string;
  /** hash of the weights */
  readonly fingerprint: string;
}

export interface Edit {
  readonly editor: string;
  readonly model: ModelId;
  readonly request: { readonly prompt: string; readonly target: string };
  readonly settings: Settings;
  readonly tensors: ReadonlyMap<string, Tensor<'float32'>>;
}

/** What an editor learned. */
export interface EditorWeights {
  readonly editor: string;
  readonly model: ModelId;
  readonly settings: Settings;
  readonly tensors: ReadonlyMap<string, Tensor<'float32'>>;
}

export interface TrainProgress {
  step: number;
  steps: number;
  loss: number;
  metrics: Readonly<Record<string, number>>;
}

export interface TrainOptions {
  /** checkpoints, log and the final weights */
  out: string;
  seed: string | number;
  layer?: number;
  steps?: number;
  batch?: number;
  rate?: number;
  resume?: boolean;
  threads?: number;
  signal?: AbortSignal;
  onStep?: (progress: TrainProgress) => void;
  /** the editor's own options, by name */
  settings?: Settings;
}

export interface Editor {
  readonly id: string;
  readonly summary: string;
  /** whether `edit` needs weights from `train` */
  readonly trained: boolean;
  train?(vlm: Vlm, records: readonly EditRecord[], options: TrainOptions): Promise<EditorWeights>;
  /** One edit per request; a batch equals its singles. */
  edit(vlm: Vlm, requests: readonly EditRequest[], weights?: EditorWeights): Promise<Edit[]>;
  /**
   * The edited model. With one edit every query is answered under it; with several, query i is answered under edit i.
   * @throws Error when an edit belongs to another model
   */
  with(vlm: Vlm, edits: readonly Edit[]): AnsweringModel;
  /** The model under all edits at once, one after the other in their order; absent: edits of this editor do not combine. */
  chain?(vlm: Vlm, edits: readonly Edit[]): AnsweringModel;
}

export function modelId(vlm: Vlm): ModelId {
  return { name: vlm.name, fingerprint: vlm.fingerprint };
}

/** @throws Error that names both models when data was made for another model */
export function checkModel(what: string, made: ModelId, vlm: Vlm): void {
  if (made.fingerprint !== vlm.fingerprint) {
    throw new Error(
      `${what} was made for ${made.name} (${made.fingerprint.slice(0, 12)}), not for ${vlm.name} (${vlm.fingerprint.slice(0, 12)}); use the model it was made for, or make it again`,
    );
  }
}
