/** `visedit reproduce`: the paper's tables and figures, one command each. */
import { defineCommand } from '../frame/command.ts';
import { choice, flag, folder, integer, integers, outFolder, seed, text } from '../frame/values.ts';
import { stoppable } from '../stoppable.ts';

export const command = defineCommand({
  details:
    'table2: VEAD trained and evaluated at every insert layer, beside the module contributions. What is finished in --out is kept: the same command goes on after a stop.',
  arguments: { what: choice('which table or figure', ['table2'] as const, { required: true }) },
  options: {
    model: text('model folder or built-in name', { default: 'mini-llava', placeholder: 'MODEL' }),
    world: folder('a folder that `world build` wrote (default: drawn anew into --out)'),
    out: outFolder('folder to write', { default: 'runs/table2' }),
    layers: integers('insert layers (default: all)'),
    steps: integer('training steps per layer (default: 800, with --quick 100)', { min: 1 }),
    limit: integer('records to evaluate (default: 300, with --quick 60)', { min: 1 }),
    quick: flag('a few minutes instead of an hour: the shape of the table, not its figures'),
    seed: seed(),
  },
  examples: ['reproduce table2 --quick', 'reproduce table2 --layers 0,1,2 --steps 1200 --out runs/table2'],
  async run({ model, world, out, layers, steps, limit, quick, seed }, context) {
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
        ['visedit', ...process.argv.slice(2)].join(' '),
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
  },
});
