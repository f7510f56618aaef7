/** Where to edit a model, from records of a data set. */

import { type EditPlan, planEdit } from '../../../src/attribution/plan.ts';
import { decodeImage } from '../../../src/input/image/decode.ts';
import { clientsFault } from '../errors.ts';
import type { Models } from './models.ts';
import type { PlanOrder, Progress } from './tasks.ts';
import type { Work } from './worker.ts';

export async function plan(models: Models, { model, inputs }: PlanOrder, { signal, tell }: Work<Progress>): Promise<EditPlan> {
  const asked = inputs.map(({ prompt, path }) => ({ prompt, image: () => decodeImage(path) }));
  const onProgress = (done: number): void => tell({ done, total: inputs.length, note: 'records' });
  return clientsFault('invalid_value', 'records', () => planEdit(models.vlm(model), asked, { signal, onProgress }));
}
