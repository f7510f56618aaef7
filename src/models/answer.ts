/** Asking a model: teacher-forced predictions of a target's tokens (the paper's measure) and free generation, for the unedited and the edited model alike. */

import { i64, type Tensor } from '../graph/dtype.ts';
import type { Asked } from '../input/segments.ts';
import { type Batch, type BatchShape, batchShape, rowOf } from './batch.ts';
import { forRows, type GenerateOptions, generate, generateFrom } from './generate.ts';
import type { Rewrite } from './rewrite.ts';
import { followedBy, prefixOf, type Sequence } from './sequence.ts';
import { type EditedRows, type SharedStates, sharedStates } from './shared-states.ts';
import type { Vlm } from './vlm.ts';

/** A question, and the answer that teacher forcing feeds. Without a picture it is about words alone. */
export interface Query extends Asked {
  /** what teacher forcing feeds and compares with */
  readonly target: string;
}

/** What the model says at each of the target's tokens when the tokens before are given. */
export interface TargetAnswer {
  readonly targetIds: readonly number[];
  /** arg-max token at each position */
  readonly predictedIds: readonly number[];
  /** log probability of each target token */
  readonly logProbs: readonly number[];
}

/** An input to look into: a question, and what has been answered so far. */
export interface ReadInput extends Asked {
  /** token ids of the answer up to the place that is looked at */
  readonly answer?: readonly number[] | undefined;
}

/** One input as a model reads it: a batch of one, and what rewrites the programs that run on it. */
export interface Reading {
  readonly batch: Batch;
  readonly rewrite: Rewrite | undefined;
}

/** A model that can be asked: unedited, or under edits. */
export interface AnsweringModel {
  /** one answer per query, in order */
  answerTargets(queries: readonly Query[]): Promise<TargetAnswer[]>;
  generate(queries: readonly Asked[], options?: GenerateOptions): Promise<{ text: string; tokenIds: number[] }[]>;
  /** for attribution; absent where no rewrite of the model's own programs says what the edits do */
  read?(input: ReadInput): Promise<Reading>;
}

/** The rewrite for chosen rows of a list of queries; undefined: the unedited model. */
export interface RewriteRows {
  (rows: readonly number[], batch: BatchShape): Rewrite | undefined;
  /** given where the rewrite does nothing but change visual tokens after a layer: that layer, and what says which edit a row is under */
  readonly afterLayer?: { readonly layer: number; readonly editOf: (row: number) => unknown };
}

const BATCH = 32;

/** Rows grouped so that a batch has pictures or none and holds similar lengths. */
export function batchRows(sequences: readonly Sequence[], size = BATCH): number[][] {
  const out: number[][] = [];
  for (const image of [true, false]) {
    const rows = sequences.map((_, i) => i).filter((i) => sequences[i]!.pictures.length > 0 === image);
    const prefix = (i: number): number => prefixOf(sequences[i]!);
    rows.sort((a, b) => prefix(a) - prefix(b) || sequences[a]!.ids.length - sequences[b]!.ids.length || a - b);
    for (let at = 0; at < rows.length; at += size) out.push(rows.slice(at, at + size));
  }
  return out;
}

/** Flat rows of a batch at which the target's tokens are predicted. */
export function targetRows(batch: BatchShape): number[] {
  return batch.sequences.flatMap((s, n) => s.targetIds.map((_, i) => rowOf(batch, n, s.promptEnd + i)));
}

/** Reads predictions off logits [r, n] of the target rows of some sequences. */
export function readAnswers(sequences: readonly Sequence[], logits: Tensor<'float32'>): TargetAnswer[] {
  const n = logits.shape[1]!;
  let row = 0;
  return sequences.map(({ targetIds }) => {
    const predictedIds: number[] = [];
    const logProbs: number[] = [];
    for (const id of targetIds) {
      const scores = logits.data.subarray(row * n, (row + 1) * n);
      let best = 0;
      for (let i = 1; i < n; i++) if (scores[i]! > scores[best]!) best = i;
      let total = 0;
      for (let i = 0; i < n; i++) total += Math.exp(scores[i]! - scores[best]!);
      predictedIds.push(best);
      logProbs.push(scores[id]! - scores[best]! - Math.log(total));
      row++;
    }
    return { targetIds, predictedIds, logProbs };
  });
}

/** The states that queries may share; undefined: they share none. */
function statesFor(vlm: Vlm, rewrite: RewriteRows | undefined, share: number | undefined): SharedStates | undefined {
  return share === undefined || (rewrite !== undefined && rewrite.afterLayer?.layer !== share)
    ? undefined
    : sharedStates(vlm, share);
}

/** The rewrite of a batch's rows, which are rows of the queries. */
function editedRows(rewrite: RewriteRows | undefined, rows: readonly number[], batch: BatchShape): EditedRows | undefined {
  if (rewrite === undefined) return undefined;
  return {
    editOf: (row) => rewrite.afterLayer?.editOf(rows[row]!),
    rewrite: (chosen) =>
      rewrite(
        chosen.map((row) => rows[row]!),
        batch,
      ),
  };
}

/**
 * Teacher-forced answers.
 * @param share the layer up to which states are shared with other queries of the same pictures; by default the one that the rewrite acts after.
 * Sharing moves results by rounding only.
 */
export function answerTargets(
  vlm: Vlm,
  queries: readonly Query[],
  rewrite?: RewriteRows,
  share = rewrite?.afterLayer?.layer,
): Promise<TargetAnswer[]> {
  const sequences = queries.map((query) => vlm.layout(query, query.target));
  return answerSequences(vlm, sequences, rewrite, share);
}

/** As `answerTargets`, of inputs that are laid out. @param size inputs of a batch */
export function answerSequences(
  vlm: Vlm,
  sequences: readonly Sequence[],
  rewrite?: RewriteRows,
  share?: number,
  size = BATCH,
): Promise<TargetAnswer[]> {
  const states = statesFor(vlm, rewrite, share);
  return inBatches(vlm, sequences, size, async (shape, rows) => {
    const at = targetRows(shape);
    let logits: Tensor<'float32'>;
    if (states !== undefined && shape.image) logits = await states.logits(shape, at, editedRows(rewrite, rows, shape));
    else {
      const plan = { from: 0, to: vlm.decoder.layers, read: ['logits'], rows: true };
      const batch = await vlm.batch(shape.sequences);
      logits = (await vlm.run(plan, batch, { rows: i64(at, [at.length]) }, rewrite?.(rows, batch))).logits as Tensor<'float32'>;
    }
    return readAnswers(shape.sequences, logits);
  });
}

/** Free answers. @param share see `answerTargets` */
export function generateAll(
  vlm: Vlm,
  queries: readonly Asked[],
  options: GenerateOptions = {},
  rewrite?: RewriteRows,
  share = rewrite?.afterLayer?.layer,
): Promise<{ text: string; tokenIds: number[] }[]> {
  const sequences = queries.map((query) => vlm.layout(query));
  return generateSequences(vlm, sequences, options, rewrite, share);
}

/** As `generateAll`, of inputs that are laid out. @param size inputs of a batch */
export function generateSequences(
  vlm: Vlm,
  sequences: readonly Sequence[],
  options: GenerateOptions = {},
  rewrite?: RewriteRows,
  share?: number,
  size = BATCH,
): Promise<{ text: string; tokenIds: number[] }[]> {
  const states = statesFor(vlm, rewrite, share);
  return inBatches(vlm, sequences, size, async (shape, rows) => {
    const own = { ...forRows(options, rows), rewrite: rewrite?.(rows, shape) };
    const answers =
      states !== undefined && shape.image
        ? await generateFrom(vlm, shape, own, (ends) => states.readPrompt(shape, ends, editedRows(rewrite, rows, shape)))
        : await generate(vlm, await vlm.batch(shape.sequences), own);
    return answers.map((tokenIds) => ({ tokenIds, text: vlm.codec.decode(tokenIds).trim() }));
  });
}

/** Results of all inputs in their order, computed in batches. */
async function inBatches<T>(
  vlm: Vlm,
  sequences: readonly Sequence[],
  size: number,
  run: (shape: BatchShape, rows: readonly number[]) => Promise<readonly T[]>,
): Promise<T[]> {
  const out = new Array<T>(sequences.length);
  for (const rows of batchRows(sequences, Math.min(size, vlm.batchLimit))) {
    const results = await run(batchShape(rows.map((i) => sequences[i]!)), rows);
    rows.forEach((row, n) => {
      out[row] = results[n]!;
    });
  }
  return out;
}

/** An input to look into, under a rewrite. @param rewrite of the one input; none: the unedited model */
export async function readInput(vlm: Vlm, { answer = [], ...asked }: ReadInput, rewrite?: RewriteRows): Promise<Reading> {
  const batch = await vlm.batch([followedBy(vlm.layout(asked), answer, vlm.decoder.maxPositions)]);
  return { batch, rewrite: rewrite?.([0], batch) };
}

/** The unedited model. @param share see `answerTargets` */
export function unedited(vlm: Vlm, share?: number): AnsweringModel {
  return {
    answerTargets: (queries) => answerTargets(vlm, queries, undefined, share),
    generate: (queries, options) => generateAll(vlm, queries, options, undefined, share),
    read: (input) => readInput(vlm, input),
  };
}
