/** Waiting, failing, and having nothing to show yet. */
import { Alert, Progress as Bar, Button, Group, Text } from '@mantine/core';
import type { ReactNode } from 'react';
import type { Progress } from '../api/client.ts';

export function Failed({ error, retry, what }: { error: unknown; retry?: (() => void) | undefined; what: string }) {
  return (
    <Alert color="red" variant="light" title={what} className="failed">
      <Text size="sm">{error instanceof Error ? error.message : String(error)}</Text>
      {retry && (
        <Button mt="sm" size="xs" variant="default" onClick={retry}>
          Try again
        </Button>
      )}
    </Alert>
  );
}

/** Long work: how far it is, and a way out. */
export function Working({
  what,
  progress,
  stop,
}: {
  what: string;
  progress?: Progress | undefined;
  stop?: (() => void) | undefined;
}) {
  const known = progress !== undefined && progress.total !== null && progress.total > 0;
  const value = known ? (100 * progress.done) / progress.total! : 100;
  return (
    <div className="working" role="status">
      <Group justify="space-between" mb={6} wrap="nowrap">
        <Text size="sm">
          {what}
          {progress?.waiting ? ' (waiting for its turn)' : ''}
          {known ? ` ${progress.done} of ${progress.total}` : ''} …
        </Text>
        {stop && (
          <Button size="compact-xs" variant="default" onClick={stop}>
            Cancel
          </Button>
        )}
      </Group>
      <Bar value={value} animated={!known} size="sm" aria-label={what} />
    </div>
  );
}

/** Long work that can be cancelled, and taken up again. */
export function Waiting({
  what,
  query,
  progress,
  stop,
}: {
  what: string;
  query: { readonly isFetching: boolean; readonly refetch: () => unknown };
  progress?: Progress | undefined;
  stop: () => void;
}) {
  if (query.isFetching) return <Working what={what} progress={progress} stop={stop} />;
  return (
    <Group role="status">
      <Text size="sm">Cancelled.</Text>
      <Button size="compact-xs" variant="default" onClick={() => query.refetch()}>
        Start again
      </Button>
    </Group>
  );
}

/** Said of models whose tokens of one picture see each other in both directions. */
export function BothWays() {
  return (
    <Text size="sm" mb="xs" className="not-causal">
      <b>Not causal:</b> in this model the tokens of a picture see each other in both directions. Behind the first layer a patch’s
      token holds something of the other patches, so what is shown names the tokens that are read, not the parts of the picture
      that are the cause. Hiding a part says what the answer hangs on.
    </Text>
  );
}

export function Empty({ title, children }: { title: string; children: ReactNode }) {
  return (
    <div className="empty">
      <h2>{title}</h2>
      <div>{children}</div>
    </div>
  );
}
