/** The question that all views are about, read from the address: a model (with or without a set of edits), a picture, a prompt. */
import { useEffect, useMemo } from 'react';
import type { Question } from '../api/ask.ts';
import { useAnswer, useModels, useSets } from '../api/queries.ts';
import type { EditSet, Model } from '../api/types.ts';
import { alter, usePlace } from './location.ts';

/** Where the studio puts edits unless another set is chosen. */
export const defaultSet = 'studio';

/** What editors for questions were trained to see after one. */
const cue = ' The answer is:';

/** A question gets the cue; anything else is asked as it is. */
export const toPrompt = (text: string): string => (text.trim().endsWith('?') ? text.trim() + cue : text.trim());
export const fromPrompt = (prompt: string): string => (prompt.endsWith(`?${cue}`) ? prompt.slice(0, -cue.length) : prompt);

export interface Subject {
  /** The model itself, without edits. */
  model: Model | undefined;
  base: string | undefined;
  /** Set of edits that the answer is given under; undefined: none. */
  set: string | undefined;
  sets: EditSet[];
  /** What the server calls the model with the set. */
  reference: string | undefined;
  picture: string | undefined;
  prompt: string | undefined;
  question: Question | undefined;
  /** Changes with every change of the set. */
  revision: number;
}

export function useSubject(): Subject {
  const { params } = usePlace();
  const models = useModels();
  const [wanted, set, picture, prompt] = ['model', 'set', 'picture', 'prompt'].map((name) => params.get(name) ?? undefined);
  const bases = models.data?.filter(({ visedit }) => visedit.set === null) ?? [];
  const model = bases.find(({ id }) => id === wanted) ?? (wanted === undefined ? bases[0] : undefined);
  const base = model?.id ?? wanted;
  // A link to a question names its model: another server may have another first one.
  useEffect(() => {
    if (wanted === undefined && prompt !== undefined && model !== undefined) alter({ model: model.id });
  }, [wanted, prompt, model]);
  const sets = useSets(base);
  const found = set === undefined ? undefined : sets.data?.find(({ name }) => name === set);
  const revision = found?.revision ?? 0;
  const reference = base === undefined ? undefined : set === undefined ? base : `${base}@${set}`;
  // A set's revision must be known before its answers are looked up.
  const ready = reference !== undefined && (set === undefined || sets.isSuccess);
  const question = useMemo(
    () =>
      ready && prompt !== undefined
        ? { model: reference!, prompt, ...(picture === undefined ? {} : { image: picture }) }
        : undefined,
    [ready, reference, prompt, picture],
  );
  return { model, base, set, sets: sets.data ?? [], reference, picture, prompt, question, revision };
}

export function useSubjectAnswer({ question, revision }: Subject) {
  return useAnswer(question, revision);
}
