/** More ways to look: a tool is chosen, with its options, and run; what it found is drawn. The address holds the tool and its options. */
import { Button, Checkbox, Group, NativeSelect, NumberInput, Text, Textarea, TextInput } from '@mantine/core';
import { useQueryClient } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { drawFigure, type Figure as FigureData } from 'visedit/figures';
import type { Progress } from '../../api/client.ts';
import { type FigureRequest, useDatasets, useFigure, useTools, type WhyQuestion } from '../../api/queries.ts';
import type { Model, Tool, ToolOption } from '../../api/types.ts';
import { alter, usePlace } from '../../app/location.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { Figure } from '../../parts/figure.tsx';
import { PictureDrop } from '../../parts/picture-box.tsx';
import { BothWays, Failed, Waiting } from '../../parts/states.tsx';
import { type Choice, choiceOf, choices, planTool } from './choices.ts';

type Value = string | number | boolean;

/** Names of options in the address. */
const optionName = (name: string): string => `tool.${name}`;

export function Tools({ question, model, revision }: { question: WhyQuestion; model: Model | undefined; revision: number }) {
  const { params } = usePlace();
  const tools = useTools();
  const datasets = useDatasets();
  const offered = choices.filter(({ picture }) => !picture || question.image !== undefined);
  const asked = choiceOf(offered, params.get('tool'), (name) => params.get(optionName(name)));
  const [chosen, choose] = useState(asked ?? offered[0]!);
  useEffect(() => {
    if (asked !== undefined) choose(asked);
  }, [asked]);
  const toolOf = ({ tool }: Choice): Tool | undefined =>
    tool === 'plan' ? planTool(datasets.data) : tools.data?.find(({ id }) => id === tool);
  const given = (choice: Choice): Record<string, Value> =>
    Object.fromEntries(
      Object.entries(toolOf(choice)?.options.properties ?? {}).flatMap(([name, { type, default: usual }]) => {
        const text = choice === asked ? params.get(optionName(name)) : null;
        const value = text === null ? (choice.options[name] ?? usual) : typed(text, type);
        return value === undefined ? [] : [[name, value]];
      }),
    );
  const against = { picture: params.get('against.picture') ?? undefined, prompt: params.get('against.prompt') ?? undefined };
  const request = asked && toolOf(asked) && requestOf(asked, given(asked), question, model?.id, against);
  const [progress, setProgress] = useState<Progress>();
  const found = useFigure(request, revision, setProgress);
  const client = useQueryClient();
  const [unfolded, unfold] = useState(false);
  const tool = toolOf(chosen);
  const figure = chosen === asked ? found.data : undefined;
  return (
    <section className="card" aria-label="More ways to look">
      <Group justify="space-between" align="flex-start" wrap="nowrap">
        <h2>More ways to look</h2>
        {figure && (
          <ExportMenu
            name={chosen.tool}
            svg={() => drawFigure(figure)}
            {...(figure.table ? { csv: () => figure.table! } : {})}
            json={() => figure}
          />
        )}
      </Group>
      {tools.isError && <Failed what="The tools cannot be listed." error={tools.error} retry={() => void tools.refetch()} />}
      <NativeSelect
        label="What to ask"
        value={chosen.name}
        onChange={(event) => choose(offered.find(({ name }) => name === event.currentTarget.value)!)}
        data={offered.map(({ name }) => name)}
      />
      <Text size="sm" c="dimmed" my="xs">
        {chosen.says}
      </Text>
      {model?.visedit.both_ways && chosen.causal === false && <BothWays />}
      {tool && (
        <ToolForm
          key={`${chosen.name} ${chosen === asked}`}
          tool={tool}
          values={given(chosen)}
          against={against}
          unfolded={unfolded}
          onUnfold={unfold}
          busy={chosen === asked && found.isFetching}
          onRun={(values, other) => {
            const own = Object.fromEntries(Object.entries(values).map(([name, value]) => [optionName(name), String(value)]));
            const old = [...params.keys()].filter((name) => /^(tool|against)\./.test(name));
            setProgress(undefined);
            alter(
              {
                ...Object.fromEntries(old.map((name) => [name, undefined])),
                ...{ tool: chosen.tool, ...own, 'against.picture': other.picture, 'against.prompt': other.prompt },
              },
              { replace: false },
            );
          }}
        />
      )}
      {chosen === asked &&
        (found.isError ? (
          <Failed what="The tool did not end." error={found.error} retry={() => void found.refetch()} />
        ) : figure ? (
          <FigureCard choice={chosen} figure={figure} />
        ) : (
          request && (
            <Waiting
              what="Running"
              query={found}
              progress={progress}
              stop={() => void client.cancelQueries({ queryKey: ['figure'] })}
            />
          )
        ))}
    </section>
  );
}

interface AgainstInput {
  picture: string | undefined;
  prompt: string | undefined;
}

interface ToolFormProps {
  tool: Tool;
  values: Record<string, Value>;
  against: AgainstInput;
  /** the options stand open; kept when the form is made anew */
  unfolded: boolean;
  onUnfold: (open: boolean) => void;
  busy: boolean;
  onRun: (values: Record<string, Value>, against: AgainstInput) => void;
}

/** The options as their schema says them: what must be given stands open, the rest is folded. */
function ToolForm({ tool, values: start, against: other, unfolded, onUnfold, busy, onRun }: ToolFormProps) {
  const [values, change] = useState(start);
  const [against, compare] = useState(other);
  const required = tool.options.required ?? [];
  const field = ([name, option]: [string, ToolOption]) => (
    <OptionField
      key={name}
      name={name}
      option={option}
      value={values[name]}
      onChange={(value) => change(({ [name]: _, ...rest }) => (value === undefined ? rest : { ...rest, [name]: value }))}
    />
  );
  const all = Object.entries(tool.options.properties ?? {});
  const [open, folded] = [true, false].map((must) => all.filter(([name]) => required.includes(name) === must)) as [
    typeof all,
    typeof all,
  ];
  const ready =
    required.every((name) => (values[name] ?? '') !== '') &&
    (tool.compares !== 'must' || against.picture !== undefined || (against.prompt ?? '') !== '');
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (ready && !busy) onRun(values, against);
      }}
    >
      {open.map(field)}
      {tool.compares === 'must' && (
        <div className="against">
          <PictureDrop
            small
            picture={against.picture}
            label="The picture to compare with"
            onPicture={(picture) => compare({ ...against, picture })}
          />
          <Textarea
            label="Or the question in other words"
            autosize
            value={against.prompt ?? ''}
            onChange={(event) => compare({ ...against, prompt: event.currentTarget.value || undefined })}
          />
        </div>
      )}
      {folded.length > 0 && (
        <details className="options" open={unfolded} onToggle={(event) => onUnfold(event.currentTarget.open)}>
          <summary>Options</summary>
          {folded.map(field)}
          <Text size="xs" c="dimmed" mt="xs">
            {tool.details}
          </Text>
        </details>
      )}
      <Button type="submit" size="sm" mt="xs" disabled={!ready} loading={busy}>
        Run
      </Button>
    </form>
  );
}

interface OptionFieldProps {
  name: string;
  option: ToolOption;
  value: Value | undefined;
  onChange: (value: Value | undefined) => void;
}

function OptionField({ name, option: { type, enum: words, description, minimum }, value, onChange }: OptionFieldProps) {
  const label = name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  const about = { label, description, size: 'xs', mt: 6 } as const;
  if (type === 'boolean')
    return <Checkbox {...about} checked={value === true} onChange={(event) => onChange(event.currentTarget.checked)} />;
  if (words !== undefined)
    return (
      <NativeSelect {...about} value={String(value)} onChange={(event) => onChange(event.currentTarget.value)} data={words} />
    );
  if (type === 'number' || type === 'integer')
    return (
      <NumberInput
        {...about}
        min={minimum}
        allowDecimal={type === 'number'}
        value={value === undefined ? '' : Number(value)}
        onChange={(number) => onChange(number === '' ? undefined : Number(number))}
      />
    );
  return (
    <TextInput
      {...about}
      value={String(value ?? '')}
      onChange={(event) => onChange(event.currentTarget.value === '' ? undefined : event.currentTarget.value)}
    />
  );
}

const typed = (text: string, type: ToolOption['type']): Value =>
  type === 'boolean' ? text === 'true' : type === 'number' || type === 'integer' ? Number(text) : text;

function requestOf(
  { tool }: Choice,
  options: Record<string, Value>,
  { model, prompt, image, answer, position, key }: WhyQuestion,
  base: string | undefined,
  against: AgainstInput,
): FigureRequest {
  if (tool === 'plan') return { path: '/v1/plans', body: { model: base, ...options } };
  const other = { against_image: against.picture, against_prompt: against.prompt };
  return { path: '/v1/explanations', body: { model, prompt, image, answer, position, key, tool, options, ...other } };
}

function FigureCard({ choice: { name, tool }, figure }: { choice: Choice; figure: FigureData }) {
  return (
    <>
      {figure.said && figure.said.length > 0 && (
        <ul className="said">
          {figure.said.map((sentence) => (
            <li key={sentence}>{sentence}</li>
          ))}
        </ul>
      )}
      <div className="scroll" tabIndex={0} role="region" aria-label={`${name}, drawing`}>
        <Figure label={name} of={figure} draw={() => drawFigure(figure)} zoom={1} />
      </div>
      {figure.table && (
        // Steered answers are words, which no drawing shows.
        <details open={tool === 'steer'}>
          <summary>Numbers</summary>
          <div className="scroll" tabIndex={0} role="region" aria-label={`${name}, numbers`}>
            <table className="data">
              <thead>
                <tr>
                  {figure.table.head.map((title, i) => (
                    <th key={`${i} ${title}`} scope="col">
                      {title}
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {figure.table.rows.map((row, i) => (
                  <tr key={`${i} ${row[0]}`}>
                    {row.map((cell, column) => (
                      <td key={`${column} ${figure.table!.head[column]}`}>{cell}</td>
                    ))}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </details>
      )}
    </>
  );
}
