/** What should change and what should not: the five queries, to be looked at and written anew. */
import { Button, Textarea } from '@mantine/core';
import { useEffect, useState } from 'react';
import { alter } from '../../app/location.ts';
import { PictureDrop } from '../../parts/picture-box.tsx';
import { kindTitles } from '../../parts/words.ts';
import { type FiveQuery, hasPicture, pictureName, promptName } from './five.ts';

export function FiveForm({ five, suggested }: { five: readonly FiveQuery[]; suggested: readonly FiveQuery[] }) {
  const changed = five.some(({ prompt, picture }, i) => prompt !== suggested[i]!.prompt || picture !== suggested[i]!.picture);
  return (
    <details className="card five">
      <summary>
        <h2>What should change, and what should not</h2>
        <span className="beside">five queries, yours to change</span>
      </summary>
      <div className="five-grid">
        {five.map((query, i) => (
          <OneQuery key={query.kind} query={query} suggested={suggested[i]!} />
        ))}
      </div>
      {changed && (
        <Button
          size="xs"
          variant="default"
          mt="sm"
          onClick={() =>
            alter(
              Object.fromEntries(
                five.flatMap(({ kind }) => [promptName(kind), pictureName(kind)].map((name) => [name, undefined])),
              ),
            )
          }
        >
          Back to the suggestions
        </Button>
      )}
    </details>
  );
}

function OneQuery({ query: { kind, prompt, picture }, suggested }: { query: FiveQuery; suggested: FiveQuery }) {
  const [text, write] = useState(prompt);
  useEffect(() => write(prompt), [prompt]);
  const { title, wanted } = kindTitles[kind]!;
  const fixed = kind === 'reliability';
  const keep = () => alter({ [promptName(kind)]: text === suggested.prompt ? undefined : text });
  return (
    <div className="one-query">
      <h3>{title}</h3>
      <p className="beside">{wanted}</p>
      {hasPicture(kind) ? (
        <PictureDrop
          small
          picture={picture}
          label={`${title}: picture`}
          onPicture={(reference) => alter({ [pictureName(kind)]: reference })}
        />
      ) : (
        <div className="drop none" data-small="true">
          <p className="drop-hint">no picture</p>
        </div>
      )}
      <Textarea
        aria-label={`${title}: question`}
        autosize
        minRows={2}
        size="xs"
        readOnly={fixed}
        value={text}
        onChange={(event) => write(event.currentTarget.value)}
        onBlur={keep}
      />
    </div>
  );
}
