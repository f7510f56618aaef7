/** Logit lens: what the model would say if it had to speak after each layer. */
import { Group, Text } from '@mantine/core';
import { useRef } from 'react';
import type { KeyToken, LensLayer } from '../../api/types.ts';
import { alter, usePlace } from '../../app/location.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { focus, useFocusMark } from '../../parts/focus.ts';
import { percent, tokenText } from '../../parts/words.ts';

export function Lens({ keyToken, lens }: { keyToken: KeyToken; lens: readonly LensLayer[] }) {
  const rows = useRef(new Map<number, HTMLTableRowElement>());
  const { params } = usePlace();
  const selected = params.get('layer');
  useFocusMark(({ layer }) => {
    for (const [number, row] of rows.current) row.classList.toggle('pointed', number === layer);
  });
  const columns = Math.min(4, Math.max(0, ...lens.map(({ tokens }) => tokens.length)));
  return (
    <section className="card" aria-label="What it would say after each layer">
      <Group justify="space-between" align="flex-start" wrap="nowrap">
        <h2>What it would say after each layer</h2>
        <ExportMenu
          name="logit-lens"
          csv={() => ({
            head: ['layer', 'rank', 'token', 'id', 'probability'],
            rows: lens.flatMap(({ layer, tokens }) =>
              tokens.map(({ id, text, probability }, i) => [layer, i + 1, text, id, probability]),
            ),
          })}
          json={() => ({ key: keyToken, lens })}
        />
      </Group>
      <Text size="sm" c="dimmed" mb="xs">
        Read from the top: the last line is the answer. The more colour a cell has, the higher its probability. The word asked
        about has a frame.
      </Text>
      <div className="scroll" tabIndex={0} role="region" aria-label="Logit lens">
        <table className="lens">
          <thead>
            <tr>
              <th scope="col">Layer</th>
              {Array.from({ length: columns }, (_, i) => (
                <th scope="col" key={i + 1}>
                  {i + 1}.
                </th>
              ))}
              <th scope="col" className="number">
                Its rank
              </th>
            </tr>
          </thead>
          <tbody>
            {lens.map(({ layer, tokens, key_rank }) => (
              <tr
                key={layer}
                ref={(row) => {
                  if (row) rows.current.set(layer, row);
                  else rows.current.delete(layer);
                }}
                aria-current={String(layer) === selected}
                onPointerEnter={() => focus.setState({ layer })}
                onPointerLeave={() => focus.setState({ layer: undefined })}
              >
                <th scope="row">
                  <button
                    type="button"
                    onClick={() => alter({ layer })}
                    onFocus={() => focus.setState({ layer })}
                    onBlur={() => focus.setState({ layer: undefined })}
                    aria-label={`Layer ${layer}: show on the picture`}
                  >
                    {layer}
                  </button>
                </th>
                {tokens.slice(0, columns).map(({ id, text, probability }) => (
                  <td key={id} data-key={id === keyToken.id}>
                    <span className="lens-cell" style={{ '--p': probability } as React.CSSProperties}>
                      <span>{tokenText(text)}</span> <small>{percent(probability)}</small>
                    </span>
                  </td>
                ))}
                <td className="number">{key_rank + 1}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
