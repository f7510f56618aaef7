/** Compare: one question and picture to several models, with corrections or without; answers and maps side by side. */
import { Checkbox, Group, NativeSelect, Text } from '@mantine/core';
import { useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import type { Progress } from '../../api/client.ts';
import { usePicture } from '../../api/pictures.ts';
import { useAnswer, useMaps, useModels, useReasons, useSets } from '../../api/queries.ts';
import { address, alter, usePlace } from '../../app/location.ts';
import { Link } from '../../app/shell.tsx';
import { fromPrompt, useSubject } from '../../app/subject.ts';
import { ColourScale, endsOf, HeatMap } from '../../parts/heat-map.tsx';
import { Thumb } from '../../parts/picture-box.tsx';
import { BothWays, Empty, Failed, Waiting } from '../../parts/states.tsx';
import { Tokens } from '../../parts/tokens.tsx';
import { tokenText } from '../../parts/words.ts';
import { explainLens, explainMaps, loudestLayer } from '../why/explain.ts';

export function Compare() {
  const { picture, prompt } = useSubject();
  const { params } = usePlace();
  const models = useModels();
  const all = models.data?.map(({ id }) => id) ?? [];
  const named = params.get('models')?.split(',').filter(Boolean);
  const chosen = named ?? all.slice(0, 2);
  if (prompt === undefined)
    return (
      <Empty title="Nothing is asked yet">
        Several models answer one question. <Link to={address('/ask')}>Ask something first</Link>.
      </Empty>
    );
  return (
    <div className="compare">
      <div className="intro">
        <h1>Compare models</h1>
        <p>The same question and picture to several models, with the corrections of a set or without.</p>
      </div>
      <section className="card" aria-label="What is asked">
        <div className="subject">
          {picture !== undefined && <Thumb picture={picture} size={72} label="The picture" />}
          <div className="subject-words">
            <Text fw={600}>{fromPrompt(prompt)}</Text>
            <Link to={address('/ask')}>another question</Link>
          </div>
        </div>
        {models.isError && (
          <Failed what="The models cannot be listed." error={models.error} retry={() => void models.refetch()} />
        )}
        <fieldset className="choices">
          <legend>Models</legend>
          {all.map((id) => (
            <Checkbox
              key={id}
              label={id}
              checked={chosen.includes(id)}
              onChange={(event) => {
                const on = event.currentTarget.checked;
                alter({ models: (on ? [...chosen, id] : chosen.filter((one) => one !== id)).join(',') || 'none' });
              }}
            />
          ))}
        </fieldset>
        {all.length === 1 && (
          <Text size="sm" c="dimmed">
            This server has one model. Start it with “--model” several times to compare them.
          </Text>
        )}
      </section>
      <div className="side">
        {models.data
          ?.filter(({ id }) => chosen.includes(id))
          .map(({ id, visedit }) => (
            <Answering key={id} reference={id} bothWays={visedit.both_ways} picture={picture} prompt={prompt} />
          ))}
      </div>
    </div>
  );
}

interface AnsweringProps {
  reference: string;
  bothWays: boolean;
  picture: string | undefined;
  prompt: string;
}

function Answering({ reference, bothWays, picture, prompt }: AnsweringProps) {
  const [base, set] = reference.split('@') as [string, string?];
  const sets = useSets(base);
  const revision = set === undefined ? 0 : (sets.data?.find(({ name }) => name === set)?.revision ?? 0);
  const ready = set === undefined || sets.isSuccess;
  const question = ready ? { model: reference, prompt, ...(picture === undefined ? {} : { image: picture }) } : undefined;
  const answer = useAnswer(question, revision);
  const tokens = answer.data?.tokens ?? [];
  const [chosen, choose] = useState(0);
  const position = Math.min(chosen, Math.max(0, tokens.length - 1));
  const why =
    question === undefined || answer.data?.finished !== true || tokens.length === 0
      ? undefined
      : { ...question, answer: tokens.map(({ id }) => id), position };
  const reasons = useReasons(why, revision);
  const found = reasons.data;
  return (
    <section className="card" aria-label={reference}>
      <Group justify="space-between" align="flex-start" wrap="nowrap">
        <h2>{reference}</h2>
        <Link to={address('/why', { model: base, set, token: position })} className="button">
          Why?
        </Link>
      </Group>
      {answer.isError ? (
        <Failed what="There is no answer." error={answer.error} retry={() => void answer.refetch()} />
      ) : (
        <Tokens tokens={tokens} writing={answer.isFetching} selected={position} onSelect={choose} />
      )}
      {reasons.isError && (
        <Failed what="The layers cannot be shown." error={reasons.error} retry={() => void reasons.refetch()} />
      )}
      {found?.lens && (
        <Text size="sm" my="xs">
          {explainLens(found.key, found.lens)}
        </Text>
      )}
      {bothWays && <BothWays />}
      {picture !== undefined && why !== undefined && (
        <MapOf
          question={why}
          picture={picture}
          revision={revision}
          loudest={found?.modules && loudestLayer(found.layers, found.modules.contribution)}
          word={tokenText(tokens[position]?.text ?? '')}
        />
      )}
    </section>
  );
}

interface MapProps {
  question: NonNullable<Parameters<typeof useMaps>[0]>;
  picture: string;
  revision: number;
  loudest: number | undefined;
  word: string;
}

function MapOf({ question, picture, revision, loudest, word }: MapProps) {
  const [progress, setProgress] = useState<Progress>();
  const maps = useMaps(question, revision, setProgress);
  const image = usePicture(picture);
  const client = useQueryClient();
  const [chosen, choose] = useState<number>();
  const visual = maps.data?.visual;
  if (maps.isError) return <Failed what="The heat map cannot be made." error={maps.error} retry={() => void maps.refetch()} />;
  if (visual === undefined || image.data === undefined)
    return (
      <Waiting
        what="Where it looks"
        query={maps}
        progress={progress}
        stop={() => void client.cancelQueries({ queryKey: ['maps', question] })}
      />
    );
  const map = visual.layers.find(({ layer }) => layer === (chosen ?? loudest)) ?? visual.layers.at(-1)!;
  const ends = endsOf(map.patches);
  return (
    <>
      <HeatMap
        picture={image.data}
        grid={visual.grid}
        seen={visual.seen}
        values={map.carries_weight ? map.patches : undefined}
        ends={ends}
        label={`${question.model}: heat map of layer ${map.layer} for ${word}`}
      />
      <Group justify="space-between" align="flex-end" mt="xs">
        <NativeSelect
          size="xs"
          label="Layer"
          value={String(map.layer)}
          onChange={(event) => choose(Number(event.currentTarget.value))}
          data={visual.layers.map(({ layer }) => ({
            value: String(layer),
            label: layer === loudest ? `${layer}, whose attention speaks loudest` : String(layer),
          }))}
        />
        <ColourScale ends={ends} title="Turn of this layer’s output" />
      </Group>
      <Text size="sm" mt="xs">
        {explainMaps(visual, map.layer)}
      </Text>
    </>
  );
}
