/** An answer, token by token: the words, a meter and a number for how probable each was. */
import { Popover, Table, Text } from '@mantine/core';
import { useRef, useState } from 'react';
import type { Token } from '../api/types.ts';
import { focus, useFocusMark } from './focus.ts';
import { percent, sureness, tokenText } from './words.ts';

interface TokensProps {
  tokens: readonly Token[];
  /** The answer is still being written. */
  writing?: boolean;
  selected?: number | undefined;
  onSelect?: ((position: number) => void) | undefined;
  /** Share of each token's heat map that a cell has, 0 to 1; undefined where the map is not known yet. */
  shareOf?: ((position: number, cell: number) => number | undefined) | undefined;
}

export function Tokens({ tokens, writing = false, selected, onSelect, shareOf }: TokensProps) {
  const shares = useRef<(HTMLSpanElement | null)[]>([]);
  useFocusMark(({ cell }) => {
    if (shareOf === undefined) return;
    shares.current.forEach((element, position) => {
      if (element === null) return;
      const share = cell === undefined ? undefined : shareOf(position, cell);
      element.textContent = share === undefined ? '' : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}% here`;
      element.parentElement!.style.setProperty('--share', String(share === undefined ? 0 : Math.min(1, share * 6)));
    });
  });
  return (
    <div className="tokens">
      {tokens.map((token, position) => {
        const joined = position > 0 && !/^[ ▁Ġ\n]/.test(token.text);
        const inside = (
          <>
            <span className="token-text">{tokenText(token.text)}</span>
            <span className="meter" data-sure={sureness(token.probability)}>
              <span style={{ width: `${Math.max(4, 100 * token.probability)}%` }} />
            </span>
            <span className="token-number">{percent(token.probability)}</span>
            {shareOf !== undefined && (
              <span
                className="token-share"
                ref={(element) => {
                  shares.current[position] = element;
                }}
              />
            )}
          </>
        );
        // A token has no identity but its place.
        const key = `${position} ${token.id}`;
        const shape = { className: 'token', 'data-joined': joined };
        return onSelect === undefined ? (
          <span key={key} {...shape}>
            {inside}
          </span>
        ) : (
          <TokenButton
            key={key}
            token={token}
            shape={shape}
            pressed={selected === position}
            onSelect={() => onSelect(position)}
            onPoint={(on) => focus.setState({ token: on ? position : undefined })}
          >
            {inside}
          </TokenButton>
        );
      })}
      {writing && <span className="caret" aria-hidden="true" />}
    </div>
  );
}

interface TokenButtonProps {
  token: Token;
  shape: { className: string; 'data-joined': boolean };
  pressed: boolean;
  onSelect: () => void;
  onPoint: (on: boolean) => void;
  children: React.ReactNode;
}

function TokenButton({ token, shape, pressed, onSelect, onPoint, children }: TokenButtonProps) {
  const [shown, setShown] = useState(false);
  const point = (on: boolean) => () => {
    setShown(on);
    onPoint(on);
  };
  return (
    <Popover opened={shown} position="bottom" shadow="md" withArrow trapFocus={false} returnFocus={false}>
      <Popover.Target>
        <button
          type="button"
          {...shape}
          aria-pressed={pressed}
          aria-label={`${tokenText(token.text)}, probability ${percent(token.probability)}. Show why.`}
          onClick={onSelect}
          onPointerEnter={point(true)}
          onPointerLeave={point(false)}
          onFocus={point(true)}
          onBlur={point(false)}
        >
          {children}
        </button>
      </Popover.Target>
      <Popover.Dropdown p="xs" role="tooltip">
        <Text size="xs" c="dimmed" mb={4}>
          What it could have said here
        </Text>
        <Table verticalSpacing={2} horizontalSpacing={6} fz="xs" withRowBorders={false}>
          <Table.Tbody>
            {token.top.map((other) => (
              <Table.Tr key={other.id} fw={other.id === token.id ? 600 : 400}>
                <Table.Td>{tokenText(other.text)}</Table.Td>
                <Table.Td ta="right">{percent(other.probability)}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Popover.Dropdown>
    </Popover>
  );
}
