/**
 * Training of a hyper-network editor on the losses of edited models: of each record the frozen states before the first changed layer and the
 * gradient factors of its edit.
 */

import type { EditRecord } from '../../data/records.ts';
import { checkTraining } from '../../models/memory.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { Feeds } from '../../runtime/program.ts';
import { Kept, type RecordTraining, type RecordTrainingConfig, trainOnRecords } from '../context/training.ts';
import type { EditorWeights, TrainOptions } from '../editor.ts';
import { factorFeeds, gradientFactors } from './factors.ts';
import { bytesOf, metaFeeds, type Prepared, prepare } from './meta-samples.ts';

export interface MetaConfig extends RecordTrainingConfig {
  /** first layer whose weights change */
  from: number;
  /** bytes of frozen states kept in memory */
  budget: number;
}

export interface MetaSample extends Prepared {
  record: EditRecord;
}

export interface MetaTraining extends Omit<RecordTraining<MetaSample>, 'sample' | 'feeds' | 'settings'> {
  config: MetaConfig;
  /** the editor's own feeds of a part of a batch */
  feeds?: (part: readonly MetaSample[], whole: readonly MetaSample[]) => Promise<Feeds>;
}

export function trainHyperNetwork(
  vlm: Vlm,
  records: readonly EditRecord[],
  training: MetaTraining,
  options: TrainOptions,
): Promise<EditorWeights> {
  const { from, budget, microBatch, ...settings } = training.config;
  if (vlm.memory !== undefined) {
    const layersAbove = vlm.decoder.layers - from;
    checkTraining(vlm.name, vlm.memory, { layersAbove, records: microBatch, budget: vlm.memoryBudget });
  }
  const states = new Kept((place) => prepare(vlm, records[place]!, from), bytesOf, budget);
  const feeds = async (part: readonly MetaSample[], whole: readonly MetaSample[]): Promise<Feeds> => {
    const requests = part.map((p) => p.pictures[0]!);
    return {
      ...metaFeeds(vlm, part, whole),
      ...factorFeeds(await gradientFactors(vlm, from, requests)),
      ...(await training.feeds?.(part, whole)),
    };
  };
  const sample = async (place: number): Promise<MetaSample> => ({ record: records[place]!, ...(await states.get(place)) });
  return trainOnRecords(vlm, records, { ...training, settings: { from, ...settings }, sample, feeds }, options);
}
