/** A set of corrections: each switched on and off, the last change undone. */
import { Button, Group, Switch, Text } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { json } from '../../api/client.ts';
import { editsChanged, useEdits } from '../../api/queries.ts';
import type { Edit, EditSet } from '../../api/types.ts';
import { address } from '../../app/location.ts';
import { note, report } from '../../app/notes.ts';
import { Link } from '../../app/shell.tsx';
import { fromPrompt } from '../../app/subject.ts';
import { Thumb } from '../../parts/picture-box.tsx';
import { Failed } from '../../parts/states.tsx';
import { ScopeCard } from './scope-card.tsx';

const deeds: Record<string, string> = {
  add: 'adding a correction',
  enable: 'switching one on',
  disable: 'switching one off',
  delete: 'deleting one',
};

/** The change that undo takes back, if there is one. */
export function lastChange({ history }: EditSet): string | undefined {
  const undone = new Set<number>();
  for (const { action, to, revision } of [...history].reverse()) {
    if (action === 'revert' && to !== null) for (let at = to + 1; at <= revision; at++) undone.add(at);
    else if (!undone.has(revision) && action !== 'delete') return deeds[action] ?? action;
  }
  return undefined;
}

export function useEditActions(set: EditSet | undefined) {
  const client = useQueryClient();
  const done = () => editsChanged(client);
  const failed = (error: unknown) => report(error, 'Nothing was changed.');
  const turn = useMutation({
    mutationFn: ({ id, enabled }: { id: string; enabled: boolean }) =>
      json<Edit>(`/v1/edits/${id}`, { method: 'PATCH', body: { enabled } }),
    onSuccess: done,
    onError: failed,
  });
  const remove = useMutation({
    mutationFn: (id: string) => json(`/v1/edits/${id}`, { method: 'DELETE' }),
    onSuccess: done,
    onError: failed,
  });
  const undo = useMutation({
    mutationFn: (to?: number) =>
      json<EditSet>(`/v1/sets/${encodeURIComponent(set!.id)}/revert`, { method: 'POST', body: to === undefined ? {} : { to } }),
    onSuccess: async (_, to) => {
      await done();
      note(to === undefined ? 'Undone.' : 'Brought back.');
    },
    onError: failed,
  });
  return { turn, remove, undo, busy: turn.isPending || remove.isPending || undo.isPending };
}

/** Corrections that the panel shows. */
const newest = 8;

export function SetPanel({ set }: { set: EditSet }) {
  const edits = useEdits(set.model, set.name);
  const { turn, undo, busy } = useEditActions(set);
  const last = lastChange(set);
  return (
    <section className="card" aria-label={`Corrections in ${set.name}`}>
      <Group justify="space-between" mb="xs">
        <h2>
          Corrections in “{set.name}” <span className="beside">{set.edits.filter(({ enabled }) => enabled).length} on</span>
        </h2>
        <Button size="xs" variant="default" disabled={last === undefined || busy} onClick={() => undo.mutate(undefined)}>
          {last === undefined ? 'Nothing to undo' : `Undo ${last}`}
        </Button>
      </Group>
      {edits.isError && <Failed what="The corrections cannot be listed." error={edits.error} />}
      <ul className="edit-list">
        {edits.data?.slice(-newest).map((edit) => (
          <li key={edit.id} data-on={edit.enabled}>
            <Switch
              checked={edit.enabled}
              disabled={busy}
              onChange={(event) => turn.mutate({ id: edit.id, enabled: event.currentTarget.checked })}
              aria-label={`${fromPrompt(edit.prompt)} ${edit.target}: on`}
            />
            <Thumb picture={edit.picture} size={36} />
            <Text component="div" size="sm" className="grow">
              {fromPrompt(edit.prompt)} → <b>{edit.target}</b>
              <ScopeCard edit={edit} />
            </Text>
          </li>
        ))}
      </ul>
      <Text size="sm" mt="xs">
        {edits.data && edits.data.length > newest ? `The newest ${newest} of ${edits.data.length}. ` : ''}
        <Link to={address('/edits', { set: set.name })}>All corrections, their history, comparing two</Link>
      </Text>
    </section>
  );
}
