/** Data: the edits of a data set, searched and sorted; each opens with its five queries. */
import { NativeSelect, TextInput } from '@mantine/core';
import { useDebouncedCallback } from '@mantine/hooks';
import { useState } from 'react';
import { useDatasets, useRecords } from '../../api/queries.ts';
import type { DataRecord } from '../../api/types.ts';
import { address, alter, go, usePlace } from '../../app/location.ts';
import { fromPrompt } from '../../app/subject.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { Thumb } from '../../parts/picture-box.tsx';
import { Failed, Working } from '../../parts/states.tsx';
import { type Column, DataTable, Pager, pageSize } from '../../parts/table.tsx';
import { DataRecordView } from './record.tsx';

const columns: readonly Column<DataRecord>[] = [
  { title: '#', sort: 'index', number: true, cell: ({ index }) => index },
  { title: 'Picture', cell: ({ request }) => <Thumb picture={request.image} size={40} /> },
  { title: 'Question', sort: 'prompt', cell: ({ request }) => fromPrompt(request.prompt) },
  { title: 'Must become', sort: 'target', cell: ({ request }) => <b>{request.target}</b> },
  { title: 'Said before', minor: true, cell: ({ expected }) => expected ?? '' },
  { title: 'Question kind', sort: 'kind', minor: true, cell: ({ kind }) => kind ?? '' },
  { title: 'Edit', sort: 'edit', minor: true, cell: ({ edit }) => edit ?? '' },
];

export function Data() {
  const { rest, params } = usePlace();
  const datasets = useDatasets();
  const id = rest[0] ?? datasets.data?.[0]?.id;
  if (rest[1] !== undefined) return <DataRecordView dataset={rest[0]!} index={Number(rest[1])} />;
  const choices = datasets.data?.map((one) => ({ value: one.id, label: one.title })) ?? [];
  return (
    <div className="data-view">
      <div className="intro">
        <h1>Data</h1>
        <p>
          Each record is one correction with the five queries that judge it: what must change, and what must not. Open one to ask
          it or to make its correction.
        </p>
      </div>
      {datasets.isError && (
        <Failed what="The data sets cannot be listed." error={datasets.error} retry={() => void datasets.refetch()} />
      )}
      {id !== undefined && <Records key={id} id={id} params={params} choices={choices} />}
    </div>
  );
}

function Records({ id, params, choices }: { id: string; params: URLSearchParams; choices: { value: string; label: string }[] }) {
  const page = Math.max(0, Number(params.get('page') ?? 0) || 0);
  const sort = params.get('sort') ?? undefined;
  const order = params.get('order') === 'desc' ? 'desc' : 'asc';
  const filters = { q: params.get('q') ?? undefined, edit: params.get('edit') ?? undefined };
  const records = useRecords(id, {
    offset: page * pageSize,
    limit: pageSize,
    ...filters,
    ...(sort === undefined ? {} : { sort, order }),
  });
  const [text, write] = useState(filters.q ?? '');
  const find = useDebouncedCallback((q: string) => alter({ q, page: undefined }), 250);
  return (
    <section className="card" aria-label="Records">
      <div className="filters">
        <NativeSelect
          label="Data set"
          value={id}
          onChange={(event) => go(address(`/data/${event.currentTarget.value}`))}
          data={choices}
        />
        <TextInput
          label="Search"
          placeholder="pizza"
          value={text}
          onChange={(event) => {
            write(event.currentTarget.value);
            find(event.currentTarget.value);
          }}
        />
        <NativeSelect
          label="Edits"
          value={filters.edit ?? ''}
          onChange={(event) => alter({ edit: event.currentTarget.value, page: undefined })}
          data={[
            { value: '', label: 'all' },
            { value: 'correction', label: 'corrections' },
            { value: 'counterfactual', label: 'counterfactuals' },
          ]}
        />
        {records.data && (
          <ExportMenu
            name={`${id}-page-${page + 1}`}
            csv={() => ({
              head: ['index', 'prompt', 'target', 'expected', 'kind', 'edit'],
              rows: records.data.data.map(({ index, request, expected, kind, edit }) => [
                index,
                request.prompt,
                request.target,
                expected,
                kind,
                edit,
              ]),
            })}
            json={() => records.data.data}
          />
        )}
      </div>
      {records.isError ? (
        <Failed what="The records cannot be read." error={records.error} retry={() => void records.refetch()} />
      ) : records.data === undefined ? (
        <Working what="Reading; the mini world is drawn at its first use" />
      ) : (
        <>
          <DataTable
            label="Records"
            columns={columns}
            rows={records.data.data}
            keyOf={({ index }) => index}
            open={({ index }) => address(`/data/${id}/${index}`)}
            openLabel={({ index }) => `record ${index}`}
            sort={sort ?? 'index'}
            order={order}
            onSort={(by, direction) => alter({ sort: by, order: direction, page: undefined })}
          />
          <Pager page={page} total={records.data.total ?? records.data.data.length} onPage={(to) => alter({ page: to })} />
        </>
      )}
    </section>
  );
}
