/** `visedit reproduce`: the paper's tables and figures, one command each. */

import { figureNames } from '../../../lab/reproduce/figures/index.ts';
import { weightTypes } from '../../../src/models/weight-types.ts';
import { editorOption } from '../editor-option.ts';
import { defineCommand } from '../frame/command.ts';
import {
  choice,
  file,
  flag,
  folder,
  integer,
  integers,
  outFolder,
  type ParsedValues,
  repeatable,
  text,
} from '../frame/values.ts';
import { comparePaper } from '../reproduce-compare.ts';
import { isFigure, reproduceFigure } from '../reproduce-figure.ts';
import { reproduceTable, tableNames } from '../reproduce-table.ts';

const values = {
  model: repeatable(
    text(
      "model folder or built-in name (default: table1 all minis, table2 and table3 mini-llava, table4 mini-minigpt4; a figure's own)",
      { placeholder: 'MODEL' },
    ),
  ),
  editor: repeatable(editorOption('table1, table4: which editors (default: all)', false)),
  dataset: repeatable(
    choice('table1, table4: which data sets (default: both, or those that are named)', ['vqa', 'caption'] as const),
  ),
  seeds: integers('tables: seeds of what draws random numbers, as 1,2,3 (default: 1)', { min: 0 }),
  seed: integer('one seed (default: tables 1, figures 0)', { min: 0, max: Number.MAX_SAFE_INTEGER }),
  world: folder(
    'folder of records: as `world build` writes it, or the official files (default: the mini world, drawn into --out)',
  ),
  dataVqa: repeatable(file('tables: E-VQA records; the file to evaluate, and one with "train" in its name to train on')),
  dataCaption: repeatable(file('tables: E-IC records, in the same way')),
  images: folder("folder that the records' image paths start from (default: images/ in --world)"),
  weights: file('figures 3, 4, 8 and 9: weights of VEAD (default: those that come with the model)'),
  from: folder(
    'layer-sweep: folder of a finished table2; training-curves: folder of a training; compare: folder with table1/, table2/, table3/ (default: results)',
  ),
  out: outFolder('folder to write (default: runs/ and the name of the table or figure; compare: docs)'),
  layers: integers('table2: insert layers (default: all)'),
  steps: integer("training steps (default: table2 800 per layer; otherwise the recipe's or the editor's own)", { min: 1 }),
  limit: integer('records to evaluate: the first N (default: all; table2 300)', { min: 1 }),
  trainLimit: integer('tables: records to train on: the first N (default: all)', { min: 1 }),
  jobs: integer('processes that evaluate', { min: 1, max: 256 }),
  threads: integer('threads of one product (default: all cores)', { min: 1 }),
  dtype: choice('tables: keep weights of the model as this type', weightTypes),
  quick: flag(
    'the shape of the table in minutes, not its figures: few training steps, few records, weights that come with the models',
  ),
  redo: flag('tables: make finished cells anew where they were made with other settings, data or models'),
  finished: flag('table1, table4: only write the table of the cells that are finished in --out'),
};

export type ReproduceOptions = ParsedValues<typeof values>;

export const command = defineCommand({
  details: [
    'table1: editors on backbones and both data sets (table4 is its MiniGPT-4 part). What learns is trained once per seed, except where weights of that seed come with the model; what draws no random numbers is run once. table2: VEAD at every insert layer, beside the module contributions. table3: VEAD without each of its losses and parts.',
    'A finished cell is a line of MODEL-DATA.cells.jsonl in --out, small enough to be committed: its figures, its manifest, what tests are paired by, and the training curve. The same command goes on after a stop, also from cells alone; work in progress and weights are in --out/work. Tables are written as .md, .tex, .csv and .json.',
    'Real checkpoints and official data: --model takes any folder that `inspect` opens, --world a folder with vqa/vqa_train.json, vqa/vqa_eval.json, caption/caption_train_edit.json, caption/caption_eval_edit.json and images/; or name files with --data-vqa and --data-caption.',
    "compare: sets finished tables beside the paper's, row by row, and says of each finding whether it holds; writes results.md, and keeps what people wrote between its sections.",
    'figure1, figure3 to figure9: the figure as SVG and PNG, its data as JSON, and whether what the paper claims of it holds. layer-sweep draws a finished table2, training-curves the training of a mini or, with --from, of an editor.',
  ].join('\n\n'),
  arguments: {
    what: choice('which table or figure', [...tableNames, 'compare', ...figureNames] as const, { required: true }),
  },
  options: values,
  examples: [
    'reproduce table1 --quick',
    'reproduce table1 --seeds 1,2,3 --out results/table1',
    'reproduce table1 --model mini-llava --dataset vqa --editor lte --editor mend --seeds 1,2,3 --threads 1',
    'reproduce table1 --model checkpoints/llava-1.5-7b --world editing-data --dtype float16',
    'reproduce table1 --model checkpoints/llava --data-vqa vqa_train.json --data-vqa vqa_eval.json --images coco',
    'reproduce table2 --layers 0-5 --steps 1200 --seeds 1,2',
    'reproduce table3 --model mini-llava --seeds 1,2,3',
    'reproduce compare --from results --out docs',
    'reproduce figure6',
    'reproduce layer-sweep --from runs/table2',
  ],
  async run({ what, ...options }, context) {
    if (what === 'compare') return comparePaper(options, context);
    const out = options.out ?? `runs/${what}`;
    if (isFigure(what)) return reproduceFigure(what, { ...options, out, seed: options.seed ?? 0 }, context);
    return reproduceTable(what, options, context);
  },
});
