/** A program of toy commands, started as a process by the tests of the command line's frame. */
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type CommandEntry, defineCommand, entry } from '../../apps/cli/frame/command.ts';
import { runProgram } from '../../apps/cli/frame/run.ts';
import { choice, file, flag, integer, integers, number, outFile, repeatable, seed, text } from '../../apps/cli/frame/values.ts';

const echo = defineCommand({
  details: 'Gives back what it was given.',
  arguments: { model: text('a model', { required: true }) },
  options: {
    prompt: text('what to ask', { required: true }),
    maxNewTokens: integer('how many tokens', { default: 16, min: 1, max: 4096 }),
    sigma: number('noise', { above: 0 }),
    layers: integers('which layers', { max: 31 }),
    kind: choice('what kind', ['modules', 'visual'], { default: 'modules' }),
    edit: repeatable(text('an edit', { placeholder: 'FILE' })),
    image: file('a picture'),
    out: outFile('where to write', { endings: ['.svg', '.png'] }),
    quick: flag('do less'),
    seed: seed(),
  },
  examples: ['echo mini --prompt hello'],
  run(given) {
    // Types follow from the declaration: a value that is required or has a default is never undefined.
    const total: number = given.maxNewTokens + given.prompt.length;
    return { data: { ...given, total }, text: `${given.model} was asked ${given.prompt}` };
  },
});

const noise = defineCommand({
  run(_given, context) {
    console.log('a library prints');
    context.log('news');
    context.warn('careful');
    const bar = context.progress(3, 'Counting', { unit: 'things' });
    for (let i = 0; i < 3; i++) bar.advance();
    bar.finish();
    return { data: { values: new Float32Array([1, 2]) }, text: context.table({ head: ['name', 'value'], rows: [['a', 1]] }) };
  },
});

const fail = defineCommand({
  options: { how: choice('how to fail', ['plain', 'defect', 'missing', 'checks', 'later'], { required: true }) },
  async run({ how }) {
    if (how === 'plain') throw new Error('layer 9 is out of range; the model has 8 layers');
    if (how === 'defect') throw new TypeError('x is not a function');
    if (how === 'missing') (await import('node:fs')).readFileSync('/no/such/file');
    if (how === 'later') {
      setTimeout(() => {
        throw new Error('thrown outside the command');
      }, 10);
      await sleep(5000);
    }
    return { data: { passed: 3, failed: 1 }, exitCode: 1 };
  },
});

const wait = defineCommand({
  options: { mark: outFile('written when stopped', { required: true }) },
  async run({ mark }, context) {
    context.onInterrupt(async () => {
      await sleep(20);
      writeFileSync(mark, 'saved');
    });
    context.onInterrupt(() => {})();
    context.log('ready');
    await sleep(20_000);
    return { data: null };
  },
});

const flood = defineCommand({
  run: () => ({ data: null, text: 'line\n'.repeat(200_000) }),
});

const toys: Record<string, CommandEntry> = {
  echo: entry('give back the values', async () => ({ command: echo })),
  noise: entry('print everywhere', async () => ({ command: noise })),
  fail: entry('go wrong', async () => ({ command: fail })),
  wait: entry('wait to be stopped', async () => ({ command: wait })),
  flood: entry('print a lot', async () => ({ command: flood })),
  group: entry('hold commands', async () => ({
    command: { commands: { inner: entry('be inside', async () => ({ command: flood })) } },
  })),
};

await runProgram(process.argv.slice(2), toys);
