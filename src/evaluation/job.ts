/** An evaluation as plain values, so that several processes can work on one: what to load, and which records make up which batch. */

import { z } from 'zod';
import type { Settings } from '../editors/editor.ts';
import { findEditor, moduleOf } from '../editors/outside.ts';
import { parseSettings } from '../editors/settings.ts';
import { shippedWeights, weightsFor } from '../editors/shipped.ts';
import type { PixelLimits } from '../input/image/config.ts';
import { type DatasetKind, type EditRecord, openRecords } from '../input/records.ts';
import { loadModel } from '../models/load.ts';
import type { WeightType } from '../models/weight-types.ts';
import { checkRecords, type Subject } from './asking.ts';
import { earlierProtocol, type FileId, fileId, type Versions, versions } from './manifest.ts';
import { AnswerStore, Unedited } from './unedited.ts';

export interface Job {
  /** folder or built-in name */
  readonly model: string;
  /** id, or a module that exports an editor */
  readonly editor: string;
  /** file; those that come with the model when absent */
  readonly weights?: string | undefined;
  /** of each edit; the editor's defaults when absent */
  readonly settings?: Settings | undefined;
  /** the name of how editors are set, for the manifest; `tuned` when absent */
  readonly protocol?: string | undefined;
  /** records in the official JSON */
  readonly data: string;
  /** folder that their image paths start from */
  readonly images: string;
  /** at most so many records: the first, or with a seed a random choice */
  readonly limit?: number | undefined;
  readonly seed?: number | undefined;
  /** records asked together */
  readonly batch: number;
  readonly maxNewTokens: number;
  /** what the model's weights are kept as, where not as they are stored */
  readonly dtype?: WeightType | undefined;
  /** bytes of memory that the model may take in each process */
  readonly maxMemory?: number | undefined;
  /** pixels of a picture for the image encoder, where not as the model was published */
  readonly minPixels?: number | undefined;
  readonly maxPixels?: number | undefined;
  /** folder of unedited answers that several evaluations share */
  readonly unedited?: string | undefined;
}

/** What the results depend on: a resumed run must agree in all of it. */
export interface JobIdentity {
  readonly model: {
    readonly name: string;
    readonly fingerprint: string;
    readonly dtype?: WeightType;
    readonly pixels?: PixelLimits;
  };
  readonly editor: {
    readonly id: string;
    readonly weights: FileId | null;
    readonly settings?: Settings;
    /** of an editor from outside */
    readonly module?: FileId;
  };
  readonly data: FileId & { readonly kind: DatasetKind; readonly records: number; readonly evaluated: number };
  readonly seed: number | null;
  readonly protocol: {
    /** how editors are set: `tuned` for the model, or `published` */
    readonly name: string;
    readonly version: number;
    readonly batch: number;
    readonly maxNewTokens: number;
    readonly measures: string;
  };
  readonly versions: Versions;
}

/** Rises when the same job gives other figures. */
const protocolVersion = 1;
const measures =
  'teacher-forced token accuracy; localities against the unedited model; generation: greedy, exact match of the trimmed text; probability of the whole target';

/** @param batch records asked together @param maxNewTokens longest free answer @param name how editors are set */
export const protocolOf = (batch: number, maxNewTokens: number, name = earlierProtocol): JobIdentity['protocol'] => ({
  name,
  version: protocolVersion,
  batch,
  maxNewTokens,
  measures,
});

export interface OpenJob {
  readonly subject: Subject;
  readonly batches: readonly (readonly EditRecord[])[];
  readonly identity: JobIdentity;
  readonly before: Unedited;
}

/** @throws Error when anything that can be checked before the work does not fit */
export async function openJob(job: Job, options: { threads?: number | undefined; check?: boolean } = {}): Promise<OpenJob> {
  const editor = await findEditor(job.editor);
  const { kind, total, records: chosen } = openRecords(job.data, job.images, { limit: job.limit, seed: job.seed });
  const { dtype, maxMemory, minPixels, maxPixels } = job;
  const pixels: PixelLimits | undefined =
    minPixels === undefined && maxPixels === undefined ? undefined : { minPixels, maxPixels };
  const vlm = loadModel(job.model, {
    ...{ dtype, maxMemory, ...pixels },
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  });
  const path = job.weights ?? (editor.trained ? shippedWeights(job.model, editor.id, kind) : undefined);
  const weights = weightsFor(vlm, editor, path);
  const { settings = {} } = job;
  const isSet = Object.keys(settings).length > 0;
  // Says what does not fit before any work.
  if (isSet) parseSettings(editor.id, editor.settings?.edit?.(vlm) ?? z.object({}), settings);
  if (options.check !== false) checkRecords(vlm, chosen);
  const batches: EditRecord[][] = [];
  for (let at = 0; at < chosen.length; at += job.batch) batches.push(chosen.slice(at, at + job.batch));
  const module = moduleOf(editor);
  const identity: JobIdentity = {
    model: { name: vlm.name, fingerprint: vlm.fingerprint, ...(dtype && { dtype }), ...(pixels && { pixels }) },
    editor: {
      id: editor.id,
      weights: path === undefined ? null : fileId(path),
      ...(isSet ? { settings } : {}),
      ...(module === undefined ? {} : { module: fileId(module) }),
    },
    data: { ...fileId(job.data), kind, records: total, evaluated: chosen.length },
    seed: job.limit === undefined ? null : (job.seed ?? null),
    protocol: protocolOf(job.batch, job.maxNewTokens, job.protocol),
    versions: versions(),
  };
  // How editors are set does not change what the unedited model says.
  const { name: _name, ...asking } = identity.protocol;
  const { editor: _editor, ...asked } = { ...identity, protocol: asking };
  const store =
    job.unedited === undefined
      ? undefined
      : new AnswerStore(job.unedited, { ...asked, records: chosen.map(({ index }) => index) });
  return {
    subject: { vlm, editor, weights, settings },
    batches,
    identity,
    before: new Unedited(vlm, editor.unchangedUpTo?.(weights), store),
  };
}

export async function closeJob({ subject, before }: OpenJob): Promise<void> {
  before.store?.close();
  await subject.vlm.release();
}
