/** Why: for one word of the answer, which layers spoke for it and where in the picture they looked. */
import { NativeSelect, Text } from '@mantine/core';
import { useHotkeys } from '@mantine/hooks';
import { useQueries, useQueryClient } from '@tanstack/react-query';
import { useEffect, useMemo, useState } from 'react';
import { job, type Progress } from '../../api/client.ts';
import { mapsKey, useReasons, type WhyQuestion } from '../../api/queries.ts';
import type { Attribution, VisualMaps } from '../../api/types.ts';
import { address, alter, usePlace } from '../../app/location.ts';
import { Link } from '../../app/shell.tsx';
import { useSubject, useSubjectAnswer } from '../../app/subject.ts';
import { clearFocus } from '../../parts/focus.ts';
import { Empty, Failed, Working } from '../../parts/states.tsx';
import { SubjectCard } from '../../parts/subject-card.tsx';
import { percent, tokenText } from '../../parts/words.ts';
import { explainLens, explainMaps, explainModules, loudestLayer } from './explain.ts';
import { Hiding } from './hiding.tsx';
import { Lens } from './lens.tsx';
import { Looking } from './looking.tsx';
import { Modules } from './modules.tsx';
import { Tools } from './tools.tsx';

/** Maps of more tokens than these are not asked for ahead. */
const linkedTokens = 8;

export function Why() {
  const subject = useSubject();
  const answer = useSubjectAnswer(subject);
  const { params } = usePlace();
  const tokens = answer.data?.tokens;
  const finished = answer.data?.finished === true;
  const position = Math.min(Math.max(0, Number(params.get('token') ?? 0) || 0), Math.max(0, (tokens?.length ?? 1) - 1));
  const token = tokens?.[position];
  const key = params.get('key') === null ? undefined : Number(params.get('key'));
  const ids = useMemo(() => tokens?.map(({ id }) => id) ?? [], [tokens]);

  const question: WhyQuestion | undefined =
    subject.question === undefined || !finished || token === undefined
      ? undefined
      : { ...subject.question, answer: ids, position, key };
  const reasons = useReasons(question, subject.revision);
  const maps = useTokenMaps(question, ids.length, position, subject.revision);

  const loudest = reasons.data?.modules && loudestLayer(reasons.data.layers, reasons.data.modules.contribution);

  useEffect(() => clearFocus, []);
  const choose = (next: number) => alter({ token: next, key: undefined });
  useHotkeys([
    ['ArrowLeft', () => position > 0 && choose(position - 1)],
    ['ArrowRight', () => position < ids.length - 1 && choose(position + 1)],
  ]);

  if (subject.prompt === undefined)
    return (
      <Empty title="Nothing is asked yet">
        Why is about one answer. <Link to={address('/ask')}>Ask something first</Link>, then click a word of the answer.
      </Empty>
    );
  const shareOf = (at: number, cell: number): number | undefined => {
    const visual = maps.visual[at];
    if (visual === undefined) return undefined;
    const layer = Number(params.get('layer') ?? loudest);
    const map = visual.layers.find((one) => one.layer === layer) ?? visual.layers.at(-1)!;
    const total = map.patches.reduce((sum, value) => sum + value, 0);
    return total > 0 ? (map.patches[cell] ?? 0) / total : 0;
  };
  const found = reasons.data;
  const selectedMaps = maps.visual[position];
  return (
    <div className="why">
      <h1 className="unseen">Why this answer</h1>
      <SubjectCard
        subject={subject}
        tokens={tokens}
        writing={answer.isFetching}
        selected={position}
        onSelect={choose}
        shareOf={subject.picture === undefined ? undefined : shareOf}
      />
      {answer.isError && (
        <Failed what="There is no answer to explain." error={answer.error} retry={() => void answer.refetch()} />
      )}
      {finished && tokens?.length === 0 && <Text>The model said nothing, so there is nothing to explain.</Text>}
      {reasons.isError && (
        <Failed what="The layers cannot be shown." error={reasons.error} retry={() => void reasons.refetch()} />
      )}
      {token !== undefined && (
        <section className="card explain" aria-label="In words">
          <h2>
            Why “{tokenText(found?.key.text ?? token.text)}”?{' '}
            <span className="beside">{found ? percent(found.key.probability) : ''}</span>
          </h2>
          {found?.modules && found.lens ? (
            <ul>
              <li>{explainLens(found.key, found.lens)}</li>
              <li>{explainModules(found.key, found.layers, found.modules.contribution)}</li>
              {selectedMaps && loudest !== undefined && <li>{explainMaps(selectedMaps, loudest)}</li>}
            </ul>
          ) : (
            !reasons.isError && <Working what="Reading every layer" />
          )}
          <NativeSelect
            className="key-choice"
            size="xs"
            label="Explain another word the model could have said here"
            value={String(key ?? token.id)}
            onChange={(event) =>
              alter({ key: Number(event.currentTarget.value) === token.id ? undefined : event.currentTarget.value })
            }
            data={token.top.map((other) => ({
              value: String(other.id),
              label: `${tokenText(other.text)} (${percent(other.probability)})${other.id === token.id ? ', said' : ''}`,
            }))}
          />
        </section>
      )}
      {question !== undefined && (
        <div className="two even">
          {subject.picture !== undefined && (
            <div className="column">
              <Looking
                bothWays={subject.model?.visedit.both_ways === true}
                picture={subject.picture}
                maps={maps}
                loudest={loudest}
                position={position}
                words={tokens?.map(({ text }) => tokenText(text)) ?? []}
              />
              <Hiding
                question={question}
                picture={subject.picture}
                tokens={tokens ?? []}
                keyToken={found?.key}
                revision={subject.revision}
              />
            </div>
          )}
          <div className="column">
            {found?.modules && <Modules found={found} modules={found.modules} />}
            {found?.lens && <Lens keyToken={found.key} lens={found.lens} />}
            <Tools question={question} model={subject.model} revision={subject.revision} />
          </div>
        </div>
      )}
    </div>
  );
}

export interface TokenMaps {
  /** By position in the answer; undefined where not known yet. */
  visual: readonly (VisualMaps | undefined)[];
  error: unknown;
  refetch: () => void;
  isFetching: boolean;
  progress: Progress | undefined;
  stop: () => void;
}

/** Maps of the chosen token first; those of its neighbours after it, so that a patch shows what it is to each of them. */
function useTokenMaps(question: WhyQuestion | undefined, count: number, position: number, revision: number): TokenMaps {
  const client = useQueryClient();
  const [progress, setProgress] = useState<Progress>();
  const results = useQueries({
    queries: Array.from({ length: count }, (_, at) => ({
      ...mapsQuery(question, at, revision, setProgress),
      enabled: question?.image !== undefined && at === position,
    })),
  });
  const chosen = results[position];
  const rest = useQueries({
    queries: Array.from({ length: Math.min(count, linkedTokens) }, (_, at) => ({
      ...mapsQuery(question, at, revision),
      enabled: question?.image !== undefined && chosen?.isSuccess === true && at !== position,
    })),
  });
  return {
    visual: results.map((result, at) => result.data?.visual ?? rest[at]?.data?.visual),
    error: chosen?.error ?? undefined,
    refetch: () => void chosen?.refetch(),
    isFetching: chosen?.isFetching ?? false,
    progress,
    stop: () => void client.cancelQueries({ queryKey: ['maps'] }),
  };
}

function mapsQuery(
  question: WhyQuestion | undefined,
  at: number,
  revision: number,
  onProgress: (progress: Progress) => void = () => {},
) {
  const own = question === undefined ? undefined : { ...question, position: at, key: undefined };
  return {
    queryKey: mapsKey(own, revision),
    queryFn: ({ signal }: { signal: AbortSignal }) => {
      const { model, image, prompt, answer, position } = own!;
      const body = { model, image, prompt, answer, position, parts: ['visual'] };
      return job<Attribution>('/v1/attributions', body, { signal, onProgress });
    },
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 30 * 60_000,
  };
}
