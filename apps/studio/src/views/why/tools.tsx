/** More ways to look: a tool is chosen and run, with its progress, and its drawing shown. */
import { Button, Group, NativeSelect, Text } from '@mantine/core';
import { useEffect, useRef, useState } from 'react';
import { drawFigure, type Figure as FigureData } from 'visedit/figures';
import { job, type Progress } from '../../api/client.ts';
import type { WhyQuestion } from '../../api/queries.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { Figure } from '../../parts/figure.tsx';
import { Failed, Working } from '../../parts/states.tsx';

interface Choice {
  readonly name: string;
  readonly tool: string;
  readonly options: Readonly<Record<string, string | number | boolean>>;
  readonly picture: boolean;
  /** What the drawing shows. */
  readonly says: string;
}

const choices: readonly Choice[] = [
  {
    ...{ name: 'Which patches bring the answer back', tool: 'trace', options: { parts: 'patches', draws: 2 }, picture: true },
    says: 'Noise takes the answer away; each patch is put back alone, after each layer. A bright patch brings the answer back.',
  },
  {
    ...{ name: 'Which layers carry the answer', tool: 'trace', options: { parts: 'groups' }, picture: true },
    says: 'Noise takes the answer away; the states of the picture, of the words or of the last token are put back. 1: the answer is back.',
  },
  {
    ...{ name: 'Which way the answer flows', tool: 'knockout', options: {}, picture: true },
    says: 'In a few layers one part of the input does not see another. A large value: the answer came that way.',
  },
  {
    ...{ name: 'Which words it hangs on', tool: 'words', options: {}, picture: false },
    says: 'Each word is hidden from everything behind it. A large value: the answer hangs on the word.',
  },
  {
    ...{ name: 'Which heads speak for it', tool: 'heads', options: {}, picture: false },
    says: 'Each head’s own part is taken out at the end. Red: the head speaks for the word; blue: against it.',
  },
  {
    ...{ name: 'What each patch is about', tool: 'lens', options: { positions: 'picture' }, picture: true },
    says: 'What the model would say at each patch, after each layer.',
  },
  {
    ...{ name: 'Where the heads look', tool: 'attention', options: {}, picture: true },
    says: 'Attention says where a head looks, not whether it matters.',
  },
  {
    ...{ name: 'Whether the maps are right', tool: 'check', options: { hide: 'grey,blur' }, picture: true },
    says: 'The patches that a map names are hidden, and the answer is measured. A good map’s line falls fast when they are hidden, and rises fast when only they are shown.',
  },
];

export function Tools({ question }: { question: WhyQuestion }) {
  const offered = choices.filter(({ picture }) => !picture || question.image !== undefined);
  const [chosen, choose] = useState(offered[0]!.name);
  const choice = offered.find(({ name }) => name === chosen) ?? offered[0]!;
  const [state, setState] = useState<{ figure?: FigureData; error?: unknown; progress?: Progress | undefined; of?: string }>({});
  const running = useRef<AbortController>(undefined);
  const subject = JSON.stringify([question, choice.name]);
  useEffect(() => () => running.current?.abort(), []);
  const run = () => {
    running.current?.abort();
    const controller = new AbortController();
    running.current = controller;
    const { model, prompt, image, answer, position, key } = question;
    const body = { model, prompt, image, answer, position, key, tool: choice.tool, options: choice.options, format: 'figure' };
    const of = subject;
    setState({ progress: { done: 0, total: null, note: null, waiting: true } });
    job<FigureData>('/v1/explanations', body, {
      signal: controller.signal,
      onProgress: (progress) => controller.signal.aborted || setState({ progress }),
    })
      .then((figure) => setState({ figure, of }))
      .catch((error: unknown) => setState(controller.signal.aborted ? {} : { error }));
  };
  const { figure } = state;
  return (
    <section className="card" aria-label="More ways to look">
      <Group justify="space-between" align="flex-start" wrap="nowrap">
        <h2>More ways to look</h2>
        {figure && <ExportMenu name={choice.tool} svg={() => drawFigure(figure)} json={() => figure} />}
      </Group>
      <Group align="flex-end" gap="sm" mb="xs">
        <NativeSelect
          label="What to ask"
          value={choice.name}
          onChange={(event) => {
            choose(event.currentTarget.value);
            setState({});
          }}
          data={offered.map(({ name }) => name)}
        />
        <Button size="sm" onClick={run} disabled={state.progress !== undefined}>
          Run
        </Button>
      </Group>
      <Text size="sm" c="dimmed" mb="xs">
        {choice.says}
      </Text>
      {state.progress && <Working what="Running" progress={state.progress} stop={() => running.current?.abort()} />}
      {state.error !== undefined && <Failed what="The tool did not end." error={state.error} retry={run} />}
      {figure && state.of === subject && <Figure label={choice.name} of={figure} draw={() => drawFigure(figure)} zoom={1} />}
    </section>
  );
}
