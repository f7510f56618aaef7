/**
 * Whole greedy answers as one run: the prompt, and a loop over the steps whose keys and values never leave the device. The loop ends when every answer
 * has met a token that ends it.
 */

import { addDim, type Dim } from '../graph/dim.ts';
import { i64, type Tensor } from '../graph/dtype.ts';
import {
  add,
  argMax,
  bind,
  cast,
  concat,
  constant,
  equal,
  expand,
  gather,
  input,
  less,
  loop,
  maximum,
  mean,
  type Node,
  reshape,
  slice,
  sum,
} from '../graph/index.ts';
import type { Feeds, Program } from '../runtime/program.ts';
import { cacheNames, forward, type Plan } from './forward.ts';
import type { Rewrite } from './rewrite.ts';
import type { Vlm } from './vlm.ts';

/** What steps read: the first new token [b, 1], and keys and values of the prompt [b, h, l, k] by layer. */
interface Start {
  readonly first: Node;
  readonly past: (name: string) => Node;
  /** of the prompt's keys */
  readonly length: Dim;
}

/**
 * The steps after a prompt. Inputs: turns [], end [e] (tokens that end an answer), nextPositions [b, 1] of the first step, gaps, what
 * they see of the prompt's columns (see `seenByAnswers`). Outputs: `first` [b, 1], `tokens` [turns, b, 1], and `means` [turns, b, 1] of all scores, which are no numbers when one is none.
 */
function steps(vlm: Vlm, { first, past, length }: Start, lasting: Rewrite | undefined): Record<string, Node> {
  const { decoder } = vlm;
  const last = decoder.layers - 1;
  const own = cacheNames('recent', 0, last);
  const plan: Plan = {
    ...{ from: 0, to: decoder.layers, image: false, length: 1, step: true },
    read: ['logits', ...own],
    cache: [
      { name: 'past', length },
      { name: 'recent', length: 'g' },
    ],
  };
  const step = forward({ decoder, runsOf: vlm.runsOf, rewrite: lasting }, plan);
  const axes = decoder.positionAxes ?? 1;
  const positions = input('nextPositions', axes === 1 ? ['b', 1] : [axes, 'b', 1], 'int64');
  const sighted = decoder.sight !== undefined;
  const gaps = input('gaps', sighted ? ['b', 2, length] : ['b', 1, 1, length]);
  const end = input('end', ['e'], 'int64');
  const ended = (ids: Node): Node => sum(cast(equal(ids, end), 'float32'), 1, true);
  const unended = (done: Node): Node => less(mean(done), 1);
  const done = ended(first);
  const none = (name: string): Node => slice(past(name.replace('recent', 'past')), 2, 0, 0);
  const { each } = loop(
    { turns: input('turns', [], 'int64'), symbol: 'n', first: unended(done) },
    {
      ids: { start: first },
      done: { start: done },
      ...(sighted ? { reach: { start: slice(gaps, 2, 0, 0), shape: ['b', 2, 'g'], end: ['b', 2, 'grown'] } } : {}),
      ...Object.fromEntries(
        own.map((name) => [
          name,
          {
            start: none(name),
            shape: ['b', decoder.keyHeads, 'g', decoder.headWidth],
            end: ['b', decoder.keyHeads, 'grown', decoder.headWidth],
          },
        ]),
      ),
    },
    ({ ids, done: before, reach, ...recent }, turn) => {
      const at = add(positions, turn);
      // An answer's token reaches up to itself.
      const reached = reach && concat([reach, expand(reshape(cast(at, 'float32'), ['b', 1, 1]), ['b', 2, 1])], 2);
      const seen: [string, Node] = reached
        ? ['reach', concat([gaps, reached], 2)]
        : ['bias', concat([gaps, expand(constant(0), ['b', 1, 1, addDim('g', 1)])], 3)];
      const { logits, ...grown } = bind(
        step,
        new Map<string, Node>([
          ['ids', ids!],
          ['positions', at],
          seen,
          ...cacheNames('past', 0, last).map((name): [string, Node] => [name, past(name)]),
          ...Object.entries(recent),
        ]),
      );
      const next = argMax(logits!);
      const after = maximum(before!, ended(next));
      return {
        next: { ids: next, done: after, ...(reached ? { reach: reached } : {}), ...grown },
        more: unended(after),
        each: { tokens: next, means: mean(logits!, 2) },
      };
    },
  );
  return { first, tokens: each.tokens!, means: each.means! };
}

/** The prompt of a plan and its steps. Inputs: those of the plan, `order` [b, 1]: 0 to b − 1, and those of the steps. */
function answersOf(vlm: Vlm, plan: Plan, rewrite: Rewrite | undefined, lasting: Rewrite | undefined): Record<string, Node> {
  const read = forward({ decoder: vlm.decoder, runsOf: vlm.runsOf, rewrite }, plan);
  // Rows are chosen by a symbol of their own; here there is one for each input.
  const rowOfEach = input('order', ['b', 1], 'int64');
  const means = gather(mean(read.logits!, 1), rowOfEach);
  const first = gather(argMax(read.logits!), rowOfEach);
  const past = (name: string): Node => read[name]!;
  const length = past('past.0.key').dim(2);
  return { ...steps(vlm, { first, past, length }, lasting), firstMeans: means };
}

/** Steps after prompts that were read before. Inputs: `first` [b, 1], `past.{i}` [b, h, l, k], and those of the steps. */
function answersAfter(vlm: Vlm, lasting: Rewrite | undefined): Record<string, Node> {
  const { keyHeads, headWidth } = vlm.decoder;
  const past = (name: string): Node => input(name, ['b', keyHeads, 'l', headWidth]);
  const known = new Map<string, Node>();
  const once = (name: string): Node => {
    const node = known.get(name) ?? past(name);
    known.set(name, node);
    return node;
  };
  return steps(vlm, { first: input('first', ['b', 1], 'int64'), past: once, length: 'l' }, lasting);
}

export const answerProgram = (vlm: Vlm, plan: Plan, rewrite?: Rewrite, lasting?: Rewrite): Promise<Program> =>
  vlm.program(answersOf, plan, rewrite, lasting);

export const answerAfterProgram = (vlm: Vlm, lasting?: Rewrite): Promise<Program> => vlm.program(answersAfter, lasting);

/** What the loop is fed beside the prompt. */
export const loopFeeds = (b: number, turns: number, end: Iterable<number>): Feeds => ({
  turns: i64([turns], []),
  // A token that none has stands for an empty list.
  end: i64([...new Set([-1, ...end])], [new Set([-1, ...end]).size]),
  order: i64(
    Array.from({ length: b }, (_, i) => i),
    [b, 1],
  ),
});

/**
 * Token ids of each answer, of [b, 1] and [turns, b, 1]; an end token is not returned.
 * @throws Error when a score is not a number
 */
export function readAnswer(out: Readonly<Record<string, Tensor>>, b: number, end: ReadonlySet<number>): number[][] {
  for (const name of ['firstMeans', 'means'])
    if (out[name]?.data.some((value: number | bigint) => Number.isNaN(Number(value))) === true)
      throw new Error(
        "the model's scores are not numbers: weights or pixel values that are not numbers, or too large for their type; fetch the model's files again, or open it with --dtype float32",
      );
  const all = [...out.first!.data, ...out.tokens!.data].map(Number);
  return Array.from({ length: b }, (_, n) => {
    const own = all.filter((_, i) => i % b === n);
    const stop = own.findIndex((id) => end.has(id));
    return stop < 0 ? own : own.slice(0, stop);
  });
}
