/** Runs: evaluations and trainings kept in folders, the newest first; each opens. */
import { useMemo } from 'react';
import { useRuns } from '../../api/queries.ts';
import { queryKinds, type Run } from '../../api/types.ts';
import { address, alter, usePlace } from '../../app/location.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { Empty, Failed, Working } from '../../parts/states.tsx';
import { type Column, DataTable } from '../../parts/table.tsx';
import { began, inPercent } from './measures.ts';
import { RunView } from './run.tsx';
import { RunRecordView } from './run-record.tsx';

const state = ({ state, steps }: Run): string =>
  state !== 'finished' && steps?.total ? `${state}, step ${steps.done} of ${steps.total}` : state;

const columns: readonly Column<Run>[] = [
  { title: 'Run', sort: 'id', cell: ({ id }) => id.replaceAll('~', ' / ') },
  { title: 'Kind', sort: 'kind', cell: ({ kind }) => kind },
  { title: 'Editor', sort: 'editor', cell: ({ editor }) => editor ?? '' },
  { title: 'Model', sort: 'model', cell: ({ model }) => model ?? '' },
  { title: 'Average, %', sort: 'average', number: true, cell: ({ summary }) => inPercent(summary?.average) },
  { title: 'Loss', sort: 'loss', number: true, minor: true, cell: ({ loss }) => loss?.toPrecision(3) ?? '' },
  { title: 'State', sort: 'state', minor: true, cell: state },
  { title: 'Begun', sort: 'started', minor: true, cell: (run) => began(run)?.toLocaleString() ?? '' },
];

const values: Record<string, (run: Run) => string | number> = {
  id: ({ id }) => id,
  kind: ({ kind }) => kind,
  editor: ({ editor }) => editor ?? '',
  model: ({ model }) => model ?? '',
  average: ({ summary }) => summary?.average ?? -1,
  loss: ({ loss }) => loss ?? -1,
  state,
  started: (run) => began(run)?.getTime() ?? 0,
};

export function Runs() {
  const { rest, params } = usePlace();
  const runs = useRuns();
  const sort = params.get('sort') ?? 'started';
  const order = (params.get('order') ?? 'desc') === 'desc' ? 'desc' : 'asc';
  const rows = useMemo(() => {
    const value = values[sort] ?? values.started!;
    const sign = order === 'asc' ? 1 : -1;
    return [...(runs.data ?? [])].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      return sign * (typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y)));
    });
  }, [runs.data, sort, order]);
  if (rest[1] !== undefined) return <RunRecordView id={rest[0]!} index={Number(rest[1])} />;
  if (rest[0] !== undefined) return <RunView id={rest[0]} />;
  return (
    <div>
      <div className="intro">
        <h1>Runs</h1>
        <p>
          Evaluations measure how well an editor corrects and how little else it touches; trainings can be watched while they run.
          What <code>visedit train</code> and <code>visedit evaluate</code> write to the folder of runs shows up here.
        </p>
      </div>
      {runs.isError ? (
        <Failed what="The runs cannot be listed." error={runs.error} retry={() => void runs.refetch()} />
      ) : runs.data === undefined ? (
        <Working what="Reading the folder of runs" />
      ) : rows.length === 0 ? (
        <Empty title="No run yet">
          Start the studio with <code>--runs DIR</code>, the folder that trainings and evaluations write to.
        </Empty>
      ) : (
        <section className="card" aria-label="Runs">
          <div className="head-line">
            <h2 className="unseen">All runs</h2>
            <span />
            <ExportMenu
              name="runs"
              csv={() => ({
                head: ['id', 'kind', 'editor', 'model', 'finished', ...queryKinds, 'average', 'loss'],
                rows: rows.map((run) => [
                  run.id,
                  run.kind,
                  run.editor,
                  run.model,
                  run.finished,
                  ...queryKinds.map((kind) => run.summary?.[kind]),
                  run.summary?.average,
                  run.loss,
                ]),
              })}
              json={() => rows}
            />
          </div>
          <DataTable
            label="Runs"
            columns={columns}
            rows={rows}
            keyOf={({ id }) => id}
            open={({ id }) => address(`/runs/${encodeURIComponent(id)}`)}
            openLabel={({ id }) => id}
            sort={sort}
            order={order}
            onSort={(by, direction) => alter({ sort: by, order: direction })}
          />
        </section>
      )}
    </div>
  );
}
