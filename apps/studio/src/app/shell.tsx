/** The frame around every view: name, views, colour scheme, shortcuts, messages. */
import {
  ActionIcon,
  Button,
  Group,
  Kbd,
  Modal,
  PasswordInput,
  Stack,
  Table,
  Text,
  useComputedColorScheme,
  useMantineColorScheme,
} from '@mantine/core';
import { useHotkeys } from '@mantine/hooks';
import { useQueryClient } from '@tanstack/react-query';
import { type MouseEvent, type ReactNode, useState } from 'react';
import { ApiError, setKey } from '../api/client.ts';
import { useModels } from '../api/queries.ts';
import { address, go, usePlace } from './location.ts';
import { dismiss, useNotes } from './notes.ts';

export const views = [
  { page: 'ask', title: 'Ask', key: '1' },
  { page: 'chat', title: 'Chat', key: '2' },
  { page: 'why', title: 'Why', key: '3' },
  { page: 'correct', title: 'Correct', key: '4' },
  { page: 'edits', title: 'Edits', key: '5' },
  { page: 'compare', title: 'Compare', key: '6' },
  { page: 'data', title: 'Data', key: '7' },
  { page: 'runs', title: 'Runs', key: '8' },
] as const;

const shortcuts: readonly [string, string][] = [
  ...views.map(({ title, key }) => [key, title] as [string, string]),
  ['/', 'Write a question'],
  ['← →', 'In Why: the token before, the token after'],
  ['[ ]', 'In Why: a layer down, a layer up'],
  ['P', 'In Why: play through the layers, or stop'],
  ['arrows', 'On a picture: from patch to patch'],
  ['D', 'Dark or light'],
  ['?', 'This list'],
];

/** A link within the studio; a click with a modifier opens a tab as everywhere. */
export function Link({
  to,
  children,
  ...rest
}: {
  to: string;
  children: ReactNode;
  className?: string;
  'aria-current'?: 'page' | undefined;
}) {
  const follow = (event: MouseEvent) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button !== 0) return;
    event.preventDefault();
    go(to);
  };
  return (
    <a href={to} onClick={follow} {...rest}>
      {children}
    </a>
  );
}

export function Shell({ children }: { children: ReactNode }) {
  const { page } = usePlace();
  const [helpShown, showHelp] = useState(false);
  const { setColorScheme } = useMantineColorScheme();
  const scheme = useComputedColorScheme('light');
  const otherScheme = () => setColorScheme(scheme === 'dark' ? 'light' : 'dark');
  useHotkeys([
    ...views.map(({ page: to, key }) => [key, () => go(address(`/${to}`))] as [string, () => void]),
    ['shift+?', () => showHelp(true)],
    ['?', () => showHelp(true)],
    ['D', otherScheme],
    ['/', () => document.querySelector<HTMLElement>('[data-question]')?.focus()],
  ]);
  return (
    <>
      <a href="#content" className="skip">
        To the content
      </a>
      <header className="bar">
        <Link to={address('/ask')} className="brand">
          <svg viewBox="0 0 32 32" aria-hidden="true">
            <path d="M2 16c4.300-6.800 8.900-10 14-10s9.700 3.200 14 10c-4.300 6.800-8.900 10-14 10s-9.700-3.200-14-10z" />
            <path d="M10.500 16.600l4 4.200 7.600-9.100" />
          </svg>
          <span>VisEdit studio</span>
        </Link>
        <nav aria-label="Views">
          {views.map((view) => (
            <Link key={view.page} to={address(`/${view.page}`)} aria-current={page === view.page ? 'page' : undefined}>
              {view.title}
            </Link>
          ))}
        </nav>
        <Group gap={6} wrap="nowrap" className="bar-end">
          <ActionIcon variant="default" aria-label={scheme === 'dark' ? 'Light colours' : 'Dark colours'} onClick={otherScheme}>
            <span aria-hidden="true">{scheme === 'dark' ? '☀' : '☾'}</span>
          </ActionIcon>
          <ActionIcon variant="default" aria-label="Keyboard shortcuts" onClick={() => showHelp(true)}>
            <span aria-hidden="true">?</span>
          </ActionIcon>
        </Group>
      </header>
      <main id="content" tabIndex={-1}>
        <KeyGate>{children}</KeyGate>
      </main>
      <Modal opened={helpShown} onClose={() => showHelp(false)} title="Keyboard" closeButtonProps={{ 'aria-label': 'Close' }}>
        <Table>
          <Table.Tbody>
            {shortcuts.map(([keys, what]) => (
              <Table.Tr key={keys}>
                <Table.Td w={90}>
                  <Kbd>{keys}</Kbd>
                </Table.Td>
                <Table.Td>{what}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Modal>
      <Notes />
    </>
  );
}

/** A server started with a key is asked nothing before the key is given. */
function KeyGate({ children }: { children: ReactNode }) {
  const models = useModels();
  const client = useQueryClient();
  const [key, write] = useState('');
  const [refused, refuse] = useState(false);
  if (!(models.error instanceof ApiError && models.error.status === 401)) return children;
  const give = () => {
    setKey(key);
    // A right key takes this form away.
    void client.resetQueries().then(() => refuse(true));
  };
  return (
    <form
      className="card narrow"
      onSubmit={(event) => {
        event.preventDefault();
        give();
      }}
    >
      <Stack>
        <h1>This server asks for a key</h1>
        <Text c="dimmed">It is the one given to `visedit studio --key`. It stays in this tab only.</Text>
        <PasswordInput
          label="Key"
          value={key}
          error={refused ? 'The server refuses this key. Check it against the one that the server was started with.' : undefined}
          onChange={(event) => {
            refuse(false);
            write(event.currentTarget.value);
          }}
        />
        <Button type="submit" disabled={key === ''}>
          Open
        </Button>
      </Stack>
    </form>
  );
}

function Notes() {
  const notes = useNotes((state) => state.notes);
  return (
    <div className="notes" role="status" aria-live="polite">
      {notes.map(({ id, text, bad }) => (
        <div key={id} className="note" data-bad={bad}>
          <span>{text}</span>
          <button type="button" aria-label="Dismiss" onClick={() => dismiss(id)}>
            ×
          </button>
        </div>
      ))}
    </div>
  );
}
