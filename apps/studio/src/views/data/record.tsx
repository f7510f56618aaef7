/** One record of a data set: its edit and the queries that judge it. */
import { Text } from '@mantine/core';
import { useRecord } from '../../api/queries.ts';
import { queryKinds, type RecordQuery } from '../../api/types.ts';
import { address } from '../../app/location.ts';
import { Link } from '../../app/shell.tsx';
import { fromPrompt } from '../../app/subject.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { Thumb } from '../../parts/picture-box.tsx';
import { Failed, Working } from '../../parts/states.tsx';
import { kindTitles } from '../../parts/words.ts';
import { pictureName, promptName } from '../correct/five.ts';

export function DataRecordView({ dataset, index }: { dataset: string; index: number }) {
  const found = useRecord(dataset, index);
  const back = (
    <Link to={address(`/data/${dataset}`)} className="back">
      ← All records
    </Link>
  );
  if (found.isError)
    return (
      <>
        {back}
        <Failed what="There is no such record." error={found.error} />
      </>
    );
  if (found.data === undefined) return <Working what="Reading the record" />;
  const record = found.data;
  const { request, queries } = record;
  const subject = { picture: request.image, prompt: request.prompt, set: undefined };
  const five = Object.fromEntries(
    queryKinds.flatMap((kind) => [
      [promptName(kind), queries[kind].prompt],
      ...(queries[kind].image === null ? [] : [[pictureName(kind), queries[kind].image!]]),
    ]),
  );
  const near: [string, RecordQuery | undefined][] = [
    ['The same picture, another question', queries.sameImage],
    ['Noise, the same question', queries.noise],
    ['A grey picture, the same question', queries.grey],
    ['The same question, another picture', queries.sameQuestion],
  ];
  return (
    <div>
      <p>{back}</p>
      <div className="head-line">
        <h1>
          Record {record.index} <span className="beside">{[record.edit, record.kind].filter(Boolean).join(', ')}</span>
        </h1>
        <ExportMenu name={`${dataset}-${index}`} json={() => record} />
      </div>
      <section className="card record-request">
        <Thumb picture={request.image} size={160} label="The picture" />
        <div>
          <Text fw={600} size="lg">
            {fromPrompt(request.prompt)}
          </Text>
          {record.expected !== null && (
            <Text>
              Said before: <b>{record.expected}</b>
            </Text>
          )}
          <Text>
            Must become: <b>{request.target}</b>
          </Text>
          <p className="deeds">
            <Link to={address('/ask', subject)} className="button">
              Ask it
            </Link>
            <Link to={address('/correct', { ...subject, target: request.target, ...five })} className="button">
              Correct it
            </Link>
          </p>
        </div>
      </section>
      <section className="card" aria-label="Queries that judge the edit">
        <h2>What judges it</h2>
        <div className="query-cards">
          {queryKinds.map((kind) => (
            <QueryCard key={kind} title={kindTitles[kind]!.title} note={kindTitles[kind]!.wanted} query={queries[kind]} />
          ))}
          {near.map(([title, query]) => query && <QueryCard key={title} title={title} note="must stay" query={query} />)}
        </div>
      </section>
    </div>
  );
}

function QueryCard({ title, note, query }: { title: string; note: string; query: RecordQuery }) {
  return (
    <div className="query-card">
      <Thumb picture={query.image} size={96} />
      <div>
        <h3>{title}</h3>
        <p className="beside">{note}</p>
        <p>{fromPrompt(query.prompt)}</p>
        <p>
          <b>{query.target}</b>
        </p>
      </div>
    </div>
  );
}
