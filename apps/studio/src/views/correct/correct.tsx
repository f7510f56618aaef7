/** Correct: one target, one button; then what became of five kinds of query, before and after. */
import { Alert, Button, Group, NativeSelect, Stack, Text, TextInput } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useMemo, useRef, useState } from 'react';
import { job, json, type Progress } from '../../api/client.ts';
import { editsChanged, useAnswer, useComparison, useEditors } from '../../api/queries.ts';
import type { Conflict, Edit, Listing } from '../../api/types.ts';
import { address, alter, usePlace } from '../../app/location.ts';
import { Link } from '../../app/shell.tsx';
import { defaultSet, fromPrompt, useSubject } from '../../app/subject.ts';
import { Empty, Failed, Waiting, Working } from '../../parts/states.tsx';
import { SubjectCard } from '../../parts/subject-card.tsx';
import { validSet } from '../edits/load.tsx';
import { SetPanel } from '../edits/set-panel.tsx';
import { Difference } from './difference.tsx';
import { useFive, useSuggestions } from './five.ts';
import { FiveForm } from './five-form.tsx';
import { Outcome } from './outcome.tsx';

export function Correct() {
  const subject = useSubject();
  const { params } = usePlace();
  const { base, picture, prompt, model } = subject;
  // What is corrected is the model's own answer, whatever set the question was asked under.
  const own = useMemo(
    () =>
      base === undefined || prompt === undefined ? undefined : { model: base, prompt, ...(picture ? { image: picture } : {}) },
    [base, prompt, picture],
  );
  const answer = useAnswer(own, 0);
  const name = params.get('set') ?? defaultSet;
  const set = subject.sets.find((one) => one.name === name);
  const target = params.get('target') ?? '';
  const suggestions = useSuggestions(subject);
  const five = useFive(suggestions.data);
  const active = set?.edits.filter(({ enabled }) => enabled).length ?? 0;
  const request =
    base === undefined || set === undefined || five === undefined || target === ''
      ? undefined
      : {
          before: base,
          after: `${base}@${name}`,
          queries: five.map(({ kind, prompt, picture: image }) => ({
            kind,
            prompt,
            ...(image === undefined ? {} : { image }),
            ...(kind === 'textLocality' || kind === 'modalLocality' ? {} : { target }),
          })),
        };
  const [progress, setProgress] = useState<Progress>();
  const comparison = useComparison(request, set?.revision ?? 0, setProgress);
  const client = useQueryClient();

  if (prompt === undefined || picture === undefined)
    return (
      <Empty title={prompt === undefined ? 'Nothing is asked yet' : 'This question has no picture'}>
        A correction is about a question and a picture. <Link to={address('/ask')}>Ask about a picture first</Link>.
      </Empty>
    );
  return (
    <div className="correct">
      <h1 className="unseen">Correct this answer</h1>
      <SubjectCard subject={{ ...subject, set: undefined }} tokens={answer.data?.tokens} writing={answer.isFetching} />
      {answer.isError && (
        <Failed what="The model’s answer is not known." error={answer.error} retry={() => void answer.refetch()} />
      )}
      <CorrectionForm key={`${prompt} ${picture}`} base={base} picture={picture} prompt={prompt} set={name} target={target} />
      {set !== undefined && <SetPanel set={set} />}
      {suggestions.isError && (
        <Failed
          what="There are no other queries to compare with."
          error={suggestions.error}
          retry={() => void suggestions.refetch()}
        />
      )}
      {request !== undefined &&
        (comparison.data ? (
          <Outcome
            comparison={comparison.data}
            five={five!}
            target={target}
            edit={{ picture, prompt }}
            title={active === 0 ? 'No correction is on: nothing changes' : 'Before and after'}
          />
        ) : comparison.isError ? (
          <Failed what="Before and after cannot be compared." error={comparison.error} retry={() => void comparison.refetch()} />
        ) : (
          <section className="card">
            <Waiting
              what="Asking all five, before and after"
              query={comparison}
              progress={progress}
              stop={() => void client.cancelQueries({ queryKey: ['comparison'] })}
            />
          </section>
        ))}
      {five !== undefined && <FiveForm five={five} suggested={suggestions.data!} />}
      {set !== undefined && active > 0 && model !== undefined && (
        <Difference question={{ model: `${base}@${name}`, image: picture, prompt }} revision={set.revision} picture={picture} />
      )}
    </div>
  );
}

interface FormProps {
  base: string | undefined;
  picture: string;
  prompt: string;
  set: string;
  target: string;
}

function CorrectionForm({ base, picture, prompt, set, target }: FormProps) {
  const editors = useEditors();
  const client = useQueryClient();
  const usable = (editors.data ?? []).filter(({ trained, weights }) => !trained || weights.some(({ model }) => model === base));
  const [text, write] = useState(target);
  const [editorId, chooseEditor] = useState('vead');
  const editor = usable.find(({ id }) => id === editorId) ?? usable[0];
  const kinds = editor?.weights.filter(({ model }) => model === base).map(({ name }) => name) ?? [];
  const [weightsName, chooseWeights] = useState<string>();
  const weights = kinds.includes(weightsName ?? '') ? weightsName : kinds[0];
  const [setName, nameSet] = useState(set);
  const [progress, setProgress] = useState<Progress>();
  const stopper = useRef<AbortController>(undefined);
  const correction = useMutation({
    mutationFn: async (answer: { conflicts: readonly Conflict[]; off: boolean } | undefined) => {
      stopper.current = new AbortController();
      const { signal } = stopper.current;
      const claim = { model: base, set: setName, image: picture, prompt, target: text.trim() };
      if (answer === undefined) {
        const { data } = await json<Listing<Conflict>>('/v1/conflicts', { method: 'POST', body: claim, signal });
        if (data.length > 0) return data;
      }
      const body = { ...claim, editor: editor?.id, ...(weights === undefined ? {} : { weights }) };
      await job<Edit>('/v1/edits', body, { signal, onProgress: setProgress });
      // What was wanted before is switched off, not thrown away.
      for (const { edit } of answer?.off ? answer.conflicts : [])
        await json<Edit>(`/v1/edits/${edit}`, { method: 'PATCH', body: { enabled: false } });
      return undefined;
    },
    onSuccess: async (conflicts) => {
      if (conflicts !== undefined) return;
      await editsChanged(client);
      alter({ target: text.trim(), set: setName }, { replace: false });
    },
  });
  const valid = validSet(setName);
  const conflicts = correction.data;
  return (
    <form
      className="card"
      aria-label="The correction"
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim() !== '' && editor !== undefined && valid && !correction.isPending) correction.mutate(undefined);
      }}
    >
      <Stack gap="sm">
        <Group align="flex-end" gap="sm" className="target-line">
          <TextInput
            size="md"
            className="grow"
            label="What should it answer?"
            placeholder="a cat"
            value={text}
            onChange={(event) => {
              write(event.currentTarget.value);
              if (conflicts !== undefined) correction.reset();
            }}
          />
          <Button
            size="md"
            type="submit"
            disabled={text.trim() === '' || base === undefined || editor === undefined || !valid}
            loading={correction.isPending}
          >
            Correct
          </Button>
        </Group>
        {conflicts !== undefined && (
          <Alert color="orange" title="This question about this picture is corrected already">
            <ul>
              {conflicts.map(({ edit, question, target: other, kind }) => (
                <li key={edit}>
                  {fromPrompt(question)} → <b>{other}</b>
                  {kind === 'repeats' ? ' (the same)' : ''}
                </li>
              ))}
            </ul>
            <Group gap="xs">
              <Button size="xs" onClick={() => correction.mutate({ conflicts, off: true })}>
                Correct, and switch the earlier one off
              </Button>
              <Button size="xs" variant="default" onClick={() => correction.mutate({ conflicts, off: false })}>
                Keep both on
              </Button>
              <Button size="xs" variant="default" onClick={() => correction.reset()}>
                Leave it
              </Button>
            </Group>
          </Alert>
        )}
        {correction.isPending && (
          <Working what="Making the correction" progress={progress} stop={() => stopper.current?.abort()} />
        )}
        {correction.isError && !stopper.current?.signal.aborted && (
          <Failed what="The correction was not made." error={correction.error} />
        )}
        {editors.isError && (
          <Failed what="The editors cannot be listed." error={editors.error} retry={() => void editors.refetch()} />
        )}
        <details>
          <summary>How it is corrected</summary>
          <Group mt="sm" align="flex-start">
            <NativeSelect
              label="Editor"
              value={editor?.id ?? ''}
              onChange={(event) => chooseEditor(event.currentTarget.value)}
              data={usable.map(({ id }) => id)}
            />
            {kinds.length > 1 && (
              <NativeSelect
                label="Trained on"
                value={weights}
                onChange={(event) => chooseWeights(event.currentTarget.value)}
                data={kinds.map((value) => ({
                  value,
                  label: value === 'vqa' ? 'questions' : value === 'caption' ? 'captions' : value,
                }))}
              />
            )}
            <TextInput
              label="Kept in the set"
              value={setName}
              onChange={(event) => nameSet(event.currentTarget.value)}
              error={valid ? undefined : 'Small letters, digits, . _ and -'}
            />
          </Group>
          <Text size="sm" c="dimmed" mt="xs">
            {editor?.summary} The model itself is never changed: a correction is kept beside it and can be switched off.
          </Text>
        </details>
      </Stack>
    </form>
  );
}
