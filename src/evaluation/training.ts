/** Training an editor on a file of records into a folder, with a manifest of how it was made. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { Editor, Settings, TrainOptions, TrainProgress } from '../editors/editor.ts';
import { readEditorWeights, trainedWeights } from '../editors/files.ts';
import { namedSettings, parseSettings } from '../editors/settings.ts';
import { openSafetensors } from '../files/safetensors.ts';
import { type DatasetKind, openRecords } from '../input/records.ts';
import { type LoadOptions, loadModel } from '../models/load.ts';
import type { Vlm } from '../models/vlm.ts';
import { checkpointFile } from '../nn/loop.ts';
import { defaultThreads } from '../runtime/node.ts';
import { checkRecords } from './asking.ts';
import { earlierProtocol, type FileId, fileId, ManifestKeeper, type Versions, versions } from './manifest.ts';

export interface TrainingJob {
  readonly model: string;
  readonly editor: Editor;
  readonly data: string;
  readonly images: string;
  /** only the first so many records */
  readonly limit?: number | undefined;
  /** how the model's weights are kept, and what memory it may take */
  readonly opening?: Pick<LoadOptions, 'dtype' | 'maxMemory' | 'maxPixels' | 'minPixels'>;
  /** told what opening the model takes, before the work */
  readonly onOpen?: (vlm: Vlm) => void;
}

type Maybe<T> = { [K in keyof T]: T[K] | undefined };

export interface Trained {
  readonly out: string;
  readonly editor: string;
  /** file */
  readonly weights: string;
  readonly settings: Settings;
  readonly steps: number;
  readonly records: number;
  /** of the last step; null when a resumed run was finished already */
  readonly loss: number | null;
  readonly metrics: Readonly<Record<string, number>>;
  readonly seconds: number;
}

interface TrainingIdentity {
  readonly model: { readonly name: string; readonly fingerprint: string };
  readonly editor: string;
  readonly data: FileId & { readonly kind: DatasetKind; readonly records: number };
  readonly seed: string;
  /** how the editor is set */
  readonly protocol: { readonly name: string };
  readonly options: Record<string, unknown>;
  readonly versions: Versions;
}

/**
 * Trains an editor on a file of records: checkpoints, log.jsonl, manifest.json and weights.safetensors in a folder.
 * @throws Stopped after saving, when the signal asks; an error that says which checkpoint is left, when the loss is not finite
 */
export async function trainEditor(
  job: TrainingJob,
  options: {
    out: string;
    seed: string | number;
    command?: string;
    /** the name of how the editor is set, for the manifest; `tuned` when absent */
    protocol?: string;
    /** told what a resume on other threads means */
    onWarn?: (text: string) => void;
  } & Partial<Maybe<TrainOptions>>,
): Promise<Trained> {
  const { editor, data, images, limit } = job;
  const { out, seed, command = `train ${editor.id}`, protocol = earlierProtocol, ...running } = options;
  const { resume = false, threads, signal, onStep, onWarn, ...own } = running;
  if (editor.train === undefined)
    throw new Error(`the editor ${editor.id} learns nothing; use it as it is: visedit edit --editor ${editor.id}`);
  const checkpoint = join(out, checkpointFile);
  const check = (): void => {
    if (!resume && existsSync(checkpoint))
      throw new Error(`${out} holds a training already; go on with --resume, or name another folder with --out`);
  };
  check();
  const { kind, records } = openRecords(data, images, { limit });
  const vlm = loadModel(job.model, { ...job.opening, training: true, ...(threads === undefined ? {} : { threads }) });
  job.onOpen?.(vlm);
  checkOptions(vlm, editor, own as Partial<TrainOptions>);
  checkRecords(vlm, records);
  const given = Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined)) as Partial<TrainOptions>;
  const identity: TrainingIdentity = {
    model: { name: vlm.name, fingerprint: vlm.fingerprint },
    editor: editor.id,
    data: { ...fileId(data), kind, records: records.length },
    seed: String(seed),
    protocol: { name: protocol },
    options: { ...given, ...(given.startWeights === undefined ? {} : { startWeights: fileId(given.startWeights) }) },
    versions: versions(),
  };
  const machine = { threads: threads ?? defaultThreads(), device: vlm.engine.device.name };
  const keeper = new ManifestKeeper(out, command, identity, resume && existsSync(checkpoint), undefined, machine, check);
  if (keeper.mixed !== undefined) onWarn?.(keeper.mixed);
  let first: number | undefined;
  let last: TrainProgress | undefined;
  const done = (): number => (last === undefined ? 0 : last.step - first! + 1);
  const weights = trainedWeights(out);
  try {
    await editor.train(vlm, records, {
      ...given,
      out,
      seed,
      resume,
      ...(threads === undefined ? {} : { threads }),
      ...(signal === undefined ? {} : { signal }),
      onStep: (progress) => {
        first ??= progress.step;
        last = progress;
        onStep?.(progress);
      },
    });
  } catch (error) {
    if (existsSync(checkpoint)) keeper.write(done(), false);
    if (error instanceof Error && error.name === 'LossError') {
      const kept = existsSync(checkpoint)
        ? `${checkpoint}${existsSync(weights) ? ` and ${weights}` : ''} hold the last good state`
        : 'no checkpoint had been written yet';
      throw new Error(`${error.message}; ${kept}`, { cause: error });
    }
    throw error;
  } finally {
    await vlm.release();
  }
  if (!existsSync(weights)) throw new Error(`the editor ${editor.id} left no ${weights}`);
  const { timings } = keeper.write(done(), true);
  return {
    out,
    editor: editor.id,
    weights,
    settings: readEditorWeights(weights).settings,
    steps: last?.steps ?? Number(openSafetensors(checkpoint).metadata.step),
    records: records.length,
    loss: last?.loss ?? null,
    metrics: last?.metrics ?? {},
    seconds: timings.seconds,
  };
}

/** @throws Error that names the option or setting that the editor does not have, or the value that does not fit */
function checkOptions(vlm: Vlm, { id, settings }: Editor, options: Partial<TrainOptions>): void {
  const schema = settings?.train?.(vlm) ?? z.object({});
  const named = namedSettings(schema, options);
  if (named.missing.length > 0)
    throw new Error(`${named.missing.join(', ')}: the training of ${id} has no such option; leave it out`);
  parseSettings(id, schema, named.settings);
}
