/** Chat: a conversation with roles and pictures in any turn, and the answer to it. What was asked stands in the address behind `#`. */
import { Alert, Button, CloseButton, Group, NativeSelect, Text, Textarea } from '@mantine/core';
import { useHash } from '@mantine/hooks';
import { useQueryClient } from '@tanstack/react-query';
import { type KeyboardEvent, useEffect, useRef, useState } from 'react';
import { maxTokens, roles, type Turn } from '../../api/ask.ts';
import { useReply } from '../../api/queries.ts';
import type { Model } from '../../api/types.ts';
import { useSubject } from '../../app/subject.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { ModelChoice } from '../../parts/model-choice.tsx';
import { PictureDrop } from '../../parts/picture-box.tsx';
import { Failed } from '../../parts/states.tsx';
import { Tokens } from '../../parts/tokens.tsx';

const begin: readonly Turn[] = [{ role: 'user', text: '', pictures: [] }];
/** As it was left when another view was opened. */
let left: readonly Turn[] = begin;

function readTurns(hash: string): readonly Turn[] | undefined {
  try {
    const turns = JSON.parse(decodeURIComponent(hash.slice(1))) as Turn[];
    const right = ({ role, text, pictures }: Turn): boolean =>
      roles.includes(role) && typeof text === 'string' && pictures.every((one) => typeof one === 'string');
    return turns.length > 0 && turns.every(right) ? turns : undefined;
  } catch {
    return undefined;
  }
}

export function Chat() {
  const subject = useSubject();
  const [hash, setHash] = useHash({ getInitialValueInEffect: false });
  const asked = readTurns(hash);
  const [turns, write] = useState(asked ?? left);
  useEffect(() => {
    const now = readTurns(hash);
    if (now !== undefined) write(now);
  }, [hash]);
  useEffect(() => {
    left = turns;
  }, [turns]);
  const list = useRef<HTMLOListElement>(null);
  const { reference } = subject;
  const known = subject.set === undefined || subject.sets.length > 0;
  const conversation = asked === undefined || reference === undefined || !known ? undefined : { model: reference, turns: asked };
  const reply = useReply(conversation, subject.revision);
  const client = useQueryClient();
  const facts = subject.model?.visedit.chat;
  const change = (at: number, turn: Partial<Turn>) => write(turns.map((one, i) => (i === at ? { ...one, ...turn } : one)));
  const ready = turns.some(({ text }) => text.trim() !== '');
  const send = () => {
    if (!ready) return;
    setHash(encodeURIComponent(JSON.stringify(turns)));
    if (reply.isError) void reply.refetch();
  };
  const enter = (event: KeyboardEvent) => {
    if (event.key !== 'Enter' || event.shiftKey) return;
    event.preventDefault();
    send();
  };
  const text = (reply.data?.tokens ?? [])
    .map((token) => token.text)
    .join('')
    .trim();
  const goOn = () => {
    write([...(asked ?? []), { role: 'assistant', text, pictures: [] }, begin[0]!]);
    setTimeout(() => [...(list.current?.querySelectorAll('textarea') ?? [])].at(-1)?.focus());
  };
  return (
    <div className="chat">
      <div className="intro">
        <h1>Chat</h1>
        <p>
          A conversation with roles, and pictures in any message of the user. The model’s chat template writes it as one text; the
          model answers next.
        </p>
      </div>
      <section className="card" aria-label="Conversation">
        <Group align="flex-end" gap="sm" mb="sm">
          <ModelChoice subject={subject} />
        </Group>
        {subject.model && <Limits model={subject.model} />}
        <ol ref={list} className="turns">
          {turns.map((turn, at) => (
            // A message has no name but its place.
            <li key={`${at}`} data-role={turn.role}>
              <Group justify="space-between">
                <NativeSelect
                  size="xs"
                  aria-label={`Role of message ${at + 1}`}
                  value={turn.role}
                  onChange={(event) => change(at, { role: event.currentTarget.value as Turn['role'] })}
                  data={roles.filter(
                    (role) =>
                      role === turn.role ||
                      role === 'user' ||
                      (role === 'system' ? facts?.system === true : facts?.turns === true),
                  )}
                />
                {turns.length > 1 && (
                  <CloseButton aria-label={`Remove message ${at + 1}`} onClick={() => write(turns.filter((_, i) => i !== at))} />
                )}
              </Group>
              {turn.role === 'user' && (
                <Pictures
                  turn={turn}
                  at={at}
                  paste={at === turns.findLastIndex(({ role }) => role === 'user')}
                  onPictures={(pictures) => change(at, { pictures })}
                />
              )}
              <Textarea
                aria-label={`Message ${at + 1}, ${turn.role}`}
                autosize
                minRows={1}
                maxRows={12}
                value={turn.text}
                onChange={(event) => change(at, { text: event.currentTarget.value })}
                onKeyDown={enter}
                {...(at === turns.length - 1 ? { 'data-question': true } : {})}
              />
            </li>
          ))}
        </ol>
        <Group gap="sm">
          <Button onClick={send} disabled={!ready}>
            Ask
          </Button>
          <Button variant="default" disabled={!facts?.turns} onClick={() => write([...turns, begin[0]!])}>
            Add a message
          </Button>
          {facts?.system && turns[0]?.role !== 'system' && (
            <Button variant="default" onClick={() => write([{ role: 'system', text: '', pictures: [] }, ...turns])}>
              Add a system message
            </Button>
          )}
          <Button
            variant="default"
            onClick={() => {
              setHash('');
              write(begin);
            }}
          >
            New
          </Button>
        </Group>
      </section>
      {conversation !== undefined && (
        <section className="card" aria-label="Answer">
          <Group justify="space-between" mb="xs">
            <h2>Answer</h2>
            {reply.isFetching ? (
              <Button size="xs" variant="default" onClick={() => void client.cancelQueries({ queryKey: ['answer'] })}>
                Cancel
              </Button>
            ) : (
              reply.data && <ExportMenu name="conversation" json={() => ({ ...conversation, answer: text, ...reply.data })} />
            )}
          </Group>
          {reply.isError ? (
            <Failed what="There is no answer." error={reply.error} retry={() => void reply.refetch()} />
          ) : (
            <>
              <div role="status" aria-live="polite" className="unseen">
                {reply.isFetching ? '' : text}
              </div>
              <Tokens tokens={reply.data?.tokens ?? []} writing={reply.isFetching} />
              {reply.data?.cut && <Text c="dimmed">The answer is longer: it was cut after {maxTokens} tokens.</Text>}
              {!reply.isFetching && reply.data?.tokens.length === 0 && (
                <Text c="dimmed">The model says nothing at all to this.</Text>
              )}
              {!reply.isFetching && facts?.turns && text !== '' && (
                <Button mt="md" variant="light" onClick={goOn}>
                  Go on from this answer
                </Button>
              )}
            </>
          )}
        </section>
      )}
    </div>
  );
}

/** What a model's conversations cannot have. */
function Limits({ model: { id, visedit } }: { model: Model }) {
  const { chat } = visedit;
  if (chat === null)
    return (
      <Alert color="gray" mb="sm">
        {id} has no chat template: it answers single questions, with pictures before the text.
      </Alert>
    );
  const missing = [
    ...(chat.system ? [] : ['a system message']),
    ...(chat.turns ? [] : ['earlier answers']),
    ...(chat.pictures ? [] : ['more than one picture']),
  ];
  if (missing.length === 0) return null;
  return (
    <Alert color="gray" mb="sm">
      The chat template of {id} has no place for {missing.join(', ')}.
    </Alert>
  );
}

interface PicturesProps {
  turn: Turn;
  at: number;
  paste: boolean;
  onPictures: (pictures: readonly string[]) => void;
}

function Pictures({ turn: { pictures }, at, paste, onPictures }: PicturesProps) {
  return (
    <div className="turn-pictures">
      {pictures.map((picture, i) => (
        // The same picture may stand twice.
        <div key={`${i} ${picture}`}>
          <PictureDrop
            small
            picture={picture}
            label={`Message ${at + 1}, picture ${i + 1}`}
            onPicture={(next) => onPictures(pictures.map((one, n) => (n === i ? next : one)))}
          />
          <CloseButton
            size="sm"
            aria-label={`Remove picture ${i + 1} of message ${at + 1}`}
            onClick={() => onPictures(pictures.filter((_, n) => n !== i))}
          />
        </div>
      ))}
      <div>
        <PictureDrop
          small
          paste={paste}
          picture={undefined}
          label={`Message ${at + 1}, another picture`}
          onPicture={(next) => onPictures([...pictures, next])}
        />
      </div>
    </div>
  );
}
