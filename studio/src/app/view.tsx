/** Which view an address shows. */
import { Skeleton } from '@mantine/core';
import { type ComponentType, lazy, Suspense, useEffect } from 'react';
import { Ask } from '../views/ask/ask.tsx';
import { usePlace } from './location.ts';
import { Link } from './shell.tsx';

const pages: Record<string, { title: string; View: ComponentType }> = {
  ask: { title: 'Ask', View: Ask },
  why: { title: 'Why', View: lazy(async () => ({ default: (await import('../views/why/why.tsx')).Why })) },
  correct: { title: 'Correct', View: lazy(async () => ({ default: (await import('../views/correct/correct.tsx')).Correct })) },
  edits: { title: 'Edits', View: lazy(async () => ({ default: (await import('../views/edits/edits.tsx')).Edits })) },
  data: { title: 'Data', View: lazy(async () => ({ default: (await import('../views/data/data.tsx')).Data })) },
  runs: { title: 'Runs', View: lazy(async () => ({ default: (await import('../views/runs/runs.tsx')).Runs })) },
};

export function View() {
  const { page } = usePlace();
  const found = pages[page];
  useEffect(() => {
    document.title = `${found?.title ?? 'Not found'} · VisEdit studio`;
  }, [found]);
  if (found === undefined)
    return (
      <div className="card narrow">
        <h1>There is no page “{page}”</h1>
        <p>
          <Link to="/ask">Begin with a question</Link>
        </p>
      </div>
    );
  return (
    <Suspense fallback={<Skeleton height={300} />}>
      <found.View />
    </Suspense>
  );
}
