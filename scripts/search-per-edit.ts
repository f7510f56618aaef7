/**
 * Chooses settings of an editor that works per edit (steps, rate, ...; IKE's k) by their metrics on edits of the training split:
 *   node --import tsx scripts/search-per-edit.ts ft-l --model mini-llava --data runs/world/vqa_train.json --images runs/world/images \
 *     --grid rate=0.001,0.003,0.01 --grid steps=25,50 --out results/search/mini-llava-vqa-ft-l.json
 * TP and IKE need the weights that `visedit train` makes. Run again, it goes on with what is in --out.
 */
import { parseArgs } from 'node:util';
import { recipeOf, sizesOf } from '../lab/recipes.ts';
import { editorIds } from '../src/editors/index.ts';
import { gridOf, searchSettings } from '../src/evaluation/search.ts';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string' },
    data: { type: 'string' },
    images: { type: 'string' },
    weights: { type: 'string' },
    grid: { type: 'string', multiple: true },
    edits: { type: 'string', default: '48' },
    seed: { type: 'string', default: '1' },
    threads: { type: 'string' },
    out: { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

const usage =
  'search-per-edit EDITOR --model M --data F --images DIR --grid NAME=VALUE,VALUE [--grid ...] --out F.json [--weights F] [--edits 48] [--seed 1] [--threads N]';

function number(name: string, text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new Error(`--${name}: ${JSON.stringify(text)} is no number`);
  return value;
}

async function main(): Promise<void> {
  const [editor] = positionals;
  const { model, data, images, grid = [], weights, out, threads } = values;
  if (values.help || editor === undefined || !model || !data || !images || !out || grid.length === 0) {
    console.log(`${usage}\neditors: ${editorIds.join(', ')}`);
    process.exitCode = values.help ? 0 : 1;
    return;
  }
  const choices = Object.fromEntries(
    grid.map((text) => {
      const [name, list = ''] = text.split('=');
      return [name!, list.split(',').map((value) => number(`grid ${name}`, value))];
    }),
  );
  const job = {
    model,
    editor,
    weights,
    data,
    images,
    edits: number('edits', values.edits),
    seed: number('seed', values.seed),
    grid: gridOf(choices).map((settings) => ({ ...recipeOf(sizesOf(model), editor).edit, ...settings })),
    threads: threads === undefined ? undefined : number('threads', threads),
  };
  const percent = (x: number): string => (100 * x).toFixed(1).padStart(5);
  const { best } = await searchSettings(job, out, {
    command: ['scripts/search-per-edit.ts', ...process.argv.slice(2)].join(' '),
    onCombination: ({ settings, metrics, secondsPerEdit }) => {
      const { reliability, textGenerality, modalGenerality, textLocality, modalLocality, average } = metrics;
      const five = [reliability, textGenerality, modalGenerality, textLocality, modalLocality].map(percent).join(' ');
      console.log(`${JSON.stringify(settings)}  ${five}  average ${percent(average)}  ${secondsPerEdit.toFixed(2)} s an edit`);
    },
  });
  console.log(`best: ${JSON.stringify(best)}; all in ${out}`);
}

main().catch((error: Error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
});
