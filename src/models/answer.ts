/** Asking a model: teacher-forced predictions of a target's tokens (the paper's measure) and free generation, for the unedited and the edited model alike. */

import { i64, type Tensor } from '../graph/dtype.ts';
import { forRows, type GenerateOptions, generate, generateFrom } from './generate.ts';
import { followedBy, type Sequence } from './sequence.ts';
import { type EditedRows, type SharedStates, sharedStates } from './shared-states.ts';
import type { Batch, BatchShape, Rewrite, RgbImage, Vlm } from './vlm.ts';

/** A question, and the answer that teacher forcing feeds. Without a picture it is about words alone. */
export interface Query {
  readonly image?: RgbImage | undefined;
  readonly prompt: string;
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
export interface ReadInput {
  readonly image?: RgbImage | undefined;
  readonly prompt: string;
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
  generate(queries: readonly Omit<Query, 'target'>[], options?: GenerateOptions): Promise<{ text: string; tokenIds: number[] }[]>;
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
    const rows = sequences.map((_, i) => i).filter((i) => (sequences[i]!.visualSpan !== undefined) === image);
    rows.sort((a, b) => sequences[a]!.ids.length - sequences[b]!.ids.length || a - b);
    for (let at = 0; at < rows.length; at += size) out.push(rows.slice(at, at + size));
  }
  return out;
}

/** Flat rows of a batch at which the target's tokens are predicted. */
export function targetRows({ sequences, length }: BatchShape): number[] {
  return sequences.flatMap((s, n) => s.targetIds.map((_, i) => n * length + s.promptEnd + i));
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
export async function answerTargets(
  vlm: Vlm,
  queries: readonly Query[],
  rewrite?: RewriteRows,
  share = rewrite?.afterLayer?.layer,
): Promise<TargetAnswer[]> {
  const sequences = queries.map((q) => vlm.layout(q.prompt, q.image !== undefined, q.target));
  const out = new Array<TargetAnswer>(queries.length);
  const states = statesFor(vlm, rewrite, share);
  for (const rows of batchRows(sequences, Math.min(BATCH, vlm.batchLimit))) {
    const some = rows.map((i) => sequences[i]!);
    const images = rows.map((i) => queries[i]!.image);
    const shape = vlm.batchShape(some);
    const at = targetRows(shape);
    let logits: Tensor<'float32'>;
    if (states !== undefined && shape.image) {
      logits = await states.logits({ ...shape, images: images as RgbImage[] }, at, editedRows(rewrite, rows, shape));
    } else {
      const batch = await vlm.batch(some, images);
      const segment = { from: 0, to: vlm.decoder.layers, outputs: ['logits'], rows: true };
      const result = await vlm.run(segment, batch, { rows: i64(at, [at.length]) }, rewrite?.(rows, batch));
      logits = result.logits as Tensor<'float32'>;
    }
    readAnswers(some, logits).forEach((answer, i) => {
      out[rows[i]!] = answer;
    });
  }
  return out;
}

/** Free answers. @param share see `answerTargets` */
export async function generateAll(
  vlm: Vlm,
  queries: readonly Omit<Query, 'target'>[],
  options: GenerateOptions = {},
  rewrite?: RewriteRows,
  share = rewrite?.afterLayer?.layer,
): Promise<{ text: string; tokenIds: number[] }[]> {
  const sequences = queries.map((q) => vlm.layout(q.prompt, q.image !== undefined));
  const states = statesFor(vlm, rewrite, share);
  const out = new Array<{ text: string; tokenIds: number[] }>(queries.length);
  for (const rows of batchRows(sequences, Math.min(BATCH, vlm.batchLimit))) {
    const some = rows.map((i) => sequences[i]!);
    const images = rows.map((i) => queries[i]!.image);
    const shape = vlm.batchShape(some);
    const own = { ...forRows(options, rows), rewrite: rewrite?.(rows, shape) };
    const ids =
      states !== undefined && shape.image
        ? await generateFrom(vlm, shape, own, (ends) =>
            states.readPrompt({ ...shape, images: images as RgbImage[] }, ends, editedRows(rewrite, rows, shape)),
          )
        : await generate(vlm, await vlm.batch(some, images), own);
    ids.forEach((tokenIds, i) => {
      out[rows[i]!] = { tokenIds, text: vlm.codec.decode(tokenIds).trim() };
    });
  }
  return out;
}

/** @param rewrite of the one input; none: the unedited model */
export async function readInput(vlm: Vlm, { image, prompt, answer = [] }: ReadInput, rewrite?: RewriteRows): Promise<Reading> {
  const sequence = followedBy(vlm.layout(prompt, image !== undefined), answer, vlm.decoder.maxPositions);
  const batch = await vlm.batch([sequence], [image]);
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
