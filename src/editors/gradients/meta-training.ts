/**
 * Training of a hyper-network editor on the losses of edited models: of each record the frozen states before the first changed layer and the
 * gradient factors of its edit.
 */

import type { EditRecord } from '../../input/records.ts';
import { checkTraining } from '../../models/memory.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { Feeds } from '../../runtime/program.ts';
import { stateBytes } from '../context/states.ts';
import {
  Kept,
  oneByOne,
  preparationGroups,
  type RecordTraining,
  type RecordTrainingConfig,
  trainOnRecords,
} from '../context/training.ts';
import type { EditorWeights, TrainOptions } from '../editor.ts';
import { factorFeeds, gradientFactors } from './factors.ts';
import { pictureGroups } from './meta-objective.ts';
import { bytesOf, type Conditions, metaFeeds, type PreparedEdit, prepare } from './meta-samples.ts';

export interface MetaConfig extends RecordTrainingConfig {
  /** first layer whose weights change */
  from: number;
  /** bytes of frozen states kept in memory */
  budget: number;
}

export interface MetaTraining extends Omit<RecordTraining<PreparedEdit>, 'samples' | 'feeds' | 'settings'> {
  config: MetaConfig;
  conditions?: Conditions;
  /** the editor's own feeds of a part of a batch */
  feeds?: (part: readonly PreparedEdit[], whole: readonly PreparedEdit[]) => Feeds;
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
  const groups = preparationGroups(training.editor, options, {
    count: records.length,
    batch: training.config.batch,
    fits: stateBytes(vlm, records.length * pictureGroups.length) <= budget,
  });
  const kept = new Kept(
    (places) =>
      prepare(
        vlm,
        places.map((place) => records[place]!),
        from,
        training.conditions,
      ),
    bytesOf,
    budget,
    groups,
  );
  const feeds = async (part: readonly PreparedEdit[], whole: readonly PreparedEdit[]): Promise<Feeds> => {
    const requests = part.map((p) => p.pictures[0]!);
    return {
      ...metaFeeds(vlm, part, whole),
      ...factorFeeds(await gradientFactors(vlm, from, requests)),
      ...training.feeds?.(part, whole),
    };
  };
  const samples = oneByOne((place) => kept.get(place));
  return trainOnRecords(vlm, records, { ...training, settings: { from, ...settings }, samples, feeds }, options);
}
