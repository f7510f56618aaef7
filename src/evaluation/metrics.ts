/**
 * The field's measures of an edit (VisEdit Eq. 9-13, as the authors' code computes them): teacher-forced token accuracy. Reliability and the
 * two generalities compare the arg-max tokens with the target's; the localities compare them with the unedited model's arg-max tokens at the
 * same positions. Beside them: exact match of free greedy generation, and the probability of the target before and after.
 */

import { z } from 'zod';
import { type EditRecord, type QueryKind, queryKinds, type RecordQuery } from '../input/records.ts';
import type { TargetAnswer } from '../models/answer.ts';

/** Localities close to the edit: reported beside the five metrics, never in their average. */
export const hardKinds = ['sameImage', 'sameQuestion', 'noise', 'grey'] as const;
export type HardKind = (typeof hardKinds)[number];
export type AskedKind = QueryKind | HardKind;

const changing: ReadonlySet<AskedKind> = new Set(['reliability', 'textGenerality', 'modalGenerality']);
export const isLocality = (kind: AskedKind): boolean => !changing.has(kind);

/** What is asked for a record, in a fixed order. */
export function askedOf(record: EditRecord): { kind: AskedKind; query: RecordQuery }[] {
  const asked: { kind: AskedKind; query: RecordQuery }[] = queryKinds.map((kind) => ({ kind, query: record.queries[kind] }));
  for (const kind of hardKinds) {
    const query = record.hard?.[kind];
    if (query !== undefined) asked.push({ kind, query });
  }
  return asked;
}

/** An answer to one query: its target's tokens, teacher forced, and free greedy generation. */
export interface Answer {
  readonly forced: TargetAnswer;
  readonly text: string;
}

/** Fraction of the target's positions at which the edited model says what it should. */
export function tokenAccuracy(kind: AskedKind, before: TargetAnswer, after: TargetAnswer): number {
  const wanted = isLocality(kind) ? before.predictedIds : after.targetIds;
  const right = after.predictedIds.filter((id, i) => id === wanted[i]).length;
  return right / wanted.length;
}

/** Whether free generation says exactly what it should, white space around it aside. */
export function exactMatch(kind: AskedKind, target: string, before: Answer, after: Answer): boolean {
  return after.text.trim() === (isLocality(kind) ? before.text.trim() : target.trim());
}

/** Probability of the whole target. */
export function targetProbability({ logProbs }: TargetAnswer): number {
  return Math.exp(logProbs.reduce((sum, p) => sum + p, 0));
}

export interface QueryResult {
  /** token accuracy after the edit */
  readonly accuracy: number;
  /** free generation after the edit */
  readonly text: string;
  readonly exact: boolean;
  /** free generation before the edit */
  readonly textBefore: string;
  /** fraction of the target's tokens that the unedited model says */
  readonly accuracyBefore: number;
  /** probability of the target before and after the edit */
  readonly probability: readonly [number, number];
}

/** One line of a results file. */
export interface RecordResult {
  readonly index: number;
  readonly kind?: string;
  readonly edit?: 'correction' | 'counterfactual';
  readonly target: string;
  readonly queries: Readonly<Partial<Record<AskedKind, QueryResult>>>;
}

const queryResult = z.looseObject({
  accuracy: z.number(),
  text: z.string(),
  exact: z.boolean(),
  textBefore: z.string(),
  accuracyBefore: z.number(),
  probability: z.tuple([z.number(), z.number()]),
});
export const recordResult: z.ZodType<RecordResult> = z.looseObject({
  index: z.int(),
  kind: z.string().optional(),
  edit: z.enum(['correction', 'counterfactual']).optional(),
  target: z.string(),
  queries: z.partialRecord(z.enum([...queryKinds, ...hardKinds]), queryResult),
});

// Six digits: results stay readable, and the last bits of a sum do not show.
const rounded = (x: number): number => Number(x.toFixed(6));

export function scoreRecord(
  record: EditRecord,
  before: ReadonlyMap<AskedKind, Answer>,
  after: ReadonlyMap<AskedKind, Answer>,
): RecordResult {
  const queries: Partial<Record<AskedKind, QueryResult>> = {};
  for (const { kind, query } of askedOf(record)) {
    const [then, now] = [before.get(kind)!, after.get(kind)!];
    queries[kind] = {
      accuracy: tokenAccuracy(kind, then.forced, now.forced),
      text: now.text,
      exact: exactMatch(kind, query.target, then, now),
      textBefore: then.text,
      accuracyBefore: tokenAccuracy('reliability', then.forced, then.forced),
      probability: [rounded(targetProbability(then.forced)), rounded(targetProbability(now.forced))],
    };
  }
  return {
    index: record.index,
    ...(record.kind === undefined ? {} : { kind: record.kind }),
    ...(record.edit === undefined ? {} : { edit: record.edit }),
    target: record.request.target,
    queries,
  };
}

/** The five metrics as fractions from 0 to 1, and their mean. */
export type FiveMetrics = Readonly<Record<QueryKind, number>> & { readonly average: number };

/** The mean of a record's five accuracies. */
export const averageOf = ({ queries }: RecordResult): number =>
  queryKinds.reduce((sum, kind) => sum + (queries[kind]?.accuracy ?? 0), 0) / queryKinds.length;

export type HardMetrics = Readonly<Record<HardKind, number | null>>;

/** Fractions over some records. */
export type Figures = FiveMetrics & {
  readonly count: number;
  /** token accuracy; null where no record asks */
  readonly hard: HardMetrics;
  /** exact match of free generation */
  readonly generation: FiveMetrics & HardMetrics;
};

export interface ProbabilityChange {
  readonly before: number;
  readonly after: number;
  readonly change: number;
}

/** Everything an evaluation reports, as fractions from 0 to 1: see docs/metrics.md. */
export type Evaluation = Figures & {
  /** mean probability of the target */
  readonly probability: Readonly<Record<AskedKind, ProbabilityChange | null>>;
  /** token accuracy of the unedited model on what the edit changes: how much was right already */
  readonly unedited: Readonly<Record<'reliability' | 'textGenerality' | 'modalGenerality', number>>;
  /** by question kind, where records name one */
  readonly kinds: Readonly<Record<string, Figures>>;
  /** by correction and counterfactual, where records name it */
  readonly edits: Readonly<Record<string, Figures>>;
};

function meanOf(results: readonly RecordResult[], kind: AskedKind, read: (query: QueryResult) => number): number | null {
  let sum = 0;
  let count = 0;
  for (const { queries } of results) {
    const query = queries[kind];
    if (query === undefined) continue;
    sum += read(query);
    count++;
  }
  return count === 0 ? null : sum / count;
}

export function figuresOf(results: readonly RecordResult[]): Figures {
  const over = (read: (query: QueryResult) => number): { five: FiveMetrics; hard: HardMetrics } => {
    const five = Object.fromEntries(queryKinds.map((kind) => [kind, meanOf(results, kind, read) ?? 0])) as Record<
      QueryKind,
      number
    >;
    const hard = Object.fromEntries(hardKinds.map((kind) => [kind, meanOf(results, kind, read)])) as Record<
      HardKind,
      number | null
    >;
    return { five: { ...five, average: queryKinds.reduce((sum, kind) => sum + five[kind], 0) / queryKinds.length }, hard };
  };
  const forced = over((query) => query.accuracy);
  const free = over((query) => Number(query.exact));
  return { ...forced.five, count: results.length, hard: forced.hard, generation: { ...free.five, ...free.hard } };
}

/** All figures of an evaluation from its records' results. */
export function summarize(results: readonly RecordResult[]): Evaluation {
  const probability = (kind: AskedKind): ProbabilityChange | null => {
    const before = meanOf(results, kind, (query) => query.probability[0]);
    const after = meanOf(results, kind, (query) => query.probability[1]);
    return before === null || after === null ? null : { before, after, change: after - before };
  };
  const before = (kind: AskedKind): number => meanOf(results, kind, (query) => query.accuracyBefore) ?? 0;
  return {
    ...figuresOf(results),
    probability: Object.fromEntries(
      [...queryKinds, ...hardKinds].map((kind) => [kind, probability(kind)]),
    ) as Evaluation['probability'],
    unedited: {
      reliability: before('reliability'),
      textGenerality: before('textGenerality'),
      modalGenerality: before('modalGenerality'),
    },
    kinds: groupFigures(results, (result) => result.kind),
    edits: groupFigures(results, (result) => result.edit),
  };
}

function groupFigures(
  results: readonly RecordResult[],
  nameOf: (result: RecordResult) => string | undefined,
): Record<string, Figures> {
  const groups = new Map<string, RecordResult[]>();
  for (const result of results) {
    const name = nameOf(result);
    if (name === undefined) continue;
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [result]);
    else group.push(result);
  }
  return Object.fromEntries([...groups].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, group]) => [name, figuresOf(group)]));
}
