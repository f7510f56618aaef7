/**
 * The editor contract. An editor turns requests into edits; an edit is data (tensors and a description), and a model with an edit is a new
 * value: nothing is mutated, and dropping the edit gives bit-identical outputs.
 */

import { createHash } from 'node:crypto';
import type { Tensor } from '../graph/dtype.ts';
import type { EditRecord } from '../input/records.ts';
import { textOf } from '../input/segments.ts';
import type { AnsweringModel, Query } from '../models/answer.ts';
import type { Vlm } from '../models/vlm.ts';
import { checkForm, type Form, type Forms, origins } from './forms.ts';
import type { WeightChanges } from './gradients/changes.ts';
import type { SettingsSchema } from './settings.ts';

/** What the model should answer: the target, to this prompt about this picture. */
export type EditRequest = Query;

/** What an edit remembers of its request: its words. */
export const wordsOf = ({ prompt, target }: EditRequest): Edit['request'] => ({ prompt: textOf(prompt), target });

/** JSON values that describe an edit or an editor's weights. */
export type Settings = Readonly<Record<string, string | number | boolean | null | readonly number[]>>;

/** Which model an edit or weights are for. */
export interface ModelId {
  readonly name: string;
  /** hash of the weights */
  readonly fingerprint: string;
}

/** One correction as a value: tensors, and what they are. It can be printed, saved, combined and dropped. */
export interface Edit {
  readonly editor: string;
  readonly model: ModelId;
  readonly request: { readonly prompt: string; readonly target: string };
  readonly settings: Settings;
  readonly tensors: ReadonlyMap<string, Tensor<'float32'>>;
  /** what it acts through, where it does not stand by itself: the same value in all edits that were made with it */
  readonly weights?: EditorWeights;
}

/** What an editor learned. */
export interface EditorWeights {
  readonly editor: string;
  readonly model: ModelId;
  readonly settings: Settings;
  readonly tensors: ReadonlyMap<string, Tensor<'float32'>>;
}

/** A step of a training. */
export interface TrainProgress {
  step: number;
  steps: number;
  loss: number;
  metrics: Readonly<Record<string, number>>;
}

/** How an editor is trained, and where what it learned goes; what is left out has the default of the editor. */
export interface TrainOptions {
  /** checkpoints, log and the final weights */
  out: string;
  seed: string | number;
  layer?: number;
  steps?: number;
  batch?: number;
  /** records of a batch whose gradients are computed at once: the same gradients in less memory */
  microBatch?: number;
  rate?: number;
  /** weights file of an earlier training, on whatever records, that this one goes on from */
  startWeights?: string;
  resume?: boolean;
  threads?: number;
  signal?: AbortSignal;
  onStep?: (progress: TrainProgress) => void;
  /** the editor's own options, by name */
  settings?: Settings;
}

/** What holds for every edit of an editor beyond the contract; one suite tests each editor on what it promises. */
export interface Promises {
  /** inputs without a picture get the unedited model's bits */
  readonly textUntouched: boolean;
  /** edits made in one call equal the same edits made one by one */
  readonly batchEqualsSingles: boolean;
  /** false where the backbone decides whether the target becomes the answer, by what it makes of words in its context */
  readonly answersTarget?: false;
  /** false where edits act through another model, or through pictures at other places: attribution cannot look at a question under them */
  readonly explains?: false;
}

/** Makes the next edit of a sequence. */
export type EditSequence = (request: EditRequest) => Promise<Edit>;

/** An editor: turns requests into edits, and a model and edits into another model. See docs/extending/editor.md. */
export interface Editor {
  readonly id: string;
  readonly summary: string;
  /** whether `edit` needs weights from `train` */
  readonly trained: boolean;
  readonly promises: Promises;
  /** what it may be told, by name, with what fits a model and the published defaults; absent: nothing */
  readonly settings?: {
    readonly train?: (vlm: Vlm) => SettingsSchema;
    readonly edit?: (vlm: Vlm) => SettingsSchema;
  };
  /** what its edits and weights hold; absent: files of this editor are not checked */
  readonly forms?: Forms;
  /** decoder layers that the gradients of a training step go through, by default settings; 0 when left out */
  layersTrained?(vlm: Vlm): number;
  train?(vlm: Vlm, records: readonly EditRecord[], options: TrainOptions): Promise<EditorWeights>;
  /**
   * What `train` would be set to, by the names in its weights' settings: weights made otherwise are of another training. Absent: every choice is
   * among its options.
   */
  trainingSettings?(vlm: Vlm, options: Partial<TrainOptions>): Settings;
  /**
   * One edit per request.
   * @param settings the editor's own options for these edits, by name (steps, rate, ...); what is left out has the editor's default
   */
  edit(vlm: Vlm, requests: readonly EditRequest[], weights?: EditorWeights, settings?: Settings): Promise<Edit[]>;
  /** The decoder layer up to whose output its edits change nothing, so that states there may be shared; absent: none. */
  unchangedUpTo?(weights?: EditorWeights): number | undefined;
  /**
   * The edited model. With one edit every query is answered under it; with several, query i is answered under edit i.
   * @throws Error when an edit belongs to another model
   */
  with(vlm: Vlm, edits: readonly Edit[]): AnsweringModel;
  /** The model under all edits at once, one after the other in their order; absent: edits of this editor do not combine. */
  chain?(vlm: Vlm, edits: readonly Edit[]): AnsweringModel;
  /** What edits change of the model's stored weights, all of them together; absent: they act beside the weights, and cannot be written into them. */
  changes?(vlm: Vlm, edits: readonly Edit[]): Promise<WeightChanges>;
  /**
   * Edits that stay, each made on the model under all those that the sequence made before. `chain` of them is the model they leave. Absent: an edit
   * is made on the unedited model, whatever others there are.
   * @param earlier edits that the model has when the sequence begins
   */
  sequence?(vlm: Vlm, weights?: EditorWeights, settings?: Settings, earlier?: readonly Edit[]): EditSequence;
}

/**
 * Refuses edits of another editor, edits of another model, edits made with different weights, and edits whose settings or tensors do not fit.
 * @param forms what the editor's edits and weights hold
 * @throws Error that names the edit, and what fits
 */
export function checkEdits(editor: string, vlm: Vlm, edits: readonly Edit[], forms?: Forms): void {
  if (edits.length === 0) throw new Error('give at least one edit');
  const first = edits[0]!;
  for (const edit of new Set(edits)) {
    if (edit.editor !== editor) throw new Error(`${nameOf(edit)} belongs to the editor ${edit.editor}, not to ${editor}`);
    checkModel(nameOf(edit), edit.model, vlm);
    if (forms !== undefined) checkEdit(editor, vlm, edit, forms);
    if (edit.weights === first.weights) continue;
    const [one, other] = [first, edit].map(({ weights }) => (weights === undefined ? 'none' : fingerprintOf(weights)));
    if (one !== other)
      throw new Error(
        `edits that were made with different weights of ${editor} do not combine: ${nameOf(first)} was made with ${one!.slice(0, 12)}, ${nameOf(edit)} with ${other!.slice(0, 12)}; make them again with the same weights`,
      );
  }
}

const nameOf = (edit: Edit): string =>
  origins.get(edit) ?? `the edit ${JSON.stringify(edit.request.prompt)} to ${JSON.stringify(edit.request.target)}`;

function checkEdit(editor: string, vlm: Vlm, edit: Edit, { edit: form, weights, throughWeights }: Forms): void {
  if (throughWeights) needWeights(editor, vlm, edit.weights, weights);
  checkForm(nameOf(edit), form, vlm, edit);
}

/**
 * The weights that an editor was trained to.
 * @param form what they hold
 * @throws Error when there are none, when they are another editor's or for another model, or when they are not as they must be
 */
export function needWeights(editor: string, vlm: Vlm, weights: EditorWeights | undefined, form?: Form): EditorWeights {
  if (weights === undefined) throw new Error(`${editor} needs trained weights: \`visedit train ${editor}\` makes them`);
  if (weights.editor !== editor) throw new Error(`these weights belong to the editor ${weights.editor}, not to ${editor}`);
  checkModel(`these weights of ${editor}`, weights.model, vlm);
  if (form !== undefined) checkForm(`these weights of ${editor}`, form, vlm, weights);
  return weights;
}

const fingerprints = new WeakMap<EditorWeights, string>();

/** Hash of all that weights hold: editor, model, settings and tensors. */
export function fingerprintOf(weights: EditorWeights): string {
  const known = fingerprints.get(weights);
  if (known !== undefined) return known;
  const { editor, model, settings, tensors } = weights;
  const sorted = <T>(entries: Iterable<[string, T]>): [string, T][] => [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
  const hash = createHash('sha256').update(JSON.stringify([editor, model.fingerprint, sorted(Object.entries(settings))]));
  for (const [name, { shape, data }] of sorted(tensors))
    hash.update(JSON.stringify([name, shape])).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  const fingerprint = hash.digest('hex');
  fingerprints.set(weights, fingerprint);
  return fingerprint;
}

/** What edits and weights write down of their model. */
export function modelId(vlm: Vlm): ModelId {
  return { name: vlm.name, fingerprint: vlm.fingerprint };
}

/** Refuses data that was made for another model. @throws Error that names both models */
export function checkModel(what: string, made: ModelId, vlm: Vlm): void {
  if (made.fingerprint !== vlm.fingerprint) {
    throw new Error(
      `${what} was made for ${made.name} (${made.fingerprint.slice(0, 12)}), not for ${vlm.name} (${vlm.fingerprint.slice(0, 12)}); use the model it was made for, or make it again`,
    );
  }
}
