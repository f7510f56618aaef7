/** Edits: every correction of a model, switched on and off, undone, deleted, kept as files; two of them compared. */
import { Button, Checkbox, Group, NativeSelect, Switch, Text } from '@mantine/core';
import { useState } from 'react';
import { blob } from '../../api/client.ts';
import { useEdits, useModels } from '../../api/queries.ts';
import type { Edit } from '../../api/types.ts';
import { address, alter, usePlace } from '../../app/location.ts';
import { report } from '../../app/notes.ts';
import { Link } from '../../app/shell.tsx';
import { defaultSet, fromPrompt, useSubject } from '../../app/subject.ts';
import { download, ExportMenu } from '../../parts/export.tsx';
import { Thumb } from '../../parts/picture-box.tsx';
import { Empty, Failed } from '../../parts/states.tsx';
import { Pager, pageSize } from '../../parts/table.tsx';
import { CompareTwo } from './compare-two.tsx';
import { History } from './history.tsx';
import { LoadEdit } from './load.tsx';
import { ScopeCard } from './scope-card.tsx';
import { lastChange, useEditActions } from './set-panel.tsx';

export function Edits() {
  const { base, sets } = useSubject();
  const models = useModels();
  const { params } = usePlace();
  const name = params.get('set') ?? sets.find((one) => one.name === defaultSet)?.name ?? sets[0]?.name ?? defaultSet;
  const set = sets.find((one) => one.name === name);
  const edits = useEdits(base, name);
  const { turn, remove, undo, busy } = useEditActions(set);
  const [at, turnTo] = useState(0);
  const page = Math.min(at, Math.max(0, Math.ceil((edits.data?.length ?? 0) / pageSize) - 1));
  const compared = (params.get('compare') ?? '').split(',').filter(Boolean);
  const last = set && lastChange(set);
  const pick = (id: string, on: boolean) =>
    alter({ compare: (on ? [...compared, id].slice(-2) : compared.filter((one) => one !== id)).join(',') });
  const save = (edit: Edit) =>
    blob(`/v1/edits/${edit.id}/file`)
      .then((file) => download(`${edit.id}.safetensors`, file))
      .catch((error: unknown) => report(error, 'The file could not be fetched.'));
  const pair = compared.map((id) => edits.data?.find((edit) => edit.id === id)).filter((edit) => edit !== undefined);
  return (
    <div className="edits">
      <div className="intro">
        <h1>Corrections</h1>
        <p>
          A correction is kept beside the model, never in it. Switch it off and the model answers as before, to the last bit.
          Choose two to compare what they do.
        </p>
      </div>
      <section className="card" aria-label="Corrections">
        <Group justify="space-between" align="flex-end" mb="md">
          <Group gap="sm">
            <NativeSelect
              label="Model"
              value={base ?? ''}
              onChange={(event) =>
                alter({ model: event.currentTarget.value, set: undefined, compare: undefined }, { replace: false })
              }
              data={models.data?.filter(({ visedit }) => visedit.set === null).map(({ id }) => id) ?? []}
            />
            <NativeSelect
              label="Set"
              value={name}
              onChange={(event) => alter({ set: event.currentTarget.value, compare: undefined }, { replace: false })}
              data={sets.length === 0 ? [name] : sets.map((one) => one.name)}
            />
          </Group>
          <Group gap="xs">
            <Button size="xs" variant="default" disabled={last === undefined || busy} onClick={() => undo.mutate(undefined)}>
              {last === undefined ? 'Nothing to undo' : `Undo ${last}`}
            </Button>
            {edits.data !== undefined && edits.data.length > 0 && (
              <ExportMenu
                name={`corrections-${name}`}
                csv={() => ({
                  head: ['id', 'model', 'set', 'editor', 'on', 'prompt', 'target', 'created'],
                  rows: edits.data!.map((edit) => [
                    edit.id,
                    edit.model,
                    edit.set,
                    edit.editor,
                    edit.enabled,
                    edit.prompt,
                    edit.target,
                    new Date(1000 * edit.created).toISOString(),
                  ]),
                })}
                json={() => edits.data}
              />
            )}
          </Group>
        </Group>
        {edits.isError && (
          <Failed what="The corrections cannot be listed." error={edits.error} retry={() => void edits.refetch()} />
        )}
        {edits.data?.length === 0 && (
          <Empty title="No correction yet">
            <Link to={address('/ask')}>Ask something</Link>; when the answer is wrong, correct it.
          </Empty>
        )}
        <ul className="edit-list large">
          {edits.data?.slice(page * pageSize, (page + 1) * pageSize).map((edit) => (
            <li key={edit.id} data-on={edit.enabled}>
              <Switch
                checked={edit.enabled}
                disabled={busy}
                onChange={(event) => turn.mutate({ id: edit.id, enabled: event.currentTarget.checked })}
                aria-label={`${fromPrompt(edit.prompt)} ${edit.target}: on`}
              />
              <Thumb picture={edit.picture} size={48} />
              <div className="grow">
                <Text size="sm">
                  {fromPrompt(edit.prompt)} → <b>{edit.target}</b>
                </Text>
                <Text size="xs" c="dimmed">
                  {edit.editor} · {new Date(1000 * edit.created).toLocaleString()} · {Math.ceil(edit.bytes / 1024)} KiB
                </Text>
                <ScopeCard edit={edit} />
              </div>
              <Checkbox
                label="Compare"
                checked={compared.includes(edit.id)}
                onChange={(event) => pick(edit.id, event.currentTarget.checked)}
              />
              <Group gap={6} wrap="nowrap">
                {edit.picture !== null && (
                  <Link
                    to={address('/correct', {
                      picture: edit.picture,
                      prompt: edit.prompt,
                      target: edit.target,
                      set: edit.set,
                      model: edit.model,
                    })}
                    className="button"
                  >
                    Open
                  </Link>
                )}
                <Button size="compact-sm" variant="default" onClick={() => void save(edit)}>
                  Save file
                </Button>
                <Button
                  size="compact-sm"
                  variant="default"
                  c="var(--bad)"
                  disabled={busy}
                  onClick={() =>
                    window.confirm('Delete this correction for good? To keep it, switch it off instead.') &&
                    remove.mutate(edit.id)
                  }
                >
                  Delete
                </Button>
              </Group>
            </li>
          ))}
        </ul>
        {edits.data && edits.data.length > pageSize && <Pager page={page} total={edits.data.length} onPage={turnTo} />}
      </section>
      {pair.length === 2 && base !== undefined ? (
        <CompareTwo base={base} pair={[pair[0]!, pair[1]!]} />
      ) : (
        compared.length === 1 && <Text c="dimmed">Choose one more to compare the two.</Text>
      )}
      {base !== undefined && <LoadEdit model={base} set={name} />}
      {set !== undefined && <History set={set} edits={edits.data ?? []} busy={busy} onRevert={undo.mutate} />}
    </div>
  );
}
