/** Resolves `NAME`, `NAME@SET` and `NAME@edit_ID` to a model and the edits that it is asked under. */

import type { Ledger } from '../../src/ledger/ledger.ts';
import { setId } from '../../src/ledger/ledger.ts';
import type { ModelUnder } from './engine/tasks.ts';
import { ApiError } from './errors.ts';

export function modelUnder(ref: string, models: readonly string[], store: Ledger, param: string): ModelUnder {
  const at = ref.lastIndexOf('@');
  const [model, under] = models.includes(ref) || at < 0 ? [ref, undefined] : [ref.slice(0, at), ref.slice(at + 1)];
  const missing = (): ApiError =>
    new ApiError(404, 'model_not_found', `there is no model ${JSON.stringify(ref)}; GET /v1/models lists those that there are`, {
      param,
    });
  if (!models.includes(model)) throw missing();
  if (under === undefined) return { model, edits: [] };
  if (under.startsWith('edit_')) {
    if (!store.has(under) || store.edit(under).model !== model) throw missing();
    return { model, edits: [{ id: under, path: store.path(under) }] };
  }
  const set = store.findSet(model, under);
  if (set === undefined) throw missing();
  return { model, edits: store.active(set).map(({ id }) => ({ id, path: store.path(id) })) };
}

/** All names of models that can be asked: unedited ones first, then those under sets. */
export function modelNames(models: readonly string[], store: Ledger): string[] {
  return [...models, ...store.sets.filter(({ model }) => models.includes(model)).map(setId)];
}
