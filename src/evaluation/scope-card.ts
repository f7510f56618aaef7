/** Whether an edit took, and its scope card: what the model says to the questions around the edit, before and after. */

import type { EditRequest } from '../editors/editor.ts';
import { textOf } from '../input/segments.ts';
import type { AnsweringModel } from '../models/answer.ts';
import { type AskedKind, isLocality, targetProbability } from './metrics.ts';
import type { Probe } from './probes.ts';

/** One question of a scope card. */
export interface CardEntry {
  readonly kind: AskedKind;
  readonly prompt: string;
  readonly picture: Probe['picture'];
  /** the target, or the answer before the edit where nothing may change */
  readonly expected: string;
  /** greedy answers */
  readonly before: string;
  readonly after: string;
  /** the answer after the edit is the expected one; where the target must come, more words may follow it */
  readonly ok: boolean;
}

export interface TargetState {
  /** greedy answer to the edit's prompt */
  readonly text: string;
  /** of the whole target */
  readonly probability: number;
}

/** Whether an edit took, and its scope card. */
export interface EditCheck {
  /** the edited model's greedy answer is the target, or begins with it */
  readonly took: boolean;
  /** that answer is the target and nothing else */
  readonly exact: boolean;
  /** every token of the target is the most probable one when those before it are given */
  readonly forced: boolean;
  readonly before: TargetState;
  readonly after: TargetState;
  /** the edit's own prompt, then the probes in their order */
  readonly card: readonly CardEntry[];
}

export interface CheckOptions {
  /** longest answer; answers to the edit's prompt are let be one token longer than the target */
  readonly maxNewTokens?: number;
  readonly signal?: AbortSignal | undefined;
}

/** What one model says to the questions of a card. */
export interface CardAnswers {
  /** every token of the target is the most probable one when those before it are given */
  readonly forced: boolean;
  readonly state: TargetState;
  /** to the edit's own prompt, then to the probes in their order */
  readonly answers: readonly string[];
}

/** Asks a model for an edit's target, and all probes. */
export async function askCard(
  model: AnsweringModel,
  { image, prompt, target }: EditRequest,
  probes: readonly Probe[],
  { maxNewTokens = 32, signal }: CheckOptions = {},
): Promise<CardAnswers> {
  const [forced] = await model.answerTargets([{ image, prompt, target }]);
  signal?.throwIfAborted();
  const longest = Math.max(maxNewTokens, forced!.targetIds.length + 1);
  const answers = (await model.generate([{ image, prompt }, ...probes], { maxNewTokens: longest, signal })).map(
    ({ text }) => text,
  );
  return {
    forced: forced!.predictedIds.every((id, i) => id === forced!.targetIds[i]),
    state: { text: answers[0]!, probability: targetProbability(forced!) },
    answers,
  };
}

/** Whether an edit took, by what was said without and with it. */
export function cardOf(
  { prompt, target }: Pick<EditRequest, 'prompt' | 'target'>,
  probes: readonly Probe[],
  before: Omit<CardAnswers, 'forced'>,
  after: CardAnswers,
): EditCheck {
  const asked: Pick<Probe, 'kind' | 'prompt' | 'picture'>[] = [{ kind: 'reliability', prompt, picture: 'own' }, ...probes];
  return {
    took: beginsWith(after.state.text, target),
    exact: after.state.text.trim() === target.trim(),
    forced: after.forced,
    before: before.state,
    after: after.state,
    card: asked.map(({ kind, prompt, picture }, i) => {
      const [then, now] = [before.answers[i]!, after.answers[i]!];
      const expected = isLocality(kind) ? then : target;
      const ok = isLocality(kind) ? now === then : beginsWith(now, target);
      return { kind, prompt: textOf(prompt), picture, expected, before: then, after: now, ok };
    }),
  };
}

/** Asks a model without and with an edit for the edit's target, and all probes. */
export async function checkEdit(
  models: { readonly before: AnsweringModel; readonly after: AnsweringModel },
  request: EditRequest,
  probes: readonly Probe[],
  options: CheckOptions = {},
): Promise<EditCheck> {
  const before = await askCard(models.before, request, probes, options);
  return cardOf(request, probes, before, await askCard(models.after, request, probes, options));
}

/** Whether an answer is the target, or the target with more words behind it. */
function beginsWith(text: string, target: string): boolean {
  const [said, wanted] = [text.trim(), target.trim()];
  return said.startsWith(wanted) && !/^[\p{L}\p{N}]/u.test(said.slice(wanted.length));
}
