/** Asks a model all queries of a batch of records, unedited and under each record's own edit. Knows editors by their contract only. */

import type { Edit, Editor, EditorWeights, Settings } from '../editors/editor.ts';
import type { EditRecord } from '../input/records.ts';
import type { Vlm } from '../models/vlm.ts';
import { bytesOfEdits, type Costs, privateMemory, timed } from './costs.ts';
import { askedOf, type Evaluation, type FiveMetrics, type RecordResult, scoreRecord, summarize } from './metrics.ts';
import { type AskOptions, askAll, load, requestOf, stopIfAsked } from './queries.ts';
import { Unedited } from './unedited.ts';

/** What to evaluate: an editor on a model, with its weights where it learned some. */
export interface Subject {
  readonly vlm: Vlm;
  readonly editor: Editor;
  readonly weights?: EditorWeights | undefined;
  /** of each edit */
  readonly settings?: Settings | undefined;
}

export interface BatchEvaluation {
  /** one per record */
  readonly results: RecordResult[];
  readonly costs: Costs;
}

/** Edits and asks some records together. */
export async function evaluateBatch(
  { vlm, editor, weights, settings }: Subject,
  records: readonly EditRecord[],
  options: AskOptions = {},
  before = new Unedited(vlm, editor.unchangedUpTo?.(weights)),
): Promise<BatchEvaluation> {
  const batch = await load(records);
  const unchanged = await timed(() => before.get(batch, options));
  const made = await timed(() => editor.edit(vlm, batch.map(requestOf), weights, settings));
  stopIfAsked(options.signal);
  const edits = made.value;
  const perQuery: Edit[] = batch.flatMap(({ asked }, i) => asked.map(() => edits[i]!));
  const changed = await timed(() => askAll(editor.with(vlm, perQuery), batch, options));
  return {
    results: batch.map(({ record }, i) => scoreRecord(record, unchanged.value[i]!, changed.value[i]!)),
    costs: {
      edits: edits.length,
      editSeconds: made.seconds,
      askSeconds: changed.seconds,
      uneditedSeconds: unchanged.seconds,
      editBytes: bytesOfEdits(edits, weights),
      privateBytes: privateMemory(),
    },
  };
}

export interface EvaluateOptions extends AskOptions {
  /** records per batch */
  batch?: number;
  before?: Unedited;
  onProgress?: (done: number, total: number) => void;
}

const defaultBatch = 16;

export interface RecordsEvaluation {
  /** in the order of the records */
  readonly results: readonly RecordResult[];
  readonly metrics: FiveMetrics & { readonly count: number };
  /** the metrics and all that stands beside them */
  readonly evaluation: Evaluation;
}

/** Makes one edit per record, asks all queries before and after, and measures. In memory; `runEvaluation` keeps results on disk. */
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
    const done = await evaluateBatch({ vlm, editor, weights }, records.slice(at, at + batch), options, before);
    results.push(...done.results);
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
        vlm.layout({ prompt: query.prompt, image: query.image === null ? undefined : vlm.anyPicture }, query.target);
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
