/** One record of an evaluation: what was asked, what was said before and after, and how that was counted. */
import { Text } from '@mantine/core';
import { useRecord, useRun, useRunRecords } from '../../api/queries.ts';
import { queryKinds } from '../../api/types.ts';
import { address } from '../../app/location.ts';
import { Link } from '../../app/shell.tsx';
import { fromPrompt } from '../../app/subject.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { Thumb } from '../../parts/picture-box.tsx';
import { Failed, Working } from '../../parts/states.tsx';
import { kindTitles } from '../../parts/words.ts';
import { inPercent } from './measures.ts';

export function RunRecordView({ id, index }: { id: string; index: number }) {
  const run = useRun(id);
  // Records of a run stand in the order of their index.
  const lines = useRunRecords(id, { offset: index, limit: 1, sort: 'index', order: 'asc' });
  const dataset = run.data?.dataset ?? undefined;
  const data = useRecord(dataset, dataset === undefined ? undefined : index);
  if (lines.isError) return <Failed what="The record cannot be read." error={lines.error} />;
  if (lines.data === undefined) return <Working what="Reading the record" />;
  const line = lines.data.data[0];
  if (line === undefined) return <Failed what="There is no such record." error={`The run has no record ${index}.`} />;
  return (
    <div>
      <p>
        <Link to={address(`/runs/${encodeURIComponent(id)}`)} className="back">
          ← The run
        </Link>
      </p>
      <div className="head-line">
        <h1>
          Record {line.index} <span className="beside">must become “{line.target}”</span>
        </h1>
        <ExportMenu name={`${id}-${index}`} json={() => ({ run: id, record: line, data: data.data })} />
      </div>
      <section className="card" aria-label="Queries">
        <div className="query-cards">
          {queryKinds.map((kind) => {
            const result = line.queries[kind];
            const query = data.data?.queries[kind];
            if (result === undefined) return null;
            return (
              <div key={kind} className="query-card">
                {query && <Thumb picture={query.image} size={96} />}
                <div>
                  <h2>{kindTitles[kind]!.title}</h2>
                  <p className="beside">{kindTitles[kind]!.wanted}</p>
                  {query && <p>{fromPrompt(query.prompt)}</p>}
                  {result.textBefore !== undefined && <p>Before: {result.textBefore}</p>}
                  {result.text !== undefined && (
                    <p>
                      After: <b>{result.text}</b>
                    </p>
                  )}
                  <Text size="sm" c="dimmed">
                    {inPercent(result.accuracy)} % of the tokens
                  </Text>
                </div>
              </div>
            );
          })}
        </div>
        {dataset !== undefined && (
          <p className="deeds">
            <Link to={address(`/data/${dataset}/${index}`)} className="button">
              Open in the data set
            </Link>
          </p>
        )}
      </section>
    </div>
  );
}
