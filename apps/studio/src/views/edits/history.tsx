/** What was done to a set, newest first; each earlier state can be brought back. */
import { Button } from '@mantine/core';
import type { Edit, EditSet } from '../../api/types.ts';
import { fromPrompt } from '../../app/subject.ts';

const done: Record<string, string> = { add: 'added', enable: 'switched on', disable: 'switched off', delete: 'deleted' };

interface HistoryProps {
  set: EditSet;
  edits: readonly Edit[];
  busy: boolean;
  onRevert: (to: number) => void;
}

export function History({ set: { history, revision }, edits, busy, onRevert }: HistoryProps) {
  const named = (id: string | null): string => {
    const edit = edits.find((one) => one.id === id);
    return edit === undefined ? 'a correction that is deleted' : `${fromPrompt(edit.prompt)} → ${edit.target}`;
  };
  const said = ({ action, edit, to }: EditSet['history'][number]): string =>
    action === 'revert' ? `back to ${to === 0 ? 'the empty set' : `change ${to}`}` : `${done[action] ?? action}: ${named(edit)}`;
  const back = (to: number) => (
    <Button size="compact-xs" variant="default" disabled={busy} onClick={() => onRevert(to)}>
      Bring back<span className="unseen"> the set as it was after change {to}</span>
    </Button>
  );
  return (
    <details className="card fold">
      <summary>
        <h2>
          History <span className="beside">{revision === 1 ? '1 change' : `${revision} changes`}</span>
        </h2>
      </summary>
      <ol className="history" reversed tabIndex={0} aria-label="Changes of the set, newest first">
        {[...history].reverse().map((one) => (
          <li key={one.revision} value={one.revision}>
            <span className="grow">
              {said(one)} <small>{new Date(1000 * one.at).toLocaleString()}</small>
            </span>
            {one.revision === revision ? <small> (now)</small> : back(one.revision)}
          </li>
        ))}
        {history[0]?.revision === 1 && (
          <li value={0}>
            <span className="grow">the empty set</span>
            {back(0)}
          </li>
        )}
      </ol>
    </details>
  );
}
