/** One run: its measures and records, or its curve, which grows while the training runs. */
import { Badge, Text } from '@mantine/core';
import { useQueryClient } from '@tanstack/react-query';
import { useEffect, useMemo, useState } from 'react';
import { type LineChart, lineChart } from 'visedit/figures';
import { events } from '../../api/client.ts';
import { useRun, useRunLog, useRunRecords } from '../../api/queries.ts';
import { type LogLine, queryKinds, type Run, type RunRecord } from '../../api/types.ts';
import { address, alter, usePlace } from '../../app/location.ts';
import { Link } from '../../app/shell.tsx';
import { ExportMenu } from '../../parts/export.tsx';
import { Figure } from '../../parts/figure.tsx';
import { Failed, Working } from '../../parts/states.tsx';
import { type Column, DataTable, Pager, pageSize } from '../../parts/table.tsx';
import { began, inPercent, metricTitles } from './measures.ts';

export function RunView({ id }: { id: string }) {
  const run = useRun(id);
  const back = (
    <p>
      <Link to={address('/runs')} className="back">
        ← All runs
      </Link>
    </p>
  );
  if (run.isError)
    return (
      <>
        {back}
        <Failed what="There is no such run." error={run.error} />
      </>
    );
  if (run.data === undefined) return <Working what="Reading the run" />;
  const { kind, editor, model, data, seconds, state } = run.data;
  const facts: [string, string | undefined | null][] = [
    ['Editor', editor],
    ['Model', model],
    ['Data', data],
    ['Edits', run.data.count?.toLocaleString()],
    ['Begun', began(run.data)?.toLocaleString()],
    ['Took', seconds === null || seconds === undefined ? undefined : `${(seconds / 60).toFixed(1)} minutes`],
  ];
  return (
    <div>
      {back}
      <div className="head-line">
        <h1>
          {id.replaceAll('~', ' / ')} <span className="beside">{kind}</span>
        </h1>
        {state !== 'finished' && <Badge variant="light">{state}</Badge>}
      </div>
      <section className="card" aria-label="Facts">
        <dl className="facts">
          {facts.map(
            ([name, value]) =>
              value !== undefined &&
              value !== null && (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd>{value}</dd>
                </div>
              ),
          )}
        </dl>
      </section>
      {run.data.summary && <Measures run={run.data} />}
      {(kind === 'training' || run.data.loss !== null) && <Curve run={run.data} />}
      {kind === 'evaluation' && <RunRecords id={id} />}
    </div>
  );
}

function Measures({ run }: { run: Run }) {
  const names = [...queryKinds, 'average'] as const;
  return (
    <section className="card" aria-label="Measures">
      <div className="head-line">
        <h2>Measures</h2>
        <ExportMenu
          name={`${run.id}-measures`}
          csv={() => ({ head: names, rows: [names.map((name) => run.summary?.[name])] })}
          json={() => run.summary}
        />
      </div>
      <dl className="measures">
        {names.map((name) => (
          <div key={name} data-average={name === 'average'}>
            <dt>{metricTitles[name]}</dt>
            <dd>{inPercent(run.summary?.[name])}</dd>
          </div>
        ))}
      </dl>
      <Text size="sm" c="dimmed">
        Per cent of the answer’s tokens: Rel, the corrected question; T-Gen and M-Gen, in other words and with another picture of
        the same; T-Loc and M-Loc, what must stay as it was.
      </Text>
    </section>
  );
}

/** The log so far, and what comes in while the page is open. */
function useLive(run: Run): { lines: LogLine[]; live: boolean; error: unknown } {
  const log = useRunLog(run.id);
  const client = useQueryClient();
  const [more, setMore] = useState<LogLine[]>([]);
  const [live, setLive] = useState(false);
  const [error, setError] = useState<unknown>();
  const after = log.data?.at(-1)?.step;
  useEffect(() => {
    if (log.data === undefined || run.finished) return;
    const stopper = new AbortController();
    const follow = async () => {
      const from = after === undefined ? '' : `?after=${after}`;
      setLive(true);
      for await (const { event, data } of events(`/v1/runs/${encodeURIComponent(run.id)}/events${from}`, {
        signal: stopper.signal,
      })) {
        if (event === 'log') setMore((known) => [...known, ...(JSON.parse(data) as LogLine[])]);
        if (event === 'run')
          client.setQueryData(['run', run.id], (old: Run | undefined) => ({ ...old, ...(JSON.parse(data) as Run) }));
      }
      setLive(false);
    };
    follow().catch((problem: unknown) => {
      if (stopper.signal.aborted) return;
      setLive(false);
      setError(problem);
    });
    return () => stopper.abort();
  }, [log.data, after, run.id, run.finished, client]);
  const lines = useMemo(() => [...(log.data ?? []), ...more], [log.data, more]);
  return { lines, live, error: log.error ?? error };
}

function Curve({ run }: { run: Run }) {
  const { lines, live, error } = useLive(run);
  const chart = useMemo((): LineChart => {
    const of = (label: string, chosen: readonly LogLine[], value: (line: LogLine) => number) => ({
      label,
      x: chosen.map(({ step }) => step),
      y: chosen.map(value),
    });
    const smoothed = lines.filter((line) => line.smoothed !== undefined);
    return {
      xTitle: 'Step',
      yTitle: 'Loss',
      yScale: lines.every(({ loss }) => loss > 0) ? 'log' : 'linear',
      points: false,
      series: [
        of('loss', lines, ({ loss }) => loss),
        ...(smoothed.length > 1 ? [of('smoothed', smoothed, (line) => line.smoothed!)] : []),
      ],
    };
  }, [lines]);
  const last = lines.at(-1);
  const names = [...new Set(lines.flatMap((line) => Object.keys(line)))];
  return (
    <section className="card" aria-label="Training curve">
      <div className="head-line">
        <h2>
          Training curve <span className="beside">{live ? 'live' : ''}</span>
        </h2>
        {lines.length > 1 && (
          <ExportMenu
            name={`${run.id}-curve`}
            svg={() => lineChart(chart)}
            csv={() => ({ head: names, rows: lines.map((line) => names.map((name) => line[name])) })}
            json={() => lines}
          />
        )}
      </div>
      {error !== undefined && error !== null && <Failed what="The log cannot be followed." error={error} />}
      {lines.length > 1 ? (
        <Figure
          of={lines.length}
          label={`Loss over ${last!.step} steps, last ${last!.loss.toPrecision(3)}`}
          draw={(width) => lineChart({ ...chart, width: Math.min(width, 640), height: 220 })}
        />
      ) : (
        <Working what="Waiting for the first steps" />
      )}
      {last && (
        <p className="reading">
          Step {last.step}
          {run.steps?.total ? ` of ${run.steps.total}` : ''}: loss {last.loss.toPrecision(3)}
        </p>
      )}
    </section>
  );
}

const accuracy = (kind: (typeof queryKinds)[number]): Column<RunRecord> => ({
  title: metricTitles[kind],
  sort: `${kind}.accuracy`,
  number: true,
  minor: kind !== 'reliability' && kind !== 'modalLocality',
  cell: ({ queries }) => inPercent(queries[kind]?.accuracy),
});

const recordColumns: readonly Column<RunRecord>[] = [
  { title: '#', sort: 'index', number: true, cell: ({ index }) => index },
  { title: 'Target', sort: 'target', cell: ({ target }) => <b>{target}</b> },
  { title: 'Answer after', cell: ({ queries }) => queries.reliability?.text ?? '' },
  { title: 'Kind', sort: 'kind', minor: true, cell: ({ kind }) => kind ?? '' },
  ...queryKinds.map(accuracy),
];

function RunRecords({ id }: { id: string }) {
  const { params } = usePlace();
  const page = Math.max(0, Number(params.get('page') ?? 0) || 0);
  const sort = params.get('sort') ?? 'index';
  const order = params.get('order') === 'desc' ? 'desc' : 'asc';
  const records = useRunRecords(id, { offset: page * pageSize, limit: pageSize, sort, order });
  if (records.isError)
    return <Failed what="The records cannot be read." error={records.error} retry={() => void records.refetch()} />;
  if (records.data === undefined) return <Working what="Reading the records" />;
  if (records.data.data.length === 0)
    return (
      <section className="card" aria-label="Records">
        <h2>Records</h2>
        <Text c="dimmed">
          This run keeps its measures and no answers of single edits. `visedit evaluate … --out FOLDER` keeps them, and shows them
          here.
        </Text>
      </section>
    );
  return (
    <section className="card" aria-label="Records">
      <div className="head-line">
        <h2>Records</h2>
        <ExportMenu
          name={`${id}-records-${page + 1}`}
          csv={() => ({
            head: ['index', 'target', ...queryKinds],
            rows: records.data.data.map(({ index, target, queries }) => [
              index,
              target,
              ...queryKinds.map((kind) => queries[kind]?.accuracy),
            ]),
          })}
          json={() => records.data.data}
        />
      </div>
      <DataTable
        label="Records of the run"
        columns={recordColumns}
        rows={records.data.data}
        keyOf={({ index }) => index}
        open={({ index }) => address(`/runs/${encodeURIComponent(id)}/${index}`)}
        openLabel={({ index }) => `record ${index}`}
        sort={sort}
        order={order}
        onSort={(by, direction) => alter({ sort: by, order: direction, page: undefined })}
      />
      <Pager page={page} total={records.data.total ?? records.data.data.length} onPage={(to) => alter({ page: to })} />
    </section>
  );
}
