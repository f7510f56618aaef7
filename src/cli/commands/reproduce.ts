/** `visedit reproduce`: the paper's tables and figures, one command each. */

import { editorIds } from '../../editors/index.ts';
import { figureNames } from '../../reproduce/figures/index.ts';
import { type CommandResult, defineCommand } from '../frame/command.ts';
import type { CommandContext } from '../frame/context.ts';
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
  seed,
  text,
} from '../frame/values.ts';
import { isFigure, reproduceFigure } from '../reproduce-figure.ts';
import { stoppable } from '../stoppable.ts';

const builtIn = ['mini-llava', 'mini-blip2-opt', 'mini-minigpt4'];

const values = {
  model: repeatable(
    text("model folder or built-in name (default: table1 all minis, table2 mini-llava, table4 mini-minigpt4; a figure's own)", {
      placeholder: 'MODEL',
    }),
  ),
  editor: repeatable(choice('table1, table4: which editors (default: all)', editorIds)),
  weights: file('figures 3, 4, 8 and 9: weights of VEAD (default: those that come with the model)'),
  from: folder('layer-sweep: folder of a finished table2; training-curves: folder of a training'),
  world: folder('a folder that `world build` wrote (default: drawn anew into --out)'),
  out: outFolder('folder to write (default: runs/ and the name of the table or figure)'),
  layers: integers('table2: insert layers (default: all)'),
  steps: integer("training steps (default: table2 800 per layer, with --quick 100; otherwise the editor's own)", { min: 1 }),
  limit: integer('records to evaluate (default: all; table2 300; with --quick 60)', { min: 1 }),
  jobs: integer('processes that evaluate', { min: 1 }),
  quick: flag('a few minutes instead of hours: the shape of the table, not its figures'),
  seed: seed(),
};

export const command = defineCommand({
  details:
    'table1: editors on backbones and both data sets (table4 is its MiniGPT-4 part), with the weights that come with a model, or trained where there are none. table2: VEAD trained and evaluated at every insert layer, beside the module contributions. What is finished in --out is kept: the same command goes on after a stop. figure1, figure3 to figure9: the figure as SVG and PNG, its data as JSON, and whether what the paper claims of it holds. layer-sweep draws a finished table2, training-curves the training of a mini or, with --from, of an editor.',
  arguments: {
    what: choice('which table or figure', ['table1', 'table2', 'table4', ...figureNames] as const, { required: true }),
  },
  options: values,
  examples: [
    'reproduce table1 --editor vead --out runs/table1',
    'reproduce table2 --quick',
    'reproduce table2 --layers 0,1,2 --steps 1200 --out runs/table2',
    'reproduce figure6',
    'reproduce figure4 --limit 40 --out runs/edits',
    'reproduce layer-sweep --from runs/table2',
  ],
  async run({ what, ...options }, context) {
    const named = { ...options, out: options.out ?? `runs/${what}` };
    if (isFigure(what)) return reproduceFigure(what, named, context);
    return what === 'table2' ? insertLayers(named, context) : editorsTable(what, named, context);
  },
});

type Options = ParsedValues<typeof values> & { out: string };

const commandLine = (): string => ['visedit', ...process.argv.slice(2)].join(' ');

async function editorsTable(what: 'table1' | 'table4', options: Options, context: CommandContext): Promise<CommandResult> {
  const { table1, table1Rows } = await import('../../reproduce/table1.ts');
  const { model, editor, quick, limit, steps, world, out, jobs, seed } = options;
  let bar: { what: string; bar: ReturnType<typeof context.progress> } | undefined;
  const { cells, ...rest } = await stoppable(context, 'Run the same command again to go on.', () =>
    table1(
      {
        models: model.length > 0 ? model : what === 'table4' ? ['mini-minigpt4'] : builtIn,
        editors: editor.length > 0 ? editor : editorIds,
        world,
        out,
        seed,
        jobs,
        steps: steps ?? (quick ? 100 : undefined),
        limit: limit ?? (quick ? 60 : undefined),
        signal: context.signal,
        log: (line) => context.log(line),
        onProgress: (now, done, total, note) => {
          if (bar?.what !== now) {
            bar?.bar.finish();
            bar = { what: now, bar: context.progress(total, now, { start: done }) };
          }
          bar.bar.update(done, { note });
        },
      },
      commandLine(),
    ),
  );
  bar?.bar.finish();
  return {
    data: { ...rest, cells, out },
    text: `${context.table(table1Rows(cells))}\n\nResults, manifests and table1.md in ${out}.`,
  };
}

async function insertLayers(options: Options, context: CommandContext): Promise<CommandResult> {
  const { world, out, layers, steps, limit, quick, seed } = options;
  const model = options.model[0] ?? 'mini-llava';
  const { table2 } = await import('../../reproduce/table2.ts');
  let bar: { layer: number; bar: ReturnType<typeof context.progress> } | undefined;
  const result = await stoppable(context, 'Run the same command again to go on.', () =>
    table2(
      {
        model,
        world,
        out,
        layers,
        seed,
        steps: steps ?? (quick ? 100 : 800),
        limit: limit ?? (quick ? 60 : 300),
        signal: context.signal,
        log: (line) => context.log(line),
        onStep: (layer, step, total, loss) => {
          if (bar?.layer !== layer) {
            bar?.bar.finish();
            bar = { layer, bar: context.progress(total, `Layer ${layer}`, { unit: 'steps', start: step - 1 }) };
          }
          bar.bar.update(step, { note: `loss ${loss.toFixed(2)}` });
        },
      },
      commandLine(),
    ),
  );
  bar?.bar.finish();
  const percent = (x: number): string => (100 * x).toFixed(2);
  const rows = result.rows.map((r) => [
    r.layer,
    ...[r.reliability, r.textGenerality, r.modalGenerality, r.textLocality, r.modalLocality, r.average].map(percent),
    result.contributions.attn[r.layer]!.toFixed(3),
    result.contributions.mlp[r.layer]!.toFixed(3),
  ]);
  const head = ['layer', 'Rel', 'T-Gen', 'M-Gen', 'T-Loc', 'M-Loc', 'average', 'attn contribution', 'MLP contribution'];
  return { data: { ...result, out }, text: `${context.table({ head, rows })}\n\nPictures and numbers in ${out}.` };
}
