/**
 * Greedy and sampled generation with a KV cache: one prefill over the (edited) prompt, then one token a step for a whole batch.
 * A rewrite acts on the prefill; decode steps read the visual tokens only through the cached keys and values, as in the authors' code. Weight
 * edits, and patches that a rewrite gives for steps, act on every new token too.
 */

import { f32, i64, type Tensor } from '../graph/dtype.ts';
import type { Random } from '../random.ts';
import type { Feeds, Program } from '../runtime/program.ts';
import { answerAfterProgram, answerProgram, loopFeeds, readAnswer } from './answer-loop.ts';
import { type Batch, type BatchShape, MASKED, paddingOf, reachFeeds, rowOf, UNSEEN } from './batch.ts';
import { cacheNames, type Plan, siteOf } from './forward.ts';
import { layeredStep } from './layered.ts';
import type { Rewrite } from './rewrite.ts';
import type { Vlm } from './vlm.ts';

export interface GenerateOptions {
  /** default: what generation_config.json says, or 32 */
  maxNewTokens?: number | undefined;
  /** 0 is greedy */
  temperature?: number;
  topP?: number;
  random?: Random;
  rewrite?: Rewrite;
  /** tokens that end an answer; default: the model's */
  eosIds?: readonly number[];
  /**
   * Told of every new token as it is chosen.
   * @param index of the query among those asked together
   * @param logits [n] that it was chosen from; they hold until the call returns
   * @returns true ends this answer after the token
   */
  onToken?: (index: number, id: number, logits: Float32Array) => boolean | undefined;
  /** asked between tokens; its reason is thrown */
  signal?: AbortSignal | undefined;
}

/** Options for some rows of the queries: what is told of them names the queries. */
export function forRows(options: GenerateOptions, rows: readonly number[]): GenerateOptions {
  const { onToken } = options;
  return onToken === undefined ? options : { ...options, onToken: (i, id, logits) => onToken(rows[i]!, id, logits) };
}

/** Weight edits live on in decode steps; activation patches act where pictures are read in, unless they say otherwise. */
const lastingOf = (rewrite: Rewrite | undefined): Rewrite | undefined =>
  rewrite !== undefined && (rewrite.replace.size > 0 || rewrite.steps !== undefined) ? rewrite : undefined;

function stepProgram(vlm: Vlm, rewrite: Rewrite | undefined): Promise<Program> {
  const { layers } = vlm.decoder;
  return vlm.planned(
    {
      ...{ from: 0, to: layers, image: false, length: 1, step: true },
      read: ['logits', ...cacheNames('recent', 0, layers - 1)],
      cache: [
        { name: 'past', length: 'p' },
        { name: 'recent', length: 'r' },
      ],
    },
    lastingOf(rewrite),
  );
}

/** Whether the answers are one run: nothing is asked of the host between their tokens. */
const inOneRun = (vlm: Vlm, { temperature = 0, onToken }: GenerateOptions): boolean =>
  vlm.engine.device.wholeAnswers &&
  vlm.layered === undefined &&
  vlm.rules === undefined &&
  temperature === 0 &&
  onToken === undefined;

/** What a loop over the steps is fed, and the tokens that end it. */
function loopOf(
  vlm: Vlm,
  batch: BatchShape,
  { maxNewTokens = 32, eosIds, rewrite }: GenerateOptions,
): { feeds: Feeds; end: Set<number> } {
  const { sequences } = batch;
  const longest = Math.max(...sequences.map((s) => s.ids.length));
  const turns = Math.max(0, Math.min(maxNewTokens - 1, vlm.decoder.maxPositions - longest));
  const end = new Set(eosIds ?? vlm.eosIds);
  const feeds = {
    ...rewrite?.feeds,
    ...loopFeeds(sequences.length, turns, end),
    nextPositions: stepPositions(batch, vlm.decoder.positionAxes ?? 1, 0),
    gaps: seenByAnswers(vlm, batch),
  };
  return { feeds, end };
}

/** Of a batch's columns, what its answers see: a bias [b, 1, 1, l], or `reach` [b, 2, l]. */
function seenByAnswers({ decoder }: Vlm, batch: BatchShape): Tensor {
  if (decoder.sight !== undefined) return reachFeeds(batch, decoder.sight);
  const { sequences, length } = batch;
  const gaps = new Float32Array(sequences.length * length);
  sequences.forEach((_, n) => {
    for (const [start, stop] of paddingOf(batch, n)) gaps.fill(MASKED, n * length + start, n * length + stop);
  });
  return f32(gaps, [sequences.length, 1, 1, length]);
}

/** What token t of each answer sees: its batch's columns, `spare` columns that no token sees, the tokens before it, and itself. */
function seenByToken({ decoder }: Vlm, batch: BatchShape, spare: number, t: number): Feeds {
  const { sequences, length } = batch;
  if (decoder.sight !== undefined) {
    const own = sequences.map(({ ids }) => [
      ...new Array<number>(spare).fill(UNSEEN),
      ...Array.from({ length: t + 1 }, (_, i) => ids.length + i),
    ]);
    return { reach: reachFeeds(batch, decoder.sight, 'whole', own) };
  }
  const b = sequences.length;
  const seen = length + spare + t + 1;
  const bias = new Float32Array(b * seen);
  sequences.forEach((_, n) => {
    for (const [start, end] of [...paddingOf(batch, n), [length, length + spare] as const])
      bias.fill(MASKED, n * seen + start, n * seen + end);
  });
  return { bias: f32(bias, [b, 1, 1, seen]) };
}

/** Prompts and answers in one run. */
async function generateWhole(vlm: Vlm, batch: Batch, options: GenerateOptions): Promise<number[][]> {
  const { layers } = vlm.decoder;
  const { rewrite } = options;
  const ends = batch.sequences.map((s, n) => rowOf(batch, n, s.ids.length - 1));
  const plan: Plan = {
    ...{ from: 0, to: layers, read: ['logits', ...cacheNames('past', 0, layers - 1)], rows: true, image: batch.image },
    prefix: batch.image ? vlm.prefixDim(batch.prefix) : undefined,
  };
  const program = await answerProgram(vlm, plan, rewrite, lastingOf(rewrite));
  const { feeds, end } = loopOf(vlm, batch, options);
  const out = await program.run({ ...batch.feeds, ...feeds, rows: i64(ends, [ends.length]) });
  return readAnswer(out, ends.length, end);
}

/** Logits [b, n] after the prompts, and keys and values `past.{i}` [b, h, l, k] of all their tokens. */
interface ReadPrompt {
  readonly logits: Tensor<'float32'>;
  readonly cache: Record<string, Tensor>;
}

/** @param ends flat rows of the prompts' last tokens */
async function readPrompt(vlm: Vlm, batch: Batch, ends: readonly number[], rewrite: Rewrite | undefined): Promise<ReadPrompt> {
  const { layers } = vlm.decoder;
  const names = cacheNames('past', 0, layers - 1);
  const plan = { from: 0, to: layers, read: ['logits', ...names.map(siteOf)], rows: true };
  const read = await vlm.run(plan, batch, { rows: i64(ends, [ends.length]) }, rewrite);
  const cache = Object.fromEntries(names.map((name) => [name, read[siteOf(name)]!]));
  return { logits: read.logits as Tensor<'float32'>, cache };
}

/** New tokens per sequence of the batch; an end token is not returned. */
export function generate(vlm: Vlm, batch: Batch, options: GenerateOptions = {}): Promise<number[][]> {
  options.signal?.throwIfAborted();
  if (inOneRun(vlm, options) && options.maxNewTokens !== 0) return generateWhole(vlm, batch, options);
  return generateFrom(vlm, batch, options, (ends) => readPrompt(vlm, batch, ends, options.rewrite));
}

/** As `generate`. @param read reads the prompts, given the flat rows of their last tokens */
export async function generateFrom(
  vlm: Vlm,
  batch: BatchShape,
  options: GenerateOptions,
  read: (ends: readonly number[]) => Promise<ReadPrompt>,
): Promise<number[][]> {
  const { rules } = vlm;
  const { maxNewTokens = rules?.maxNewTokens ?? 32, rewrite, onToken, signal } = options;
  const eos = new Set(options.eosIds ?? vlm.eosIds);
  const { decoder } = vlm;
  const b = batch.sequences.length;
  const longest = Math.max(...batch.sequences.map((s) => s.ids.length));
  if (inOneRun(vlm, options) && maxNewTokens > 0) {
    const { cache, logits } = await read(batch.sequences.map((s, n) => rowOf(batch, n, s.ids.length - 1)));
    const first = batch.sequences.map((_, n) =>
      argMaxOf(logits.data.subarray(n * decoder.vocabulary, (n + 1) * decoder.vocabulary)),
    );
    const { feeds, end } = loopOf(vlm, batch, options);
    const program = await answerAfterProgram(vlm, lastingOf(rewrite));
    return readAnswer(await program.run({ ...cache, ...feeds, first: i64(first, [b, 1]) }), b, end);
  }
  const step = vlm.layered === undefined ? await stepProgram(vlm, rewrite) : layeredStep(vlm, rewrite);
  const { cache, ...prompt } = await read(batch.sequences.map((s, n) => rowOf(batch, n, s.ids.length - 1)));
  let { logits } = prompt;
  // Where a device takes no empty axis, a row that no token sees stands before the first.
  const spare = vlm.engine.device.emptyAxes ? 0 : 1;
  const none = f32(new Float32Array(b * decoder.keyHeads * spare * decoder.headWidth), [
    b,
    decoder.keyHeads,
    spare,
    decoder.headWidth,
  ]);
  let recent: Record<string, Tensor> = Object.fromEntries(
    cacheNames('recent', 0, decoder.layers - 1).map((name) => [name, none]),
  );
  const out: number[][] = batch.sequences.map(() => []);
  const done = batch.sequences.map(() => false);
  const prompts = batch.sequences.map((s) => rules?.promptOf(s.ids) ?? []);
  for (let t = 0; t < maxNewTokens; t++) {
    signal?.throwIfAborted();
    const next = batch.sequences.map((_, n) => {
      const scores = logits.data.subarray(n * decoder.vocabulary, (n + 1) * decoder.vocabulary);
      const row = done[n] ? scores : (rules?.apply(scores, prompts[n]!, out[n]!, t === maxNewTokens - 1) ?? scores);
      const id = chooseToken(row, options);
      if (done[n]) return id;
      if (eos.has(id)) done[n] = true;
      else {
        out[n]!.push(id);
        if (onToken?.(n, id, row) === true) done[n] = true;
      }
      return id;
    });
    if (done.every(Boolean) || t === maxNewTokens - 1) break;
    if (longest + t >= decoder.maxPositions) break;
    const feeds: Record<string, Tensor> = {
      ...cache,
      ...recent,
      ...rewrite?.feeds,
      ids: i64(next, [b, 1]),
      positions: stepPositions(batch, decoder.positionAxes ?? 1, t),
      ...seenByToken(vlm, batch, spare, t),
    };
    const result = await step.run(feeds);
    logits = result.logits as Tensor<'float32'>;
    recent = Object.fromEntries(Object.keys(recent).map((name) => [name, result[name]!]));
  }
  return out;
}

/** Position of token t after each input, the same on every axis. */
function stepPositions({ sequences }: BatchShape, axes: number, t: number): Tensor {
  const b = sequences.length;
  const one = sequences.map(({ ids, positionDelta = 0 }) => ids.length + positionDelta + t);
  return i64(Array.from({ length: axes }, () => one).flat(), axes === 1 ? [b, 1] : [axes, b, 1]);
}

export function chooseToken(row: Float32Array, { temperature = 0, topP = 1, random }: GenerateOptions): number {
  if (temperature === 0) return argMaxOf(row);
  if (random === undefined) throw new Error('sampling needs a seed');
  const max = row[argMaxOf(row)]!;
  const weights = Array.from(row, (x, id) => ({ id, p: Math.exp((x - max) / temperature) })).sort((a, z) => z.p - a.p);
  const total = weights.reduce((a, w) => a + w.p, 0);
  let kept = 0;
  const nucleus = weights.filter((w) => {
    const keep = kept < topP * total;
    if (keep) kept += w.p;
    return keep;
  });
  let at = random.uniform() * kept;
  for (const w of nucleus) {
    at -= w.p;
    if (at <= 0) return w.id;
  }
  return nucleus.at(-1)!.id;
}

/**
 * Index of the largest element; the first of equals.
 * @throws Error when one is not a number: no answer would mean anything
 */
export function argMaxOf(row: Float32Array): number {
  let best = 0;
  for (let i = 0; i < row.length; i++) {
    const x = row[i]!;
    if (x > row[best]!) best = i;
    else if (Number.isNaN(x))
      throw new Error(
        `the model's score of token ${i} is not a number: weights or pixel values that are not numbers, or too large for their type; fetch the model's files again, or open it with --dtype float32`,
      );
  }
  return best;
}
