/** Asks a model all queries of a batch of records, unedited and under each record's own edit. Knows editors by their contract only. */

import type { EditRecord } from '../data/records.ts';
import type { Edit, Editor, EditorWeights } from '../editors/editor.ts';
import { decodeImage } from '../image/decode.ts';
import { type AnsweringModel, type Query, unedited } from '../models/answer.ts';
import type { RgbImage, Vlm } from '../models/vlm.ts';
import { Stopped } from '../training/loop.ts';
import {
  type Answer,
  type AskedKind,
  askedOf,
  type Evaluation,
  type FiveMetrics,
  type RecordResult,
  scoreRecord,
  summarize,
} from './metrics.ts';

export interface AskOptions {
  /** longest free answer */
  maxNewTokens?: number;
  signal?: AbortSignal;
}

export const defaultMaxNewTokens = 32;

/** A record with its pictures in memory. */
interface Loaded {
  readonly record: EditRecord;
  readonly image: RgbImage;
  readonly asked: readonly { kind: AskedKind; query: Query }[];
}

type Answers = ReadonlyMap<AskedKind, Answer>;

/** Pictures of a batch, each read once. */
async function load(records: readonly EditRecord[]): Promise<Loaded[]> {
  const images = new Map<string, Promise<RgbImage>>();
  const read = (path: string): Promise<RgbImage> => {
    let image = images.get(path);
    if (image === undefined) {
      image = decodeImage(path);
      images.set(path, image);
    }
    return image;
  };
  return Promise.all(
    records.map(async (record) => {
      try {
        const asked = askedOf(record).map(async ({ kind, query: { image, prompt, target } }) => ({
          kind,
          query: { image: image === null ? undefined : await read(image), prompt, target },
        }));
        return { record, image: await read(record.request.image), asked: await Promise.all(asked) };
      } catch (error) {
        throw new Error(`record ${record.index}: ${(error as Error).message}`, { cause: error });
      }
    }),
  );
}

/** Answers of a model to flat queries, dealt out to their records again. */
async function askAll(
  model: AnsweringModel,
  batch: readonly Loaded[],
  { maxNewTokens = defaultMaxNewTokens, signal }: AskOptions,
): Promise<Answers[]> {
  const queries = batch.flatMap(({ asked }) => asked.map(({ query }) => query));
  const forced = await model.answerTargets(queries);
  stopIfAsked(signal);
  const free = await model.generate(queries, { maxNewTokens });
  stopIfAsked(signal);
  let at = 0;
  return batch.map(
    ({ asked }) =>
      new Map(
        asked.map(({ kind }): [AskedKind, Answer] => {
          const answer = { forced: forced[at]!, text: free[at]!.text };
          at++;
          return [kind, answer];
        }),
      ),
  );
}

/** @throws Stopped */
export function stopIfAsked(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new Stopped('stopped before the batch was finished');
}

/** The unedited model's answers, computed once per record: several editors may share one. */
export class Unedited {
  readonly #known = new WeakMap<EditRecord, Answers>();

  /** @param share the decoder layer whose states these questions share with those under an edit; see `answerTargets` */
  constructor(
    readonly vlm: Vlm,
    readonly share?: number,
  ) {}

  async get(batch: readonly Loaded[], options: AskOptions): Promise<Answers[]> {
    const missing = batch.filter(({ record }) => !this.#known.has(record));
    if (missing.length > 0) {
      const answers = await askAll(unedited(this.vlm, this.share), missing, options);
      missing.forEach(({ record }, i) => {
        this.#known.set(record, answers[i]!);
      });
    }
    return batch.map(({ record }) => this.#known.get(record)!);
  }
}

/** What to evaluate: an editor on a model, with its weights where it learned some. */
export interface Subject {
  readonly vlm: Vlm;
  readonly editor: Editor;
  readonly weights?: EditorWeights | undefined;
}

/** Edits and asks some records together; one result per record. */
export async function evaluateBatch(
  { vlm, editor, weights }: Subject,
  records: readonly EditRecord[],
  options: AskOptions = {},
  before = new Unedited(vlm, editor.unchangedUpTo?.(weights)),
): Promise<RecordResult[]> {
  const batch = await load(records);
  const unchanged = await before.get(batch, options);
  const edits = await editor.edit(
    vlm,
    batch.map(({ record: { request }, image }) => ({ image, prompt: request.prompt, target: request.target })),
    weights,
  );
  stopIfAsked(options.signal);
  const perQuery: Edit[] = batch.flatMap(({ asked }, i) => asked.map(() => edits[i]!));
  const changed = await askAll(editor.with(vlm, perQuery), batch, options);
  return batch.map(({ record }, i) => scoreRecord(record, unchanged[i]!, changed[i]!));
}

export interface EvaluateOptions extends AskOptions {
  /** records per batch */
  batch?: number;
  before?: Unedited;
  onProgress?: (done: number, total: number) => void;
}

export const defaultBatch = 16;

export interface RecordsEvaluation {
  /** in the order of the records */
  readonly results: readonly RecordResult[];
  readonly metrics: FiveMetrics & { readonly count: number };
  /** the metrics and all that stands beside them */
  readonly evaluation: Evaluation;
}

/** Evaluates in memory; runner.ts keeps results on disk and goes on after a stop. */
export async function evaluateRecords(
  vlm: Vlm,
  editor: Editor,
  weights: EditorWeights | undefined,
  records: readonly EditRecord[],
  options: EvaluateOptions = {},
): Promise<RecordsEvaluation> {
  const { batch = defaultBatch, before = new Unedited(vlm, editor.unchangedUpTo?.(weights)), onProgress } = options;
  const results: RecordResult[] = [];
  for (let at = 0; at < records.length; at += batch) {
    results.push(...(await evaluateBatch({ vlm, editor, weights }, records.slice(at, at + batch), options, before)));
    onProgress?.(results.length, records.length);
  }
  const evaluation = summarize(results);
  const { reliability, textGenerality, modalGenerality, textLocality, modalLocality, average, count } = evaluation;
  return {
    results,
    metrics: { reliability, textGenerality, modalGenerality, textLocality, modalLocality, average, count },
    evaluation,
  };
}

/**
 * Lays out every query once, so that a record that cannot be asked is told before the work begins.
 * @throws Error that names all such records
 */
export function checkRecords(vlm: Vlm, records: readonly EditRecord[]): void {
  const problems: string[] = [];
  for (const record of records) {
    for (const { kind, query } of askedOf(record)) {
      try {
        vlm.layout(query.prompt, query.image !== null, query.target);
      } catch (error) {
        problems.push(`record ${record.index}, ${kind}: ${(error as Error).message}`);
      }
    }
  }
  if (problems.length === 0) return;
  const shown = problems.slice(0, 20).map((problem) => `\n  ${problem}`);
  const more = problems.length > shown.length ? `\n  and ${problems.length - shown.length} more` : '';
  throw new Error(`${problems.length} queries cannot be asked (records are counted from 0):${shown.join('')}${more}`);
}
