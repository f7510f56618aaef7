/** Whether a correction took when it was made, and its scope card: the questions around it, without it and with it. */
import { Text } from '@mantine/core';
import type { Edit } from '../../api/types.ts';
import { fromPrompt } from '../../app/subject.ts';
import { kindTitles } from '../../parts/words.ts';

export function ScopeCard({ edit: { took, after, card = [], warnings } }: { edit: Edit }) {
  const right = card.filter(({ ok }) => ok).length;
  return (
    <>
      {took === false && (
        <Text size="sm" c="var(--bad)">
          Did not take: the corrected model answers “{after?.text}”. Try another editor, or other words.
        </Text>
      )}
      {card.length > 1 && (
        <details className="scope-card">
          <summary>
            {took ? 'Took; ' : ''}
            {right} of {card.length} questions around it as expected
          </summary>
          <ul>
            {card.map(({ kind, prompt, expected, before, after: now, ok }, i) => (
              // A card has no other name for its rows than their places.
              <li key={`${i} ${kind}`} data-ok={ok}>
                <b>
                  {ok ? '✓' : '✗'} {kindTitles[kind]?.title ?? kind}
                </b>
                <br />
                {fromPrompt(prompt)} {before === now ? now : `${before} → ${now}`}
                {ok ? '' : `; expected: ${expected}`}
              </li>
            ))}
          </ul>
          <Text size="xs" c="dimmed">
            Asked when the correction was made, under it alone.
          </Text>
        </details>
      )}
      {warnings.map((warning) => (
        <Text key={warning} size="xs" c="var(--bad)">
          {warning}
        </Text>
      ))}
    </>
  );
}
