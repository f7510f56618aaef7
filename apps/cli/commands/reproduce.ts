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
import { protocol } from '../protocol.ts';
import { queueOption } from '../queue-option.ts';
import { comparePaper } from '../reproduce-compare.ts';
import { isFigure, reproduceFigure } from '../reproduce-figure.ts';
import { reproduceTable, tableNames } from '../reproduce-table.ts';

const values = {
  model: repeatable(
    text(
      "model folder or built-in name (default: table1 and table5 the minis of the paper's three families, table2, table3 and hard mini-llava, table4 mini-minigpt4; a figure's own)",
      { placeholder: 'MODEL' },
    ),
  ),
  editor: repeatable(editorOption('table1, table4, table5, hard: which editors (default: all)', false)),
  dataset: repeatable(
    choice('table1, table4, table5, hard: which data sets (default: both, or those that are named; hard: vqa)', [
      'vqa',
      'caption',
    ] as const),
  ),
  seeds: integers('tables: seeds of the trainings, such as 1,2,3 (default: 1)', { min: 0 }),
  seed: integer('seed of a figure, or the one seed of a table (default: tables 1, figures 0)', {
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
  }),
  world: folder(
    'folder of records: as `world build` writes it, or the official files (default: the mini world, drawn into --out)',
  ),
  dataVqa: repeatable(file('tables: E-VQA records; the file to evaluate, and one with "train" in its name to train on')),
  dataCaption: repeatable(file('tables: E-IC records, in the same way')),
  images: folder("folder that the records' image paths start from (default: images/ in --world)"),
  weights: file('figures 3, 4, 8 and 9: weights of VEAD (default: those that come with the model)'),
  from: folder(
    'layer-sweep: folder of a finished table2; sequential-costs: of a finished table5, or of folders that `evaluate --sequential` wrote; training-curves: folder of a training; compare: folder with table1/, table2/, table3/ (default: results)',
  ),
  out: outFolder('folder to write (default: runs/ and the name of the table or figure, with the protocol; compare: docs)'),
  layers: integers('table2: insert layers (default: all)'),
  steps: integer("training steps (default: table2 800 per layer; otherwise the recipe's or the editor's own)", { min: 1 }),
  limit: integer('records to evaluate: the first N (default: all; table2 300, hard 100)', { min: 1 }),
  edits: integer('table5: most edits in the model (default: 1000)', { min: 1 }),
  moments: integer('table5: in runs up to N edits, ask for each edit at its own moment, too (default: 10)', { min: 0 }),
  sample: integer('table5: records asked at each number of edits, chosen at random (default: 250)', { min: 1 }),
  trainLimit: integer('tables: records to train on: the first N (default: all)', { min: 1 }),
  jobs: integer('number of processes', { min: 1, max: 256 }),
  queue: queueOption,
  threads: integer('number of threads (default: all cores)', { min: 1 }),
  dtype: choice('tables: type of the model weights in memory (default: as they are stored)', weightTypes),
  protocol,
  ownTraining: flag('table1: train every editor on the given records, also where weights come with the model'),
  quick: flag(
    'make a rough table in minutes, to see its shape: few training steps, few records, weights that come with the models',
  ),
  redo: flag('tables: replace finished cells that were made with other settings, data or models'),
  finished: flag('table1, table4, table5, hard: write the table of the finished cells in --out, and evaluate nothing'),
};

export type ReproduceOptions = ParsedValues<typeof values>;

export const command = defineCommand({
  details: [
    "table1 evaluates editors on backbones and both data sets; table4 is its MiniGPT-4 part. An editor that is trained is trained once per seed, unless weights of that seed come with the model; an editor that draws no random numbers is evaluated once. --protocol published sets each editor as its authors and VisEdit's run it, with fine-tuning at 1, 3 and 5 steps beside; the row of no edit is the unedited model's. table2 evaluates VEAD at every insert layer, beside the module contributions. table3 evaluates VEAD without each of its losses and parts. table5, which the paper does not have, is LiveEdit's lifelong evaluation: runs of 1, 10, 100 and 1000 edits that stay, each run from the unedited model, all edits first and then all queries. hard evaluates editors as their authors run them on the hard world (world build --hard): E-VQA, every editor trained there, the first 100 edits, fine-tuning at 1, 3, 5 and 25 steps, and how the ordering of editors compares with the paper's for each of these.",
    'Each finished cell is a line of MODEL-DATA.cells.jsonl in --out: its figures, its manifest, what the paired tests need, and the training curve. After a stop the same command continues, with the finished cells alone if the rest is gone. Unfinished work and weights are in --out/work. Tables are written as .md, .tex, .csv and .json.',
    'For real checkpoints and the official data, give --model any folder that `inspect` opens, and --world a folder with vqa/vqa_train.json, vqa/vqa_eval.json, caption/caption_train_edit.json, caption/caption_eval_edit.json and images/, or name the files with --data-vqa and --data-caption.',
    "compare writes results.md: finished tables beside the paper's, row by row, and for each finding whether it holds. Text that people wrote between its sections stays.",
    'figure1 and figure3 to figure9 write the figure as SVG and PNG, its data as JSON, and whether the claims of the paper about it hold. layer-sweep draws a finished table2, sequential-costs a finished table5 or folders of `evaluate --sequential`. training-curves draws the training of a mini or, with --from, of an editor.',
  ].join('\n\n'),
  arguments: {
    what: choice('table or figure', [...tableNames, 'compare', ...figureNames] as const, { required: true }),
  },
  options: values,
  examples: [
    'reproduce table1 --quick',
    'reproduce table1 --seeds 1,2,3 --out results/table1',
    'reproduce table1 --model mini-llava --dataset vqa --editor lte --editor mend --seeds 1,2,3 --threads 1',
    'reproduce table1 --model checkpoints/llava-1.5-7b --world editing-data --dtype float16',
    'reproduce table1 --model checkpoints/llava --data-vqa vqa_train.json --data-vqa vqa_eval.json --images coco',
    'reproduce hard --editor vead --editor serac',
    'reproduce hard --world runs/hard --limit 200 --seeds 1,2,3',
    'reproduce table2 --layers 0-5 --steps 1200 --seeds 1,2',
    'reproduce table3 --model mini-llava --seeds 1,2,3',
    'reproduce table5 --model mini-llava --editor vead --editor lte --dataset vqa --out results/table5',
    'reproduce table5 --edits 10 --limit 40 --train-limit 400 --steps 50 --editor ft-l',
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
