/** The question that a view is about, small: its picture, its words, its answer. */
import { Text } from '@mantine/core';
import type { ReactNode } from 'react';
import type { Token } from '../api/types.ts';
import { address } from '../app/location.ts';
import { Link } from '../app/shell.tsx';
import { fromPrompt, type Subject } from '../app/subject.ts';
import { Thumb } from './picture-box.tsx';
import { Tokens } from './tokens.tsx';

interface SubjectCardProps {
  subject: Subject;
  tokens: readonly Token[] | undefined;
  writing: boolean;
  selected?: number | undefined;
  onSelect?: (position: number) => void;
  shareOf?: (position: number, cell: number) => number | undefined;
  children?: ReactNode;
}

export function SubjectCard({ subject, tokens, writing, selected, onSelect, shareOf, children }: SubjectCardProps) {
  return (
    <section className="card subject" aria-label="Question and answer">
      {subject.picture !== undefined && <Thumb picture={subject.picture} size={72} label="The picture" />}
      <div className="subject-words">
        <Text size="sm" c="dimmed">
          {subject.base}
          {subject.set === undefined ? '' : ` with the corrections in “${subject.set}”`} ·{' '}
          <Link to={address('/ask')}>another question</Link>
        </Text>
        <Text fw={600}>{fromPrompt(subject.prompt ?? '')}</Text>
        {tokens === undefined ? (
          <Text c="dimmed">…</Text>
        ) : (
          <Tokens tokens={tokens} writing={writing} selected={selected} onSelect={onSelect} shareOf={shareOf} />
        )}
        {children}
      </div>
    </section>
  );
}
