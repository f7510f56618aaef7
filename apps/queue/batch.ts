/** A batch as it stands in the queue, which others may write to: checked before anything is opened. */
import { resolve } from 'node:path';
import { z } from 'zod';
import { editorIds } from '../../src/editors/index.ts';
import type { HandedWork } from '../../src/evaluation/runner.ts';
import { parseConfig } from '../../src/files/schema.ts';
import { weightTypes } from '../../src/models/weight-types.ts';

/** A batch of a run. */
export interface Batch extends Pick<HandedWork, 'job' | 'identity'> {
  readonly batch: number;
}

const path = z.string().min(1, 'expected a path');
const whole = z
  .int('expected a whole number')
  .positive('expected a number above 0')
  .max(2 ** 31 - 1);
const settings = z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null(), z.array(z.number())]));
/** What is compared with the job as it opens here is compared there, field by field. */
const identity = z.looseObject({
  model: z.looseObject({ name: z.string(), fingerprint: z.string() }),
  editor: z.looseObject({ id: z.string() }),
});

export const batchSchema = z.object({
  job: z.strictObject({
    model: path,
    editor: path,
    weights: path.optional(),
    settings: settings.optional(),
    protocol: z.string().optional(),
    data: path,
    images: path,
    limit: whole.optional(),
    seed: z.int().optional(),
    batch: whole,
    maxNewTokens: whole,
    dtype: z.enum(weightTypes).optional(),
    maxMemory: z.number().positive().optional(),
    minPixels: whole.optional(),
    maxPixels: whole.optional(),
    unedited: path.optional(),
  }),
  identity,
  batch: z.int('expected a whole number').nonnegative('expected 0 or more'),
});

/**
 * What a worker may work on.
 * @param modules editors from outside that this worker's user named: a batch cannot have others loaded
 * @throws Error that says what does not fit
 */
export function checkBatch(data: unknown, modules: readonly string[]): Batch {
  const { job, identity, batch } = parseConfig('the batch in the queue', batchSchema, data);
  const { editor } = job;
  if (!(editorIds as readonly string[]).includes(editor) && ![...modules, ...modules.map((one) => resolve(one))].includes(editor))
    throw new Error(
      `the batch in the queue asks for the editor ${JSON.stringify(editor)}, which this worker was not given; start it with --editor ${JSON.stringify(editor)} if that module is yours`,
    );
  return { job, identity: identity as unknown as Batch['identity'], batch };
}
