/** Two corrections side by side: the same questions asked of the model as it is, under the one and under the other. */
import { Group, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { job } from '../../api/client.ts';
import type { Comparison, Edit, QueryKind } from '../../api/types.ts';
import { fromPrompt } from '../../app/subject.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { Thumb } from '../../parts/picture-box.tsx';
import { Failed, Working } from '../../parts/states.tsx';
import { Tokens } from '../../parts/tokens.tsx';
import { useSuggestions } from '../correct/five.ts';

interface Asked {
  title: string;
  prompt: string;
  image: string | undefined;
}

export function CompareTwo({ base, pair: [a, b] }: { base: string; pair: readonly [Edit, Edit] }) {
  const around = useSuggestions({ base, picture: a.picture ?? undefined, prompt: a.prompt } as Parameters<
    typeof useSuggestions
  >[0]);
  const other = (kind: QueryKind, title: string): Asked[] =>
    around.data?.filter((one) => one.kind === kind).map(({ prompt, picture }) => ({ title, prompt, image: picture })) ?? [];
  const asked: Asked[] = [
    { title: 'What A corrects', prompt: a.prompt, image: a.picture ?? undefined },
    { title: 'What B corrects', prompt: b.prompt, image: b.picture ?? undefined },
    ...other('textGenerality', 'What A corrects, in other words'),
    ...other('textLocality', 'A fact, without a picture'),
    ...other('modalLocality', 'Something else, another picture'),
  ];
  const ready = around.isSuccess || around.isError;
  const under = (edit: Edit) => ({
    before: base,
    after: `${base}@${edit.id}`,
    queries: asked.map(({ title, prompt, image }) => ({
      kind: title.slice(0, 64),
      prompt,
      ...(image === undefined ? {} : { image }),
    })),
  });
  const useUnder = (edit: Edit) =>
    useQuery({
      queryKey: ['comparison', under(edit)],
      queryFn: ({ signal }) => job<Comparison>('/v1/comparisons', under(edit), { signal }),
      enabled: ready,
      staleTime: Number.POSITIVE_INFINITY,
    });
  const [first, second] = [useUnder(a), useUnder(b)];
  const error = first.error ?? second.error;
  return (
    <section className="card" aria-label="Two corrections compared">
      <Group justify="space-between" align="flex-start" wrap="nowrap">
        <h2>
          A “{a.target}” and B “{b.target}” <span className="beside">each alone, whether it is on or off</span>
        </h2>
        {first.data && second.data && (
          <ExportMenu
            name="two-corrections"
            csv={() => ({
              head: ['question', 'prompt', 'without', 'under A', 'under B'],
              rows: asked.map(({ title, prompt }, i) => [
                title,
                prompt,
                first.data.queries[i]!.before.text,
                first.data.queries[i]!.after.text,
                second.data.queries[i]!.after.text,
              ]),
            })}
            json={() => ({ a, b, underA: first.data, underB: second.data })}
          />
        )}
      </Group>
      {error ? (
        <Failed what="The two cannot be compared." error={error} />
      ) : first.data === undefined || second.data === undefined ? (
        <Working what="Asking under each of them" />
      ) : (
        <table className="outcome four" aria-label="Answers under two corrections">
          <thead>
            <tr className="outcome-head">
              <th scope="col">Query</th>
              <th scope="col">Without</th>
              <th scope="col">Under A</th>
              <th scope="col">Under B</th>
            </tr>
          </thead>
          <tbody>
            {asked.map(({ title, prompt, image }, i) => {
              const answers = [first.data.queries[i]!.before, first.data.queries[i]!.after, second.data.queries[i]!.after];
              return (
                <tr key={title} className="outcome-row">
                  <td>
                    <div className="outcome-query">
                      <Thumb picture={image ?? null} />
                      <div>
                        <Text size="sm" c="dimmed">
                          {title}
                        </Text>
                        <Text size="sm">{fromPrompt(prompt)}</Text>
                      </div>
                    </div>
                  </td>
                  {answers.map((answer, column) => (
                    <td key={['without', 'a', 'b'][column]} className="outcome-answer">
                      <span className="small-label">{['Without', 'Under A', 'Under B'][column]}</span>
                      <Tokens tokens={answer.tokens} />
                    </td>
                  ))}
                </tr>
              );
            })}
          </tbody>
        </table>
      )}
    </section>
  );
}
