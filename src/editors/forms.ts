/**
 * What the edits and the weights of an editor hold: settings with what fits the model, tensors with their shapes. Files may come from anyone, so both
 * are checked against this before they are used.
 */

import type { Tensor } from '../graph/dtype.ts';
import type { Vlm } from '../models/vlm.ts';
import type { EditorWeights, Settings } from './editor.ts';
import { fitted, type SettingsSchema } from './settings.ts';

/** What an edit, or what an editor learned, holds. */
export interface Made {
  readonly settings: Settings;
  readonly tensors: ReadonlyMap<string, Tensor<'float32'>>;
  /** of an edit that acts through some */
  readonly weights?: EditorWeights;
}

/** Sizes; a word stands for any size from 1, the same wherever it stands. */
export type Shape = readonly (number | string)[];

/** What every edit, or all weights, of an editor must hold. */
export interface Form {
  /** settings, those that are read and those that say how it was made */
  readonly settings: (vlm: Vlm) => SettingsSchema;
  /** shapes of its tensors by name; there are no others */
  readonly tensors: (vlm: Vlm, made: Made) => Iterable<readonly [name: string, shape: Shape]>;
  /** what is wrong beyond single settings and shapes, in words; nothing when all fits */
  readonly problem?: (vlm: Vlm, made: Made) => string | undefined;
}

/** What the files of an editor must hold. */
export interface Forms {
  readonly edit: Form;
  readonly weights?: Form;
  /** whether an edit acts through the editor's weights, which it then names */
  readonly throughWeights?: boolean;
}

/** Files that edits and weights were read from, for messages. */
export const origins = new WeakMap<object, string>();

/** Models that an edit or weights fit. */
const fits = new WeakMap<object, WeakSet<Vlm>>();

/**
 * @param what it is, where it comes from no file, such as `this edit of vead`
 * @throws Error that names the file, the setting or tensor, and what fits
 */
export function checkForm(what: string, form: Form, vlm: Vlm, made: Made): void {
  if (fits.get(made)?.has(vlm)) return;
  const where = origins.get(made) ?? what;
  fitted(where, form.settings(vlm), made.settings);
  const sizes = new Map<string, number>();
  const expected = new Map(form.tensors(vlm, made));
  for (const [name, shape] of expected) {
    const found = made.tensors.get(name);
    if (found === undefined) throw new Error(`${where}: the tensor ${name} [${shape.join(', ')}] is missing`);
    const fit = found.shape.length === shape.length && shape.every((size, i) => sizeFits(sizes, size, found.shape[i]!));
    if (!fit) {
      const known = shape.map((size) => (typeof size === 'string' ? (sizes.get(size) ?? size) : size));
      throw new Error(`${where}: the tensor ${name} must be [${known.join(', ')}], got [${found.shape.join(', ')}]`);
    }
  }
  for (const name of made.tensors.keys())
    if (!expected.has(name)) throw new Error(`${where}: there is no place for the tensor ${name} in it`);
  const problem = form.problem?.(vlm, made);
  if (problem !== undefined) throw new Error(`${where}: ${problem}`);
  const known = fits.get(made) ?? new WeakSet();
  fits.set(made, known.add(vlm));
}

function sizeFits(sizes: Map<string, number>, size: number | string, found: number): boolean {
  if (typeof size === 'number') return size === found;
  if (!sizes.has(size) && found > 0) sizes.set(size, found);
  return sizes.get(size) === found;
}

/** What is wrong with numbers that stand for tokens. @param least the smallest one: −1 a visual token, −2 padding */
export function tokensProblem(vlm: Vlm, name: string, { tensors }: Made, least: number): string | undefined {
  const { vocabulary } = vlm.decoder;
  const wrong = tensors.get(name)!.data.find((id) => !Number.isInteger(id) || id < least || id >= vocabulary);
  return wrong === undefined
    ? undefined
    : `the tensor ${name} must hold whole numbers from ${least} to ${vocabulary - 1}, got ${wrong}`;
}
