/** A part of the picture is hidden, and the same question asked again: the answer and its probability, before and after. */
import { Button, Group, SegmentedControl, Text } from '@mantine/core';
import { type Region, useHidden, usePicture } from '../../api/pictures.ts';
import { useAnswer, useKeyProbability, type WhyQuestion } from '../../api/queries.ts';
import type { KeyToken, Token } from '../../api/types.ts';
import { address, alter, usePlace } from '../../app/location.ts';
import { Link } from '../../app/shell.tsx';
import { Thumb } from '../../parts/picture-box.tsx';
import { RegionPicker } from '../../parts/region.tsx';
import { Failed, Working } from '../../parts/states.tsx';
import { Tokens } from '../../parts/tokens.tsx';
import { percent, tokenText } from '../../parts/words.ts';

interface HidingProps {
  question: WhyQuestion;
  picture: string;
  tokens: readonly Token[];
  /** the explained word, once its probability is known */
  keyToken: KeyToken | undefined;
  revision: number;
}

/** As it stands in the address: four numbers. */
function readRegion(text: string | null): Region | undefined {
  const [left, top, width, height] = (text ?? '').split(',').map(Number);
  const all = [left, top, width, height];
  if (!all.every((value) => value !== undefined && value >= 0 && value <= 1) || !width || !height) return undefined;
  return all as unknown as Region;
}

/** What lies around a part: above, below, to its left, to its right. */
const around = ([left, top, width, height]: Region): Region[] =>
  (
    [
      [0, 0, 1, top],
      [0, top + height, 1, Math.max(0, 1 - top - height)],
      [0, top, left, height],
      [left + width, top, Math.max(0, 1 - left - width), height],
    ] as const
  ).filter(([, , w, h]) => w > 0 && h > 0);

export function Hiding({ question, picture, tokens, keyToken, revision }: HidingProps) {
  const { params } = usePlace();
  const image = usePicture(picture);
  const region = readRegion(params.get('hide'));
  const by = params.get('by') === 'blur' ? 'blur' : 'grey';
  const rest = params.get('rest') === '1';
  const regions = region === undefined ? [] : rest ? around(region) : [region];
  const hidden = useHidden(picture, regions, by);
  const asked = regions.length === 0 || hidden.data === undefined ? undefined : { ...question, image: hidden.data };
  const answer = useAnswer(asked, revision);
  const probability = useKeyProbability(asked, revision);
  const error = hidden.error ?? answer.error ?? probability.error;
  const retry = () => {
    for (const query of [hidden, answer, probability]) if (query.isError) void query.refetch();
  };
  const word = keyToken === undefined ? '' : tokenText(keyToken.text);
  return (
    <section className="card" aria-label="Hide a part and ask again">
      <h2>Hide a part and ask again</h2>
      <Text size="sm" c="dimmed" mb="xs">
        Drag over a part of the picture, or press an arrow key on it. If the answer hangs on that part, it loses its probability
        when the part is hidden.
      </Text>
      {image.data && (
        <RegionPicker
          picture={image.data}
          region={region}
          label="Part of the picture to hide"
          onRegion={(next) => alter({ hide: next?.join() })}
        />
      )}
      <Group gap="sm" mt="sm">
        <SegmentedControl
          size="xs"
          aria-label="What is hidden"
          value={rest ? 'rest' : 'part'}
          onChange={(value) => alter({ rest: value === 'rest' ? 1 : undefined })}
          data={[
            { value: 'part', label: 'Hide this part' },
            { value: 'rest', label: 'Hide the rest' },
          ]}
        />
        <SegmentedControl
          size="xs"
          aria-label="How it is hidden"
          value={by}
          onChange={(value) => alter({ by: value === 'blur' ? 'blur' : undefined })}
          data={[
            { value: 'grey', label: 'Grey' },
            { value: 'blur', label: 'Blur' },
          ]}
        />
        {region && (
          <Button size="compact-sm" variant="default" onClick={() => alter({ hide: undefined })}>
            Show all
          </Button>
        )}
      </Group>
      {error && <Failed what="The question could not be asked again." error={error} retry={retry} />}
      {regions.length > 0 && !error && (
        <div className="pair">
          <div>
            <h3>Whole picture</h3>
            <Thumb picture={picture} size={72} label="The whole picture" />
            <Tokens tokens={tokens} />
            {keyToken && <Share word={word} probability={keyToken.probability} />}
          </div>
          <div data-hidden>
            <h3>With it hidden</h3>
            <Thumb picture={hidden.data ?? null} size={72} label="The picture with its part hidden" />
            {answer.data === undefined ? (
              <Working what="Asking" />
            ) : (
              <Tokens tokens={answer.data.tokens} writing={answer.isFetching} />
            )}
            {keyToken && <Share word={word} probability={probability.data} />}
            {hidden.data && (
              <Link to={address('/why', { picture: hidden.data, token: 0 })} className="button">
                Why this answer?
              </Link>
            )}
          </div>
        </div>
      )}
    </section>
  );
}

function Share({ word, probability }: { word: string; probability: number | undefined }) {
  return (
    <p className="share">
      “{word}”: <b>{probability === undefined ? '…' : percent(probability)}</b>
    </p>
  );
}
