/** Training LTE: which inputs a step takes of a record, the objective over the whole decoder, and the threshold of retrieval. */

import { z } from 'zod';
import {
  add,
  crossEntropy,
  f32,
  gather,
  i64,
  input,
  klDivergence,
  matmul,
  mul,
  mulDim,
  type Node,
  parameter,
  reshape,
  sum,
  type Tensor,
} from '../../graph/index.ts';
import type { EditRecord, RecordQuery } from '../../input/records.ts';
import { usualTokens } from '../../models/architecture.ts';
import { rowOf } from '../../models/batch.ts';
import { deepInputs } from '../../models/deep.ts';
import { mergeVisual, placeInputs, walk } from '../../models/forward.ts';
import { checkTraining } from '../../models/memory.ts';
import type { Sequence } from '../../models/sequence.ts';
import { Sites } from '../../models/sites.ts';
import { spanInputs } from '../../models/spans.ts';
import type { Vlm } from '../../models/vlm.ts';
import { zeros } from '../../nn/optimizers.ts';
import { Weights } from '../../nn/weights.ts';
import { Random } from '../../random.ts';
import type { Feeds } from '../../runtime/program.ts';
import { type Pictures, picturesOf } from '../context/pictures.ts';
import { centerOf, describe, fitThreshold, keyOf, middleLayer, openQuery, similarity } from '../context/representation.ts';
import { Kept, oneByOne, preparationGroups, trainOnRecords } from '../context/training.ts';
import { wordingFor } from '../context/wording.ts';
import type { Edit, EditorWeights, TrainOptions } from '../editor.ts';
import { layerMatrices, type NamedWeight } from '../gradients/chosen-weights.ts';
import { clipping, layerOf, microBatch, real, recordTraining, size, trainingConfig, whole, withMicroBatch } from '../settings.ts';

export const lteSchema = (vlm: Vlm) =>
  z.object({
    rank: whole('rank of what is trained; 0: whole matrices', { max: 2 ** 20 }).default(16),
    locality: real('weight of the locality losses').default(1),
    retrievalLayer: layerOf(vlm, 'decoder layer whose states say what is similar').default(middleLayer(vlm)),
    calibration: size('training records that keys and threshold are taken from').default(256),
    ...recordTraining({ steps: 5000, batch: 8, rate: 1e-4, hold: 0.5, lastRate: 0.05, budget: 1e9 }),
    clip: clipping(1),
    from: layerOf(vlm, 'the first decoder layer that it acts on, from 0', { option: '--layer' }).default(0),
    microBatch: microBatch(),
  });

export const lteConfig = (vlm: Vlm, options: Partial<TrainOptions>) =>
  withMicroBatch(trainingConfig('lte', lteSchema(vlm), options));

interface Wording {
  readonly words: string;
  behind(edit: Edit['request'], query: string): string;
}

/** The published words, and none. */
const wordings: readonly [Wording, ...Wording[]] = [
  {
    words: '[Updated Information] [Query]',
    behind: ({ prompt, target }, query) => `[Updated Information] ${prompt} ${target}\n[Query] ${query}`,
  },
  { words: '', behind: ({ prompt, target }, query) => `${prompt} ${target}\n${query}` },
];

/** The prompt with an edit before it. */
export const promptBehind = (vlm: Vlm, edit: Edit['request'], query: string): string =>
  wordingFor(vlm.codec, wordings).behind(edit, query);

/** One input of a training step. */
interface Input {
  readonly sequence: Sequence;
  /** the query without an edit, whose answer by the unedited model is to stay; undefined: the target is to be learned */
  readonly plain: Sequence | undefined;
  readonly group: 'inScope' | 'outOfScope' | 'noEdit';
}

/** Positions of a sequence at which the answer's tokens and its end are predicted. */
const answerRows = ({ promptEnd, targetIds }: Sequence): number[] =>
  Array.from({ length: targetIds.length + 1 }, (_, i) => promptEnd + i);

/** Queries of a record that the edit must leave as they are; the same question about another picture says the same words, and is left to retrieval. */
function localities({ queries, hard }: EditRecord): RecordQuery[] {
  return [queries.modalLocality, queries.textLocality, ...(hard?.sameImage === undefined ? [] : [hard.sameImage])];
}

const changes = ({ queries }: EditRecord): RecordQuery[] => [
  queries.reliability,
  queries.textGenerality,
  queries.modalGenerality,
];

/** Unedited logits [targets + 1, n] where the answers and their ends are predicted, of each input that has a plain query. */
async function uneditedLogits(vlm: Vlm, inputs: readonly Input[]): Promise<Map<Input, Float32Array>> {
  const out = new Map<Input, Float32Array>();
  const n = vlm.decoder.vocabulary;
  for (const image of [true, false]) {
    const some = inputs.filter(({ plain }) => plain !== undefined && plain.pictures.length > 0 === image);
    if (some.length === 0) continue;
    const batch = await vlm.batch(some.map(({ plain }) => plain!));
    const rows = batch.sequences.flatMap((plain, i) => answerRows(plain).map((place) => rowOf(batch, i, place)));
    const segment = { from: 0, to: vlm.decoder.layers, read: ['logits'], rows: true };
    const { logits } = await vlm.run(segment, batch, { rows: i64(rows, [rows.length]) });
    let at = 0;
    for (const one of some) {
      const size = (one.plain!.targetIds.length + 1) * n;
      out.set(one, (logits!.data as Float32Array).subarray(at, at + size));
      at += size;
    }
  }
  return out;
}

/** Inputs: ids, positions [b, l], bias, visual [b, v, d] with `spanFeeds`, rows [r], labels [r], targets [r], before [k, n], kept [k], kl [2, k]. */
function objective(
  vlm: Vlm,
  changed: ReadonlyMap<string, Node>,
  locality: number,
): { loss: Node; metrics: Record<string, Node> } {
  const { decoder } = vlm;
  const d = decoder.hidden;
  const weights = new Weights(new Map([...changed].map(([name, change]) => [name, (w: Node) => add(w, change)])));
  const { length: l, positions, bias } = placeInputs(decoder, undefined);
  const words = decoder.embed(input('ids', ['b', l], 'int64'), weights);
  const start = decoder.enter(mergeVisual(words, spanInputs('b', l), d), positions, weights);
  const x = walk(decoder, 0, decoder.layers, start, {
    ...{ weights, sites: new Sites(), positions, bias },
    deep: deepInputs(decoder, 'b', l),
  });
  const flat = reshape(x, [mulDim('b', l), d]);
  const at = (rows: string, size: string): Node => decoder.head(gather(flat, input(rows, [size], 'int64')), weights);
  const inScope = sum(mul(crossEntropy(at('rows', 'r'), input('labels', ['r'], 'int64')), input('targets', ['r'])));
  const kl = klDivergence(input('before', ['k', decoder.vocabulary]), at('kept', 'k'));
  const part = (name: string): Node => sum(mul(kl, input(name, ['k'])));
  const [outOfScope, noEdit] = [part('kl.outOfScope'), part('kl.noEdit')];
  return { loss: add(inScope, mul(add(outOfScope, noEdit), locality)), metrics: { inScope, outOfScope, noEdit } };
}

/** Feeds of the objective; every row weighs as it does in the whole batch. */
async function stepFeeds(vlm: Vlm, part: readonly Input[], whole: readonly Input[]): Promise<Feeds> {
  const answers = await uneditedLogits(vlm, part);
  const batch = await vlm.batch(
    part.map(({ sequence }) => sequence),
    true,
  );
  const share = (group: Input['group']): number =>
    1 / whole.filter((x) => x.group === group).reduce((total, { sequence }) => total + sequence.targetIds.length + 1, 0);
  const rowsOf = (chosen: (x: Input) => boolean) =>
    part.flatMap((x, n) =>
      chosen(x) ? answerRows(x.sequence).map((row, i) => ({ x, at: rowOf(batch, n, row), label: x.sequence.targetIds[i] })) : [],
    );
  const ints = (values: readonly number[]): Tensor => i64(values, [values.length]);
  const floats = (values: readonly number[]): Tensor => f32(values, [values.length]);
  const learned = rowsOf((x) => x.plain === undefined);
  const kept = rowsOf((x) => x.plain !== undefined);
  const n = vlm.decoder.vocabulary;
  const before = new Float32Array(kept.length * n);
  let cursor = 0;
  for (const x of part) {
    const logits = answers.get(x);
    if (logits === undefined) continue;
    before.set(logits, cursor);
    cursor += logits.length;
  }
  const weigh = (group: Input['group']): Tensor => floats(kept.map(({ x }) => (x.group === group ? share(group) : 0)));
  return {
    ...batch.feeds,
    rows: ints(learned.map(({ at }) => at)),
    // The end of the answer belongs to it.
    labels: ints(learned.map(({ label }) => label ?? vlm.eosIds[0] ?? 0)),
    targets: floats(learned.map(({ label }) => (label === undefined && vlm.eosIds.length === 0 ? 0 : share('inScope')))),
    kept: ints(kept.map(({ at }) => at)),
    before: f32(before, [kept.length, n]),
    'kl.outOfScope': weigh('outOfScope'),
    'kl.noEdit': weigh('noEdit'),
  };
}

/** Trained changes of matrices by parameter name, and their values at the start: none. */
function trainedChanges(
  matrices: readonly NamedWeight[],
  rank: number,
  random: Random,
): { changed: Map<string, Node>; initial: Map<string, Tensor<'float32'>> } {
  const changed = new Map<string, Node>();
  const initial = new Map<string, Tensor<'float32'>>();
  for (const { name, shape } of matrices) {
    const [out, inWidth] = shape as [number, number];
    if (rank === 0) {
      initial.set(`delta.${name}`, zeros(shape));
      changed.set(name, parameter(`delta.${name}`, shape));
      continue;
    }
    initial.set(`left.${name}`, zeros([out, rank]));
    initial.set(`right.${name}`, f32(random.fork(name).normals(rank * inWidth, 1 / Math.sqrt(inWidth)), [rank, inWidth]));
    changed.set(name, matmul(parameter(`left.${name}`, [out, rank]), parameter(`right.${name}`, [rank, inWidth])));
  }
  return { changed, initial };
}

/** What keys are taken from, and the similarity that tells rephrasings of training requests from their locality queries. */
async function fitRetrieval(
  vlm: Vlm,
  records: readonly EditRecord[],
  layer: number,
): Promise<{ center: Tensor<'float32'>; threshold: number }> {
  const described: { request: Float32Array; inScope: Float32Array[]; outOfScope: Float32Array[] }[] = [];
  for (const record of records) {
    const of = async (queries: readonly RecordQuery[]): Promise<Float32Array[]> =>
      describe(vlm, await Promise.all(queries.map(openQuery)), layer);
    const [request, ...inScope] = await of(changes(record));
    const hard = record.hard?.sameQuestion === undefined ? [] : [record.hard.sameQuestion];
    described.push({ request: request!, inScope, outOfScope: await of([...localities(record), ...hard]) });
  }
  const center = centerOf(described.map(({ request }) => request));
  const scores = (which: 'inScope' | 'outOfScope'): number[] =>
    described.flatMap(({ request, ...others }) => {
      const key = keyOf(request, center);
      return others[which].map((other) => similarity(key, keyOf(other, center)));
    });
  return { center, threshold: fitThreshold(scores('inScope'), scores('outOfScope')) };
}

export async function trainLte(vlm: Vlm, records: readonly EditRecord[], options: TrainOptions): Promise<EditorWeights> {
  const config = lteConfig(vlm, options);
  const random = new Random(`${options.seed}/lte`);
  if (vlm.memory !== undefined) {
    const layersAbove = vlm.decoder.layers - config.from;
    checkTraining(vlm.name, vlm.memory, { layersAbove, records: config.microBatch, budget: vlm.memoryBudget });
  }
  const { center, threshold } = await fitRetrieval(vlm, records.slice(0, config.calibration), config.retrievalLayer);
  const { changed, initial } = trainedChanges(layerMatrices(vlm, config.from), config.rank, random.fork('initial'));
  const asked = (record: EditRecord): RecordQuery[] => [...changes(record), ...localities(record)];
  const groups = preparationGroups('lte', options, {
    count: records.length,
    batch: config.batch,
    fits: 4 * 3 * records.length * usualTokens(vlm.architecture) * vlm.decoder.hidden <= config.budget,
  });
  const kept = new Kept<Pictures>(
    async (places) => {
      const paths = places.map((place) => asked(records[place]!).map(({ image }) => image));
      const pictures = await picturesOf(vlm, paths.flat());
      return paths.map((own) => new Map([...pictures].filter(([path]) => own.includes(path))));
    },
    (pictures) => [...pictures.values()].reduce((bytes, { count }) => bytes + 4 * count * vlm.decoder.hidden, 0),
    config.budget,
    groups,
  );
  return trainOnRecords<readonly Input[]>(
    vlm,
    records,
    {
      editor: 'lte',
      config,
      settings: { ...config, threshold },
      ...objective(vlm, changed, config.locality),
      initial,
      fixed: new Map([['center', center]]),
      samples: oneByOne(async (place, drawn) => {
        const record = records[place]!;
        const pictures = await kept.get(place);
        const one = (group: Input['group'], { prompt, image, target }: RecordQuery): Input => {
          const picture = image === null ? undefined : pictures.get(image)!;
          const plain = vlm.layout({ prompt, image: picture }, target);
          const behind = { prompt: promptBehind(vlm, record.request, prompt), image: picture };
          return {
            group,
            sequence: group === 'noEdit' ? plain : vlm.layout(behind, target),
            plain: group === 'inScope' ? undefined : plain,
          };
        };
        return [
          one('inScope', drawn.pick(changes(record))),
          one('outOfScope', drawn.pick(localities(record))),
          one('noEdit', drawn.pick(asked(record))),
        ];
      }),
      feeds: (part, whole) => stepFeeds(vlm, part.flat(), whole.flat()),
    },
    options,
  );
}
