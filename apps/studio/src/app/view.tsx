/** Which view an address shows. */
import { Skeleton } from '@mantine/core';
import { Component, type ComponentType, lazy, type ReactNode, Suspense, useEffect } from 'react';
import { Failed } from '../parts/states.tsx';
import { Ask } from '../views/ask/ask.tsx';
import { usePlace } from './location.ts';
import { Link } from './shell.tsx';

const pages: Record<string, { title: string; View: ComponentType }> = {
  ask: { title: 'Ask', View: Ask },
  why: { title: 'Why', View: lazy(async () => ({ default: (await import('../views/why/why.tsx')).Why })) },
  chat: { title: 'Chat', View: lazy(async () => ({ default: (await import('../views/chat/chat.tsx')).Chat })) },
  compare: { title: 'Compare', View: lazy(async () => ({ default: (await import('../views/compare/compare.tsx')).Compare })) },
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
    <Broken key={page}>
      <Suspense fallback={<Skeleton height={300} />}>
        <found.View />
      </Suspense>
    </Broken>
  );
}

/** A view that cannot be drawn leaves the others usable. */
class Broken extends Component<{ children: ReactNode }, { error?: unknown }> {
  override state: { error?: unknown } = {};

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  override render() {
    if (this.state.error === undefined) return this.props.children;
    return (
      <Failed what="This view cannot be drawn." error={this.state.error} retry={() => this.setState({ error: undefined })} />
    );
  }
}
