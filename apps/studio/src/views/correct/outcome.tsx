/** All five kinds of query, before and after, side by side. */
import { Group, Text } from '@mantine/core';
import { beforeAfter } from 'visedit/figures';
import { fetchPicture } from '../../api/pictures.ts';
import type { ComparedQuery, Comparison } from '../../api/types.ts';
import { fromPrompt } from '../../app/subject.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { Thumb } from '../../parts/picture-box.tsx';
import { Tokens } from '../../parts/tokens.tsx';
import { kindTitles } from '../../parts/words.ts';
import type { FiveQuery } from './five.ts';

interface OutcomeProps {
  comparison: Comparison;
  five: readonly FiveQuery[];
  target: string;
  edit: { picture: string; prompt: string };
  title: string;
}

/** As it should be: the target where it must change, the same answer where it must not. */
const good = ({ passed, same }: ComparedQuery): boolean => passed ?? same;

const verdict = ({ passed, same }: ComparedQuery): string => {
  if (passed === null) return same ? '✓ unchanged, as it should be' : '✗ changed, and should not be';
  return passed ? '✓ as it should be' : '✗ not the target';
};

export function Outcome({ comparison: { queries, before, after }, five, target, edit, title }: OutcomeProps) {
  const right = queries.filter(good).length;
  const figure = async () =>
    beforeAfter({
      title: 'One correction, five kinds of query',
      edit: { image: (await fetchPicture(edit.picture)).pixels, prompt: edit.prompt, target },
      rows: await Promise.all(
        queries.map(async (query, i) => {
          const picture = five[i]!.picture;
          return {
            kind: kindTitles[query.kind]!.what,
            wanted: kindTitles[query.kind]!.wanted,
            ...(picture === undefined ? {} : { image: (await fetchPicture(picture)).pixels }),
            prompt: query.prompt,
            before: query.before.text,
            after: query.after.text,
            passed: good(query),
          };
        }),
      ),
    });
  return (
    <section className="card" aria-label="Before and after">
      <Group justify="space-between" align="flex-start" wrap="nowrap">
        <h2>
          {title}{' '}
          <span className="beside">
            {right} of {queries.length} as they should be
          </span>
        </h2>
        <ExportMenu
          name="before-after"
          svg={figure}
          csv={() => ({
            head: ['kind', 'prompt', 'target', 'before', 'after', 'as it should be'],
            rows: queries.map((query) => [
              query.kind,
              query.prompt,
              query.target,
              query.before.text,
              query.after.text,
              good(query),
            ]),
          })}
          json={() => ({ before, after, target, queries })}
        />
      </Group>
      <table className="outcome" aria-label="Five queries before and after">
        <thead>
          <tr className="outcome-head">
            <th scope="col">Query</th>
            <th scope="col">Before</th>
            <th scope="col">After</th>
          </tr>
        </thead>
        <tbody>
          {queries.map((query, i) => {
            const { title: name, wanted } = kindTitles[query.kind]!;
            return (
              <tr key={query.kind} className="outcome-row" data-good={good(query)} data-kind={query.kind}>
                <td>
                  <div className="outcome-query">
                    <Thumb picture={five[i]!.picture ?? null} />
                    <div>
                      <Text size="sm" c="dimmed">
                        {name}: <b>{wanted}</b>
                      </Text>
                      <Text size="sm">{fromPrompt(query.prompt)}</Text>
                    </div>
                  </div>
                </td>
                <td className="outcome-answer">
                  <span className="small-label">Before</span>
                  <Tokens tokens={query.before.tokens} />
                </td>
                <td className="outcome-answer">
                  <span className="small-label">After</span>
                  <Tokens tokens={query.after.tokens} />
                  <span className="verdict">{verdict(query)}</span>
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </section>
  );
}
