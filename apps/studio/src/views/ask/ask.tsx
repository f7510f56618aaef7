/** Ask: a picture, a question, and the answer as it is written, word by word with its probability. */
import { Button, Group, Skeleton, Stack, Text, Textarea } from '@mantine/core';
import { useQueryClient } from '@tanstack/react-query';
import { type KeyboardEvent, useEffect, useState } from 'react';
import { maxTokens } from '../../api/ask.ts';
import { useDatasets, useModels, useRecords } from '../../api/queries.ts';
import type { DataRecord } from '../../api/types.ts';
import { address, alter, go } from '../../app/location.ts';
import { fromPrompt, toPrompt, useSubject, useSubjectAnswer } from '../../app/subject.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { ModelChoice } from '../../parts/model-choice.tsx';
import { PictureDrop, Thumb } from '../../parts/picture-box.tsx';
import { Failed } from '../../parts/states.tsx';
import { Tokens } from '../../parts/tokens.tsx';

export function Ask() {
  const subject = useSubject();
  const { picture, prompt } = subject;
  const models = useModels();
  const [text, write] = useState(fromPrompt(prompt ?? ''));
  useEffect(() => write(fromPrompt(prompt ?? '')), [prompt]);
  const asked = toPrompt(text);
  const ask = (question = text) => {
    if (question.trim() !== '') alter({ prompt: toPrompt(question) }, { replace: false });
  };
  const enter = (event: KeyboardEvent) => {
    if (event.key !== 'Enter' || event.shiftKey) return;
    event.preventDefault();
    ask();
  };
  return (
    <div className="ask">
      <div className="intro">
        <h1>Ask about a picture</h1>
        <p>
          The model answers word by word. Click a word to see <b>why</b> it was said: which layers spoke for it and where in the
          picture they looked. If the answer is wrong, <b>correct</b> it without retraining.
        </p>
      </div>
      {models.isError && <Failed what="The models cannot be listed." error={models.error} retry={() => void models.refetch()} />}
      <div className="two">
        <section className="card" aria-label="Picture">
          <PictureDrop
            picture={picture}
            paste
            label="The picture"
            onPicture={(reference) => alter({ picture: reference }, { replace: false })}
          />
          <Samples current={picture} />
        </section>
        <section className="card" aria-label="Question and answer">
          <Stack gap="md">
            <Textarea
              label="Your question"
              placeholder="What is at the top left?"
              autosize
              minRows={2}
              value={text}
              onChange={(event) => write(event.currentTarget.value)}
              onKeyDown={enter}
              data-question
              description={
                asked.endsWith(':') && asked !== text.trim()
                  ? `Asked as: ${asked}`
                  : 'As short and plain as you would ask a child.'
              }
            />
            <Group align="flex-end" gap="sm">
              <ModelChoice subject={subject} />
              <Button onClick={() => ask()} disabled={text.trim() === ''}>
                Ask
              </Button>
            </Group>
            <AnswerPart />
          </Stack>
        </section>
      </div>
    </div>
  );
}

function AnswerPart() {
  const subject = useSubject();
  const answer = useSubjectAnswer(subject);
  const client = useQueryClient();
  if (subject.question === undefined)
    return <Text c="dimmed">Choose one of the pictures, or drop your own, and ask something about it.</Text>;
  const tokens = answer.data?.tokens ?? [];
  const writing = answer.isFetching;
  const words = tokens
    .map(({ text }) => text)
    .join('')
    .trim();
  return (
    <div className="answer">
      <Group justify="space-between" mb="xs">
        <h2>Answer</h2>
        {writing ? (
          <Button size="xs" variant="default" onClick={() => void client.cancelQueries({ queryKey: ['answer'] })}>
            Cancel
          </Button>
        ) : (
          answer.data && (
            <ExportMenu
              name="answer"
              csv={() => ({
                head: ['token', 'id', 'probability'],
                rows: tokens.map(({ text, id, probability }) => [text, id, probability]),
              })}
              json={() => ({ ...subject.question, answer: words, tokens })}
            />
          )
        )}
      </Group>
      {answer.isError ? (
        <Failed what="There is no answer." error={answer.error} retry={() => void answer.refetch()} />
      ) : (
        <>
          <div role="status" aria-live="polite" className="unseen">
            {writing ? '' : words}
          </div>
          <Tokens tokens={tokens} writing={writing} onSelect={(token) => go(address('/why', { token }))} />
          {answer.data?.cut && (
            <Text c="dimmed" mt="xs">
              The answer is longer: it was cut after {maxTokens} tokens.
            </Text>
          )}
          {!writing && tokens.length === 0 && <Text c="dimmed">The model says nothing at all to this.</Text>}
          {!writing && tokens.length > 0 && (
            <Group mt="lg">
              <Button variant="light" onClick={() => go(address('/why', { token: 0 }))}>
                Why this answer?
              </Button>
              <Button variant="default" onClick={() => go(address('/correct'))}>
                It is wrong: correct it
              </Button>
            </Group>
          )}
        </>
      )}
    </div>
  );
}

/** Pictures to begin with: scenes of the first data set, each with its question. */
function Samples({ current }: { current: string | undefined }) {
  const datasets = useDatasets();
  const dataset = datasets.data?.find(({ kind }) => kind === 'vqa') ?? datasets.data?.[0];
  const records = useRecords(dataset?.id, { offset: 0, limit: 40 });
  if (datasets.isError || records.isError) return null;
  const seen = new Set<string>();
  const shown = (records.data?.data ?? [])
    .filter(({ request }) => !seen.has(request.image) && seen.add(request.image))
    .slice(0, 12);
  const choose = ({ request }: DataRecord) => alter({ picture: request.image, prompt: request.prompt }, { replace: false });
  return (
    <div className="samples">
      <Text size="sm" c="dimmed">
        Or begin with one of these
      </Text>
      <div className="sample-grid">
        {records.data === undefined
          ? Array.from({ length: 12 }, (_, i) => i).map((i) => <Skeleton key={i} style={{ aspectRatio: 1 }} />)
          : shown.map((record) => (
              <button
                key={record.index}
                type="button"
                onClick={() => choose(record)}
                aria-pressed={record.request.image === current}
                title={fromPrompt(record.request.prompt)}
                aria-label={`Sample picture: ${fromPrompt(record.request.prompt)}`}
              >
                <Thumb picture={record.request.image} />
              </button>
            ))}
      </div>
    </div>
  );
}
