/** A command for each tool of src/attribution/tools: one question, or the average over a data set. */
import { writeFileSync } from 'node:fs';
import type { Found, Subject as Looked, Matrix, Shown, Tool, ToolRun } from '../../../../src/attribution/tools/tool.ts';
import type { FigurePanel } from '../../../../src/figures/index.ts';
import { defineCommand } from '../../frame/command.ts';
import type { CommandContext } from '../../frame/context.ts';
import { schemaValues } from '../../frame/schema-values.ts';
import { file, folder, integer, outFile, seed, text } from '../../frame/values.ts';
import { openModel, openSubject, subjectOptions } from './subject.ts';
import { picture } from './values.ts';

const againstOptions = {
  againstImage: file('the other picture'),
  againstPrompt: text('the other prompt'),
};
export const dataOptions = {
  data: file('records (E-VQA or E-IC JSON): their requests are explained, and the numbers averaged'),
  images: folder('with --data: folder that their image paths start from'),
  limit: integer('with --data: at most N records', { min: 1 }),
  csv: outFile('with --data: table to write, a line for each record and number', { endings: ['.csv'] }),
};

/** The command of a tool. */
export function toolCommand(tool: Tool, examples: readonly string[]) {
  const own = schemaValues(tool.options);
  const names = new Set(Object.keys(own));
  return defineCommand({
    details: tool.details,
    options: {
      ...subjectOptions,
      ...own,
      ...(tool.compares !== undefined ? againstOptions : {}),
      ...dataOptions,
      seed: seed(),
      out: picture,
    },
    examples,
    async run(all, context) {
      const values = all as unknown as Record<string, unknown>;
      const given = all as unknown as Parameters<typeof openSubject>[0] & { seed: number; out?: string; data?: string };
      const options = Object.fromEntries(Object.entries(values).filter(([name]) => names.has(name)));
      const { found, extra, difference } =
        given.data === undefined
          ? await explainOne(tool, given, options, values, context)
          : await explainAll(tool, { ...given, data: given.data }, options, values, context);
      if (given.out !== undefined) {
        if (found.panels.length === 0) throw new Error(`there is nothing to draw; leave out --out`);
        const { drawFigure, savePicture } = await import('../../../../src/figures/index.ts');
        savePicture(given.out, await drawFigure({ panels: found.panels, columns: 1 }));
      }
      const { key, said, table, data } = found;
      return {
        data: { tool: tool.id, ...extra, key, ...data, ...(given.out === undefined ? {} : { out: given.out }) },
        text: [
          ...(given.data === undefined
            ? [`Explained: ${JSON.stringify(key.text)} (token ${key.id}, probability ${key.probability.toFixed(3)})`]
            : []),
          ...said,
          context.table({ head: table.head, rows: table.rows }),
          ...(difference === undefined
            ? []
            : ['', 'Difference that the edits made:', context.table({ head: difference.head, rows: difference.rows })]),
          ...(given.out === undefined ? [] : ['', `Picture in ${given.out}.`]),
        ].join('\n'),
      };
    },
  });
}

type Given = Parameters<typeof openSubject>[0] & { seed: number };
type Result = { found: Found; extra: Record<string, unknown>; difference?: Shown };

async function explainOne(
  tool: Tool,
  given: Given,
  options: Record<string, unknown>,
  values: Record<string, unknown>,
  context: CommandContext,
): Promise<Result> {
  const { decodeImage } = await import('../../../../src/input/image/decode.ts');
  const subject = await openSubject(given, context);
  const { vlm, prompt, images, warnings } = subject;
  if (tool.picture === true && images.length === 0) throw new Error('there is no picture to look at; give --image FILE');
  const [imagePath, otherPrompt] = [values.againstImage, values.againstPrompt] as [string | undefined, string | undefined];
  const against = { image: imagePath === undefined ? undefined : await decodeImage(imagePath), prompt: otherPrompt };
  if (tool.compares === 'must' && against.image === undefined && otherPrompt === undefined)
    throw new Error('there is nothing to compare with; give --against-image FILE or --against-prompt TEXT');
  let bar: ReturnType<typeof context.progress> | undefined;
  const run: ToolRun = {
    ...{ against, seed: given.seed, signal: context.signal },
    onProgress: (done, total) => {
      bar ??= context.progress(total, 'Running', { unit: 'runs' });
      bar.update(done);
    },
  };
  const found = await tool.run(subject, options, run);
  const { without } = subject;
  const plain = without === undefined ? undefined : await tool.run({ ...without, keyId: found.key.id }, options, run);
  bar?.finish();
  await vlm.release();
  const extra = { model: vlm.name, prompt, warnings };
  return plain === undefined ? { found, extra } : { ...compared(found, plain), extra };
}

/** What a tool finds under edits, with what it finds without them, of the same token. */
function compared(found: Found, plain: Found): Omit<Result, 'extra'> {
  const said = [...found.said, `Without the edits “${found.key.text}” has the probability ${plain.key.probability.toFixed(3)}.`];
  const without = { probability: plain.key.probability, ...plain.data };
  const [now, before] = [found.matrix, plain.matrix];
  const alike = now !== undefined && before !== undefined && `${now.rows}|${now.columns}` === `${before.rows}|${before.columns}`;
  if (!alike) return { found: { ...found, said, data: { ...found.data, without } } };
  const values = now.values.map((row, r) => row.map((value, c) => (value ?? 0) - (before.values[r]![c] ?? 0)));
  const { rows, columns, what } = now;
  const panel: FigurePanel = {
    kind: 'matrix',
    data: { rows, columns, values, title: 'Difference that the edits made', scaleTitle: `Difference of: ${what}` },
  };
  return {
    found: { ...found, said, data: { ...found.data, without, difference: values }, panels: [...found.panels, panel] },
    difference: { head: ['', ...columns], rows: values.map((row, r) => [rows[r]!, ...row.map((value) => value.toFixed(3))]) },
  };
}

async function explainAll(
  tool: Tool,
  given: Given & { data: string },
  options: Record<string, unknown>,
  values: Record<string, unknown>,
  context: CommandContext,
): Promise<Result> {
  if (given.prompt !== undefined || given.image.length > 0)
    throw new Error('--data brings its own questions; leave out --prompt and --image');
  const images = values.images as string | undefined;
  if (images === undefined) throw new Error('--data needs --images DIR, the folder of its pictures');
  const [{ openRecords }, { decodeImage }] = await Promise.all([
    import('../../../../src/input/records.ts'),
    import('../../../../src/input/image/decode.ts'),
  ]);
  const { records } = openRecords(given.data, images, values.limit === undefined ? {} : { limit: values.limit as number });
  const model = await openModel(given, context);
  const bar = context.progress(records.length, 'Explaining', { unit: 'records' });
  const matrices: Matrix[] = [];
  const keys: { index: number; text: string }[] = [];
  let last: Found | undefined;
  for (const [i, { index, request }] of records.entries()) {
    context.signal.throwIfAborted();
    const image = await decodeImage(request.image);
    const subject: Looked = await model.look({ prompt: request.prompt, image }, given.token, undefined);
    const other = records[(i + 1) % records.length]!.request;
    const against = tool.compares !== undefined ? { image: await decodeImage(other.image) } : undefined;
    last = await tool.run(subject, options, { against, averaged: true, seed: given.seed, signal: context.signal });
    const { matrix, key } = last;
    if (matrix === undefined) throw new Error(`${tool.id} cannot be averaged over a data set; leave out --data`);
    matrices.push(matrix);
    keys.push({ index, text: key.text });
    bar.update(i + 1);
  }
  bar.finish();
  await model.vlm.release();
  const [first] = matrices;
  if (first === undefined) throw new Error('there are no records');
  const means = first.values.map((row, r) =>
    row.map((_, c) => {
      const there = matrices.map(({ values }) => values[r]?.[c]).filter((value): value is number => value != null);
      return there.length === 0 ? null : there.reduce((a, b) => a + b, 0) / there.length;
    }),
  );
  const shown = mostOf(first, means);
  const [rows, mean] = [shown.map((r) => first.rows[r]!), shown.map((r) => means[r]!)];
  const csv = values.csv as string | undefined;
  if (csv !== undefined) {
    const lines = matrices.flatMap(({ columns, values }, i) =>
      shown.flatMap((r) =>
        columns.map((column, c) =>
          [keys[i]!.index, keys[i]!.text, first.rows[r]!, column, values[r]?.[c] ?? ''].map(csvCell).join(','),
        ),
      ),
    );
    writeFileSync(csv, `${['record,key,row,column,value', ...lines].join('\n')}\n`);
  }
  const what = first.what.replace(/“[^”]*”/, 'key');
  const panel: FigurePanel = {
    kind: 'matrix',
    data: {
      rows,
      columns: first.columns,
      values: mean,
      title: `${tool.id}: mean of ${matrices.length} questions`,
      scaleTitle: what,
    },
  };
  return {
    found: {
      key: last!.key,
      said: [`Mean of ${matrices.length} questions: ${what}.`, ...(csv === undefined ? [] : [`Every number in ${csv}.`])],
      table: {
        head: ['', ...first.columns],
        rows: mean.map((row, r) => [rows[r]!, ...row.map((value) => value?.toFixed(3) ?? '')]),
      },
      data: {
        records: matrices.length,
        what,
        rows,
        columns: first.columns,
        mean,
        ...(csv === undefined ? {} : { csv }),
      },
      panels: [panel],
    },
    extra: { model: model.vlm.name },
  };
}

/** Rows of a mean that are shown: all, or the `most` with the largest values. */
function mostOf({ rows, most }: Matrix, means: readonly (readonly (number | null)[])[]): number[] {
  const all = rows.map((_, r) => r);
  if (most === undefined) return all;
  const size = (r: number): number => Math.abs(means[r]![0] ?? 0);
  return all.sort((a, b) => size(b) - size(a)).slice(0, most);
}

export const csvCell = (value: string | number): string => {
  const text = String(value);
  return /[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
};
