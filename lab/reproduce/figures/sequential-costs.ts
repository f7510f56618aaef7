/** What edits that stay cost, by their number: seconds to make one, seconds to ask about one, bytes of one; from the cells of Table 5. */

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileId } from '../../../src/evaluation/manifest.ts';
import type { FigurePanel, LineSeries } from '../../../src/figures/index.ts';
import { isColumnFile, readCells } from '../cell-store.ts';
import type { Claim, PaperFigure } from './figure.ts';

interface CostRow {
  readonly editor: string;
  readonly edits: number;
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
    const rows = readCells(from)
      .filter(({ manifest: { identity } }) => identity.model.name === model && identity.data.kind === 'vqa')
      .flatMap(({ manifest, points = [] }) =>
        points.map(
          ({ edits, evaluation, costs }): CostRow => ({
            editor: manifest.identity.editor.id,
            edits,
            editSeconds: costs.editSeconds / costs.edits,
            askSeconds: costs.askSeconds / evaluation.count,
            editBytes: costs.editBytes / costs.edits,
          }),
        ),
      );
    if (rows.length === 0)
      throw new Error(
        `${from} holds no cells of ${model} on E-VQA; make some with: visedit reproduce table5 --model ${model} --dataset vqa --out ${from}`,
      );
    const files = existsSync(from) ? readdirSync(from).filter(isColumnFile).sort() : [];
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
      files: files.map((name) => fileId(join(from, name))),
    };
  },
};

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

/** Whether the last edit takes no longer than the first, within a fifth. */
function steady(editor: string, rows: readonly CostRow[]): Claim[] {
  const own = rows.filter((row) => row.editor === editor).sort((a, b) => a.edits - b.edits);
  const [first, last] = [own[0]!, own.at(-1)!];
  if (first === last) return [];
  return [
    {
      claim: `${editor}: with ${last.edits} edits in the model another one takes no longer than the first (within 20 %)`,
      holds: last.editSeconds <= 1.2 * first.editSeconds,
      measured: `${(1000 * first.editSeconds).toFixed(1)} ms an edit in runs of ${first.edits}, ${(1000 * last.editSeconds).toFixed(1)} ms in runs of ${last.edits}; ${(1000 * first.askSeconds).toFixed(0)} and ${(1000 * last.askSeconds).toFixed(0)} ms for all queries of a record; ${(last.editBytes / 2 ** 10).toFixed(1)} KiB an edit`,
    },
  ];
}
