/**
 * What edits that stay cost, by their number: seconds to make one, seconds to ask about one, bytes of one; from the cells of Table 5, or from folders of
 * `evaluate --sequential`.
 */

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { fileId, manifestFile } from '../../../src/evaluation/manifest.ts';
import { summaryFile } from '../../../src/evaluation/runner.ts';
import { costsFile, sequentialFolder } from '../../../src/evaluation/sequential.ts';
import type { FigurePanel, LineSeries } from '../../../src/figures/index.ts';
import { readJsonAs } from '../../../src/files/schema.ts';
import { isColumnFile, readCells } from '../cell-store.ts';
import type { Claim, PaperFigure } from './figure.ts';

interface CostRow {
  readonly editor: string;
  /** in the model */
  readonly edits: number;
  /** edits that were made and timed */
  readonly made: number;
  /** to make an edit */
  readonly editSeconds: number;
  /** to ask all queries of a record */
  readonly askSeconds: number;
  readonly editBytes: number;
}

const most = 7;

export const sequentialCosts: PaperFigure = {
  summary: 'seconds and bytes of edits that stay, by their number, from a finished table5 (--from DIR)',
  models: ['mini-llava'],
  async make({ models, from = 'results/table5' }) {
    const model = models?.[0] ?? sequentialCosts.models[0]!;
    const rows = [...cellRows(from, model), ...folderRows(from, model)];
    if (rows.length === 0)
      throw new Error(
        `${from} holds no cells of ${model} on E-VQA and no folders of \`evaluate --sequential\` with their costs; make some with: visedit reproduce table5 --model ${model} --dataset vqa --out ${from}`,
      );
    const names = existsSync(from) ? readdirSync(from).sort() : [];
    const files = names.flatMap((name) =>
      isColumnFile(name) ? [join(from, name)] : costFiles(join(from, name)).map(({ path }) => path),
    );
    return {
      caption: `What edits that stay cost on ${model} (E-VQA), by how many are in the model: to make one, to ask all queries of one, and what one takes. Times are of the machine that made the table.`,
      figure: {
        columns: 1,
        panels: [
          panel('(a) Seconds to make an edit', 'Seconds', rows, ({ editSeconds }) => editSeconds),
          panel('(b) Seconds to ask all queries of a record', 'Seconds', rows, ({ askSeconds }) => askSeconds),
          panel('(c) Size of an edit', 'KiB', rows, ({ editBytes }) => editBytes / 2 ** 10),
        ],
      },
      claims: editorsOf(rows).flatMap((editor) => steady(editor, rows)),
      measures: { rows },
      models: [],
      files: files.map((path) => fileId(path)),
    };
  },
};

function cellRows(from: string, model: string): CostRow[] {
  return readCells(from)
    .filter(({ manifest: { identity } }) => identity.model.name === model && identity.data.kind === 'vqa')
    .flatMap(({ manifest, points = [] }) =>
      points.map(
        ({ edits, evaluation, costs }): CostRow => ({
          editor: manifest.identity.editor.id,
          edits,
          made: costs.edits,
          editSeconds: costs.editSeconds / costs.edits,
          askSeconds: costs.askSeconds / evaluation.count,
          editBytes: costs.editBytes / costs.edits,
        }),
      ),
    );
}

const costs = z.looseObject({ edits: z.int(), editSeconds: z.number(), askSeconds: z.number(), editBytes: z.number() });
const summary = z.looseObject({
  points: z.array(z.looseObject({ edits: z.int(), evaluation: z.looseObject({ count: z.int() }) })),
});
const manifest = z.looseObject({
  identity: z.looseObject({
    model: z.looseObject({ name: z.string() }),
    editor: z.looseObject({ id: z.string() }),
    data: z.looseObject({ kind: z.string() }),
  }),
});

/** What the lengths of a folder of `evaluate --sequential` cost, where it says so. */
function costFiles(folder: string): { edits: number; count: number; path: string }[] {
  const path = join(folder, summaryFile);
  if (!existsSync(path) || !existsSync(join(folder, manifestFile))) return [];
  return readJsonAs(path, summary).points.flatMap(({ edits, evaluation: { count } }) => {
    const file = join(folder, sequentialFolder(edits), costsFile);
    return existsSync(file) ? [{ edits, count, path: file }] : [];
  });
}

/** Of one run of growing length: the edits that are new at each are timed. */
function folderRows(from: string, model: string): CostRow[] {
  const names = existsSync(from) ? readdirSync(from).sort() : [];
  return names.flatMap((name) => {
    const files = costFiles(join(from, name));
    if (files.length === 0) return [];
    const { identity } = readJsonAs(join(from, name, manifestFile), manifest);
    if (identity.model.name !== model || identity.data.kind !== 'vqa') return [];
    return files.map(({ edits, count, path }): CostRow => {
      const one = readJsonAs(path, costs);
      return {
        editor: identity.editor.id,
        edits,
        made: one.edits,
        editSeconds: one.editSeconds / one.edits,
        askSeconds: one.askSeconds / count,
        editBytes: one.editBytes / one.edits,
      };
    });
  });
}

const editorsOf = (rows: readonly CostRow[]): string[] => [...new Set(rows.map(({ editor }) => editor))];

function panel(title: string, yTitle: string, rows: readonly CostRow[], of: (row: CostRow) => number): FigurePanel {
  const series = editorsOf(rows)
    .slice(0, most)
    .map((label): LineSeries => {
      const own = rows.filter(({ editor }) => editor === label).sort((a, b) => a.edits - b.edits);
      return { label, x: own.map(({ edits }) => Math.log10(edits)), y: own.map(of) };
    });
  return {
    kind: 'line-chart',
    title,
    data: { xTitle: 'Edits in the model, as powers of ten', yTitle, yScale: 'log', points: true, series },
  };
}

/** Whether another edit takes no longer than the first ones, within a fifth. Among the first few, programs are opened: they do not count. */
function steady(editor: string, rows: readonly CostRow[]): Claim[] {
  const own = rows.filter((row) => row.editor === editor).sort((a, b) => a.edits - b.edits);
  const first = own.find(({ made }) => made >= 50) ?? own[0]!;
  const last = own.at(-1)!;
  if (first === last) return [];
  return [
    {
      claim: `${editor}: with ${last.edits} edits in the model another one takes no longer than among the first ${first.edits} (within 20 %)`,
      holds: last.editSeconds <= 1.2 * first.editSeconds,
      measured: `${(1000 * first.editSeconds).toFixed(1)} ms an edit up to ${first.edits}, ${(1000 * last.editSeconds).toFixed(1)} ms up to ${last.edits}; ${(1000 * first.askSeconds).toFixed(0)} and ${(1000 * last.askSeconds).toFixed(0)} ms for all queries of a record; ${(last.editBytes / 2 ** 10).toFixed(1)} KiB an edit`,
    },
  ];
}
