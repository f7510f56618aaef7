/**
 * Tables 1 and 4 of the paper: editors on backbones and data sets, in the five metrics and their average. An editor that learns is used with the
 * weights that come with a model, or trained on the training split where there are none. Every training and evaluation has a folder of its own with
 * its manifest; what is finished there is not done again.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '../checkpoints/atomic.ts';
import type { DatasetKind } from '../data/records.ts';
import { buildWorld } from '../data/world/build.ts';
import { editorNamed } from '../editors/index.ts';
import { findShippedWeights } from '../editors/shipped.ts';
import type { Evaluation } from '../evaluation/metrics.ts';
import { runEvaluation } from '../evaluation/runner.ts';
import { comparisonRows, type Rows, toMarkdown } from '../evaluation/tables.ts';
import { trainEditor, weightsFile } from '../evaluation/training.ts';

export const datasets = { vqa: 'E-VQA', caption: 'E-IC' } as const satisfies Record<DatasetKind, string>;

export interface Table1Options {
  models: readonly string[];
  editors: readonly string[];
  /** a folder that `world build` wrote; drawn into `out` when absent */
  world?: string | undefined;
  out: string;
  seed: number;
  /** training steps where weights are trained; the editor's own number when absent */
  steps?: number | undefined;
  /** records evaluated of each data set; all when absent */
  limit?: number | undefined;
  jobs?: number | undefined;
  signal?: AbortSignal | undefined;
  log: (text: string) => void;
  onProgress?: (what: string, done: number, total: number, note: string) => void;
}

export interface Table1Cell {
  readonly model: string;
  readonly dataset: DatasetKind;
  readonly editor: string;
  readonly evaluation: Evaluation;
}

export interface Table1 {
  readonly cells: readonly Table1Cell[];
  readonly command: string;
}

/** @throws Stopped when the signal asks; the same call goes on */
export async function table1(options: Table1Options, command: string): Promise<Table1> {
  const { models, editors, out, seed, limit, log } = options;
  const world = options.world ?? join(out, 'world');
  if (!existsSync(join(world, 'manifest.json'))) {
    log('Drawing the mini world ...');
    await buildWorld({ seed, out: world });
  }
  const images = join(world, 'images');
  const cells: Table1Cell[] = [];
  for (const model of models) {
    for (const dataset of Object.keys(datasets) as DatasetKind[]) {
      for (const editor of editors) {
        const what = `${editor} on ${model}, ${datasets[dataset]}`;
        const dir = join(out, model.replaceAll('/', '-'), dataset, editor);
        log(what);
        const weights = await weightsOf(options, { model, dataset, editor, dir, world, command });
        const evaluationDir = join(dir, 'evaluation');
        const { evaluation } = await runEvaluation(
          {
            model,
            editor,
            ...(weights === undefined ? {} : { weights }),
            data: join(world, `${dataset}_test.json`),
            images,
            limit,
            batch: 16,
            maxNewTokens: dataset === 'vqa' ? 8 : 24,
          },
          {
            out: evaluationDir,
            resume: existsSync(evaluationDir),
            jobs: options.jobs,
            command,
            signal: options.signal,
            onProgress: (done, total) => options.onProgress?.(what, done, total, 'records'),
          },
        );
        cells.push({ model, dataset, editor, evaluation });
      }
    }
  }
  const result: Table1 = { cells, command };
  writeFileAtomic(join(out, 'table1.json'), `${JSON.stringify({ ...result, seed, limit: limit ?? null }, null, 2)}\n`);
  writeFileAtomic(join(out, 'table1.md'), toMarkdown(table1Rows(cells)));
  return result;
}

/** One row for each backbone, data set and editor. */
export function table1Rows(cells: readonly Table1Cell[]): Rows {
  const { head, rows, align } = comparisonRows(
    cells.map(({ editor, evaluation }) => ({ name: editor, runs: [evaluation] })),
    'Editor',
  );
  return {
    head: ['Backbone', 'Data', ...head, 'Average, free generation', 'Edits'],
    align: ['left', 'left', ...align, 'right', 'right'],
    rows: rows.map((row, i) => {
      const { model, dataset, evaluation } = cells[i]!;
      return [model, datasets[dataset], ...row, (100 * evaluation.generation.average).toFixed(2), evaluation.count];
    }),
  };
}

interface Training {
  readonly model: string;
  readonly dataset: DatasetKind;
  readonly editor: string;
  readonly dir: string;
  readonly world: string;
  readonly command: string;
}

/** File of an editor's weights; undefined for editors that learn nothing. */
async function weightsOf(
  { seed, steps, signal, onProgress }: Table1Options,
  { model, dataset, editor: id, dir, world, command }: Training,
): Promise<string | undefined> {
  const editor = await editorNamed(id);
  if (!editor.trained) return undefined;
  const shipped = findShippedWeights(model, id, dataset);
  if (shipped !== undefined) return shipped;
  const out = join(dir, 'training');
  const finished = join(dir, 'trained');
  if (!existsSync(finished)) {
    await trainEditor(
      { model, editor, data: join(world, `${dataset}_train.json`), images: join(world, 'images') },
      {
        out,
        seed,
        steps,
        signal,
        command,
        resume: existsSync(out),
        onStep: (p) =>
          onProgress?.(`training ${id} on ${model}, ${datasets[dataset]}`, p.step, p.steps, `loss ${p.loss.toFixed(3)}`),
      },
    );
    writeFileAtomic(finished, '');
  }
  return join(out, weightsFile);
}
