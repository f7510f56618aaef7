/** Training SERAC: the scope classifier on keys of the frozen backbone, and the counterfactual model on the edits' texts, in one step. */

import { z } from 'zod';
import { add, crossEntropy, f32, i64, input, mul, parameter, sum, type Tensor } from '../../graph/index.ts';
import type { EditRecord, RecordQuery } from '../../input/records.ts';
import { type Asked, textOf } from '../../input/segments.ts';
import type { Vlm } from '../../models/vlm.ts';
import { zeros } from '../../nn/optimizers.ts';
import { Weights } from '../../nn/weights.ts';
import { Random } from '../../random.ts';
import { centerOf, describe, keyOf, middleLayer, openQuery } from '../context/representation.ts';
import { Kept, oneByOne, preparationGroups, trainOnRecords } from '../context/training.ts';
import type { EditorWeights, TrainOptions } from '../editor.ts';
import { clipping, flag, headsDivide, layerOf, recordTraining, size, trainingConfig } from '../settings.ts';
import {
  type CounterfactualInput,
  type CounterfactualShape,
  counterfactualFeeds,
  counterfactualLogits,
  counterfactualShapes,
  initialCounterfactual,
} from './counterfactual.ts';
import { type ScopeSample, type ScopeShape, scopeFeeds, scopeLoss, scopeShapes } from './scope.ts';

/** Fields that a SERAC cannot be used without. */
export const seracShape = (vlm: Vlm) => ({
  pictures: flag('whether the classifier reads the picture, too; the published one reads texts').default(false),
  textNegatives: flag('text-only queries are out of scope in training, and none about other pictures').default(false),
  scopeWidth: size('hidden width of the scope classifier').default(512),
  scopeOutput: size('width of its embedding').default(128),
  width: size('width of the counterfactual model').default(768),
  layers: size('layers of the counterfactual model', { max: 1024 }).default(6),
  heads: size('its attention heads').default(12),
  window: size('tokens of each text that it reads').default(128),
  layer: layerOf(vlm, 'decoder layer whose states it reads, from 0', { option: '--layer' }).default(middleLayer(vlm)),
});

export const seracSchema = (vlm: Vlm) =>
  z
    .object({
      ...seracShape(vlm),
      calibration: size('training requests that the mean key is taken from').default(256),
      ...recordTraining({ steps: 20_000, batch: 32, rate: 1e-4, hold: 0.5, lastRate: 0.05, budget: 1e9 }),
      clip: clipping(1),
    })
    .superRefine(headsDivide);

/** Classification compares all records of a batch, and a step is small: batches are never taken in parts. */
export function seracConfig(vlm: Vlm, options: Partial<TrainOptions>) {
  const config = trainingConfig('serac', seracSchema(vlm), options);
  return { ...config, microBatch: config.batch };
}
export type SeracConfig = ReturnType<typeof seracConfig>;

/** What the classifier reads of a query. */
const readBy = <Q extends { readonly prompt: string; readonly image?: unknown }>(
  { pictures }: Pick<SeracConfig, 'pictures'>,
  query: Q,
): Q => (pictures ? query : { ...query, image: null });

export const scopeShapeOf = (
  vlm: Vlm,
  { scopeWidth, scopeOutput }: Pick<SeracConfig, 'scopeWidth' | 'scopeOutput'>,
): ScopeShape => ({
  input: 3 * vlm.decoder.hidden,
  width: scopeWidth,
  output: scopeOutput,
});

export const counterfactualShapeOf = (
  vlm: Vlm,
  { width, layers, heads, window }: Pick<SeracConfig, 'width' | 'layers' | 'heads' | 'window'>,
): CounterfactualShape => ({ hidden: vlm.decoder.hidden, width, layers, heads, window });

/** Starts at α = β = 1. */
const inverseSoftplus = Math.log(Math.E - 1);

function initialSerac(scope: ScopeShape, counterfactual: CounterfactualShape, random: Random): Map<string, Tensor<'float32'>> {
  const weights = new Map<string, Tensor<'float32'>>();
  for (const [name, shape] of scopeShapes(scope)) {
    const value =
      shape.length === 1 ? zeros(shape) : f32(random.fork(name).normals(shape[0]! * shape[1]!, 1 / Math.sqrt(shape[1]!)), shape);
    weights.set(name, /alpha|beta/.test(name) ? f32([inverseSoftplus], [1, 1]) : value);
  }
  for (const [name, t] of initialCounterfactual(counterfactual, random)) weights.set(`counterfactual.${name}`, t);
  return weights;
}

/** Trained weights as nodes; `node` says what each is. */
export function boundWeights(
  shapes: ReadonlyMap<string, readonly number[]>,
  node: (name: string, shape: readonly number[]) => ReturnType<typeof input>,
): Weights {
  const w = new Weights();
  for (const [name, shape] of shapes) w.bind(name, node(name, shape));
  return w;
}

/** What the counterfactual model reads of a query under an edit; the query's own target is what it is to say. */
export function textsOf(
  vlm: Vlm,
  edit: { readonly prompt: string; readonly target: string },
  query: Asked & { readonly target?: string },
): CounterfactualInput {
  const words = (text: string): number[] => vlm.codec.encode(text, { special: false });
  return {
    prompt: words(edit.prompt),
    target: vlm.layout({ prompt: edit.prompt, image: vlm.anyPicture }, edit.target).targetIds,
    query: words(textOf(query.prompt)),
    answer: vlm.layout(query, query.target).targetIds,
  };
}

interface Sample {
  readonly scope: ScopeSample;
  readonly text: CounterfactualInput;
}

export async function trainSerac(vlm: Vlm, records: readonly EditRecord[], options: TrainOptions): Promise<EditorWeights> {
  const config = seracConfig(vlm, options);
  const random = new Random(`${options.seed}/serac`);
  const [scope, counterfactual] = [scopeShapeOf(vlm, config), counterfactualShapeOf(vlm, config)];
  const described = async (queries: readonly Pick<RecordQuery, 'prompt' | 'image'>[]): Promise<Float32Array[]> =>
    describe(vlm, await Promise.all(queries.map((query) => openQuery(readBy(config, query)))), config.layer);
  const requests: Float32Array[] = [];
  for (const { request } of records.slice(0, config.calibration)) requests.push(...(await described([request])));
  const center = centerOf(requests);
  const keys = new Kept<ScopeSample>(
    async (places) => {
      const of = places.map((place) => {
        const { queries, hard } = records[place]!;
        // The same question about another picture says the same words.
        const sameQuestion = config.pictures ? hard?.sameQuestion : undefined;
        const pictured = [queries.modalLocality, hard?.sameImage, sameQuestion].filter((query) => query !== undefined);
        const outside = config.textNegatives ? [queries.textLocality] : pictured;
        return [queries.reliability, queries.textGenerality, queries.modalGenerality, ...outside];
      });
      const found = (await described(of.flat())).map((description) => keyOf(description, center));
      return of.map(({ length }) => {
        const [request, ...others] = found.splice(0, length);
        return { request: request!, inScope: others.slice(0, 2), outOfScope: others.slice(2) };
      });
    },
    ({ request, inScope, outOfScope }) => request.byteLength * (1 + inScope.length + outOfScope.length),
    config.budget,
    preparationGroups('serac', options, {
      count: records.length,
      batch: config.batch,
      fits: 4 * 6 * records.length * scope.input <= config.budget,
    }),
  );
  const trained = (prefix: string, shapes: ReadonlyMap<string, readonly number[]>): Weights =>
    boundWeights(shapes, (name, shape) => parameter(prefix + name, shape));
  const decisions = scopeLoss(trained('', scopeShapes(scope)), scope);
  const logits = counterfactualLogits(vlm, trained('counterfactual.', counterfactualShapes(counterfactual)), counterfactual);
  const said = sum(mul(crossEntropy(logits, input('cf.labels', ['r'], 'int64')), input('cf.weights', ['r'])));
  return trainOnRecords<Sample>(
    vlm,
    records,
    {
      editor: 'serac',
      config,
      settings: { ...config },
      loss: add(decisions.scope, said),
      metrics: { ...decisions, counterfactual: said },
      initial: initialSerac(scope, counterfactual, random.fork('initial')),
      fixed: new Map([['center', center]]),
      samples: oneByOne(async (place, drawn) => {
        const { request, queries } = records[place]!;
        const query = drawn.pick([queries.reliability, queries.textGenerality]);
        return {
          scope: await keys.get(place),
          text: textsOf(vlm, request, { ...query, image: query.image === null ? undefined : vlm.anyPicture }),
        };
      }),
      feeds: async (part) => {
        const texts = part.map(({ text }) => text);
        // The end of the answer belongs to it.
        const labels = texts.flatMap(({ answer }) => [...answer.slice(0, config.window), vlm.eosIds[0] ?? -1]);
        const known = labels.filter((label) => label >= 0).length;
        return {
          // Other records ask the same words about other pictures.
          ...scopeFeeds(
            part.map((sample) => sample.scope),
            config.pictures,
          ),
          ...counterfactualFeeds(texts, config.window),
          'cf.labels': i64(
            labels.map((label) => Math.max(label, 0)),
            [labels.length],
          ),
          'cf.weights': f32(
            labels.map((label) => (label < 0 ? 0 : 1 / known)),
            [labels.length],
          ),
        };
      },
    },
    options,
  );
}
