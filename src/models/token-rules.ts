/**
 * The settings of generation_config.json that change which token is chosen, in the order of transformers (5.24 `generation/utils.py`,
 * `logits_process.py`). Scores are float32 as there.
 */

import { type GenerationConfig, notComputedIn } from './configs/generation.ts';

export interface TokenRules {
  /** longest answer where none is asked for */
  readonly maxNewTokens: number | undefined;
  /** The prompt's ids as the reference's rules see them. @param ids −1 at visual tokens */
  promptOf(ids: readonly number[]): readonly number[];
  /**
   * Scores [n] of the next token under the rules; `scores` itself when no rule acts.
   * @param prompt from `promptOf`
   * @param last whether no token may follow
   * @throws Error when the settings ask for what is not computed
   */
  apply(scores: Float32Array, prompt: readonly number[], answer: readonly number[], last: boolean): Float32Array;
}

export interface RuleOptions {
  readonly eosIds: readonly number[];
  /** what the reference's rules see of the prompt: nothing, or its tokens, with this id for each visual token */
  readonly prompt: 'unseen' | { readonly imageId: number | undefined };
  /** where the settings stand, for messages */
  readonly path: string;
}

type Rule = (scores: Float32Array, seen: readonly number[], answer: readonly number[], last: boolean) => void;

/** Undefined: the tokens are chosen by the model's scores alone. */
export function tokenRules(config: GenerationConfig, { eosIds, prompt, path }: RuleOptions): TokenRules | undefined {
  const refused = notComputedIn(config);
  const rules = rulesOf(config, eosIds);
  const maxNewTokens = config.max_new_tokens ?? undefined;
  if (refused.length === 0 && rules.length === 0 && maxNewTokens === undefined) return undefined;
  return {
    maxNewTokens,
    promptOf: (ids) => (prompt === 'unseen' ? [] : ids.map((id) => (id < 0 ? (prompt.imageId ?? -1) : id))),
    apply(scores, before, answer, last) {
      if (refused.length > 0)
        throw new Error(
          `${path} asks for ${refused.join(', ')}, which is not computed here; remove it from the file to choose tokens by the other settings`,
        );
      if (rules.length === 0) return scores;
      const out = Float32Array.from(scores);
      const seen = [...before, ...answer];
      for (const rule of rules) rule(out, seen, answer, last);
      return out;
    },
  };
}

function rulesOf(config: GenerationConfig, eosIds: readonly number[]): Rule[] {
  const rules: Rule[] = [];
  const ban = (scores: Float32Array, ids: readonly number[]): void => {
    for (const id of ids) if (id >= 0 && id < scores.length) scores[id] = Number.NEGATIVE_INFINITY;
  };
  /** the next token can only be one of these */
  const force = (scores: Float32Array, ids: readonly number[]): void => {
    scores.fill(Number.NEGATIVE_INFINITY);
    for (const id of ids) scores[id] = 0;
  };
  const bias = (list: readonly (readonly [readonly number[], number])[]): Rule => {
    return (scores, seen) => {
      for (const [ids, value] of list) {
        const start = seen.length - ids.length + 1;
        const id = ids.at(-1)!;
        if (start >= 0 && id < scores.length && ids.every((one, i) => i === ids.length - 1 || one === seen[start + i]))
          scores[id] = scores[id]! + value;
      }
    };
  };
  const { repetition_penalty: penalty, no_repeat_ngram_size: size, exponential_decay_length_penalty: decay } = config;
  if (config.sequence_bias?.length) rules.push(bias(config.sequence_bias));
  if (penalty !== 1) {
    const by = Math.fround(penalty);
    rules.push((scores, seen) => {
      for (const id of new Set(seen)) {
        const score = scores[id];
        if (score !== undefined) scores[id] = score < 0 ? score * by : score / by;
      }
    });
  }
  if (size > 0) {
    rules.push((scores, seen) => {
      const start = seen.length - size + 1;
      for (let i = 0; i < start; i++) {
        let same = true;
        for (let k = 0; same && k < size - 1; k++) same = seen[i + k] === seen[start + k];
        if (same) ban(scores, [seen[i + size - 1]!]);
      }
    });
  }
  const badWords = config.bad_words_ids?.filter((ids) => ids.length > 1 || !eosIds.includes(ids[0]!));
  if (badWords?.length) rules.push(bias(badWords.map((ids) => [ids, Number.NEGATIVE_INFINITY])));
  if (config.min_length > 0)
    rules.push((scores, seen) => {
      if (seen.length < config.min_length) ban(scores, eosIds);
    });
  const least = config.min_new_tokens ?? 0;
  if (least > 0)
    rules.push((scores, _, answer) => {
      if (answer.length < least) ban(scores, eosIds);
    });
  const { forced_bos_token_id: first, forced_eos_token_id: end } = config;
  if (first != null)
    rules.push((scores, seen) => {
      if (seen.length === 1) force(scores, [first]);
    });
  if (end.length > 0)
    rules.push((scores, _, _answer, last) => {
      if (last) force(scores, end);
    });
  if (decay != null)
    rules.push((scores, _, answer) => {
      const over = answer.length - decay[0];
      if (over <= 0) return;
      const by = Math.fround(decay[1] ** over - 1);
      for (const id of eosIds)
        if (Number.isFinite(scores[id])) scores[id] = scores[id]! + Math.fround(Math.abs(scores[id]!) * by);
    });
  if (config.suppress_tokens?.length) rules.push((scores) => ban(scores, config.suppress_tokens!));
  if (config.begin_suppress_tokens?.length)
    rules.push((scores, seen, answer) => {
      const start = seen.length - answer.length > 1 || first == null ? 0 : 1;
      if (answer.length === start) ban(scores, config.begin_suppress_tokens!);
    });
  return rules;
}
