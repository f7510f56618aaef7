/** The same queries to two models: texts, probabilities of their tokens, and the paper's measures. */

import { type AskedKind, hardKinds, targetProbability, tokenAccuracy } from '../../../src/evaluation/metrics.ts';
import { queryKinds } from '../../../src/input/records.ts';
import type { Asked } from '../../../src/input/segments.ts';
import type { AnsweringModel, TargetAnswer } from '../../../src/models/answer.ts';
import type { Vlm } from '../../../src/models/vlm.ts';
import { ApiError, clientsFault } from '../errors.ts';
import { layoutOf, type Models } from './models.ts';
import { putQuestion } from './question.ts';
import { listen } from './said.ts';
import type { ComparedAnswer, ComparedQuery, ComparisonOrder, Progress } from './tasks.ts';
import type { Work } from './worker.ts';

interface Put {
  readonly asked: Asked;
  readonly target: string | undefined;
}

interface Answered {
  readonly answers: readonly ComparedAnswer[];
  readonly forced: readonly (TargetAnswer | undefined)[];
}

export async function compare(models: Models, order: ComparisonOrder, work: Work<Progress>): Promise<ComparedQuery[]> {
  const { queries } = order;
  if (order.before.model !== order.after.model)
    throw new ApiError(400, 'invalid_value', 'before and after must be the same model under different edits', { param: 'after' });
  const [before, after] = [await models.under(order.before), await models.under(order.after)];
  const put: Put[] = [];
  for (const [i, { prompt, image, target }] of queries.entries()) {
    const param = `queries.${i}.prompt`;
    const { asked } = await clientsFault('invalid_prompt', param, () => putQuestion(before.vlm, { prompt, image }));
    await layoutOf(before.vlm, param, asked, target);
    put.push({ asked, target });
  }
  const then = await ask(before.vlm, before.asked, put, order, work.signal);
  work.tell({ done: 1, total: 2, note: 'before' });
  const now = await ask(after.vlm, after.asked, put, order, work.signal);
  work.tell({ done: 2, total: 2, note: 'after' });
  return queries.map(({ kind }, i) => {
    const [first, second] = [then.forced[i], now.forced[i]];
    const measured = first !== undefined && second !== undefined;
    return {
      before: then.answers[i]!,
      after: now.answers[i]!,
      tokenAgreement: measured ? share(first.predictedIds, second.predictedIds) : null,
      tokenAccuracy: measured && isAsked(kind) ? tokenAccuracy(kind, first, second) : null,
    };
  });
}

async function ask(
  vlm: Vlm,
  asked: AnsweringModel,
  queries: readonly Put[],
  { maxTokens, top }: ComparisonOrder,
  signal: AbortSignal,
): Promise<Answered> {
  const listener = listen(vlm, queries.length, { top });
  await asked.generate(
    queries.map((query) => query.asked),
    { maxNewTokens: maxTokens, signal, onToken: listener.onToken },
  );
  signal.throwIfAborted();
  const measured = queries.flatMap(({ target }, i) => (target === undefined ? [] : [i]));
  const forced = new Array<TargetAnswer | undefined>(queries.length);
  const answers = await asked.answerTargets(measured.map((i) => ({ ...queries[i]!.asked, target: queries[i]!.target! })));
  measured.forEach((i, n) => {
    forced[i] = answers[n]!;
  });
  const texts = listener.texts();
  return {
    forced,
    answers: queries.map((_, i) => ({
      text: texts[i]!,
      tokens: listener.said[i]!,
      targetProbability: forced[i] === undefined ? null : targetProbability(forced[i]),
    })),
  };
}

const isAsked = (kind: string): kind is AskedKind => ([...queryKinds, ...hardKinds] as readonly string[]).includes(kind);

const share = (a: readonly number[], b: readonly number[]): number => a.filter((id, i) => id === b[i]).length / a.length;
