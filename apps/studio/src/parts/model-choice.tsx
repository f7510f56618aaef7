/** The model to ask, and the corrections that it is asked under. */
import { NativeSelect } from '@mantine/core';
import { useModels } from '../api/queries.ts';
import { alter } from '../app/location.ts';
import type { Subject } from '../app/subject.ts';

export function ModelChoice({ subject: { base, set, sets } }: { subject: Subject }) {
  const models = useModels();
  return (
    <>
      <NativeSelect
        label="Model"
        value={base ?? ''}
        onChange={(event) => alter({ model: event.currentTarget.value, set: undefined }, { replace: false })}
        data={models.data?.filter(({ visedit }) => visedit.set === null).map(({ id }) => id) ?? []}
      />
      <NativeSelect
        label="Corrections"
        value={set ?? ''}
        onChange={(event) => alter({ set: event.currentTarget.value }, { replace: false })}
        data={[
          { value: '', label: 'none' },
          ...sets.map(({ name, edits }) => ({
            value: name,
            label: `${name} (${edits.filter(({ enabled }) => enabled).length} on)`,
          })),
        ]}
      />
    </>
  );
}
