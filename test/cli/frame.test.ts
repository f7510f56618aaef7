import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { integers, number } from '../../apps/cli/frame/values.ts';
import { createProgress, formatRate, formatSeconds } from '../../apps/cli/progress.ts';
import { table } from '../../apps/cli/table.ts';
import { visible } from '../../src/files/visible.ts';
import { root, toyProgram, visedit } from './start.ts';

test('values are parsed by their declaration and printed as one JSON document', async () => {
  const words = [
    'echo',
    'mini',
    '--prompt',
    'hi',
    '--layers',
    '0,4-6',
    '--edit',
    'a',
    '--edit',
    'b',
    '--sigma',
    '1e-2',
    '--quick',
    '--json',
  ];
  const { code, stdout, stderr } = await toyProgram(words);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(JSON.parse(stdout)).toEqual({
    ...{ model: 'mini', prompt: 'hi', layers: [0, 4, 5, 6], edit: ['a', 'b'], sigma: 0.01, quick: true },
    ...{ maxNewTokens: 16, kind: 'modules', seed: 0, total: 18 },
  });
});

test('all mistakes in the values are told at once, with what to give instead', async () => {
  const words = [
    'echo',
    'm',
    '--max-new-tokens',
    '1.5',
    '--sigma',
    '0',
    '--layers',
    '40',
    '--kind',
    'mod',
    '--image',
    'no/such.png',
    '--out',
    'x.gif',
    '--seed',
    'NaN',
  ];
  const { code, stdout, stderr } = await toyProgram(words);
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  for (const said of [
    'visedit echo: --prompt is missing: what to ask',
    "--max-new-tokens '1.5' is not a whole number",
    "--sigma '0' is out of range; it must be above 0",
    "--layers '40' is out of range; it must be at most 31",
    "--kind 'mod' is not one of: modules, visual",
    "--image 'no/such.png' does not exist",
    "--out 'x.gif' has the wrong ending; the name must end in .svg or .png",
    "--seed 'NaN' is not a number",
    'See: visedit echo --help',
  ]) {
    expect(stderr).toContain(said);
  }
});

test.each([
  [['ech'], "visedit: unknown command 'ech'; did you mean echo?"],
  [['echo', 'm', '--promt', 'x'], "visedit echo: unknown option '--promt'; did you mean --prompt?"],
  [['echo', 'm', 'n', '--prompt', 'x'], 'visedit echo: too many arguments'],
  [['fail', '--how'], 'visedit fail: --how needs a value after it'],
  [['group'], 'visedit group: which one? Add one of: inner'],
  [['group', 'innr'], "visedit group: unknown command 'innr'; one of: inner"],
])('%j is refused with a message', async (words, message) => {
  const { code, stdout, stderr } = await toyProgram(words);
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toContain(message);
  expect(stderr).not.toMatch(/\n\s+at /);
});

test.each([
  ['plain', 'visedit fail: layer 9 is out of range; the model has 8 layers\n'],
  ['missing', 'visedit fail: /no/such/file does not exist; check the path\n'],
  ['later', 'visedit fail: thrown outside the command\n'],
])('a command that fails (%s) prints its message and no stack trace', async (how, message) => {
  const { code, stdout, stderr } = await toyProgram(['fail', '--how', how]);
  expect({ code, stdout, stderr }).toEqual({ code: 1, stdout: '', stderr: message });
});

test('--debug shows the stack trace; a defect asks for it', async () => {
  expect((await toyProgram(['fail', '--how', 'plain', '--debug'])).stderr).toMatch(/\n\s+at /);
  expect((await toyProgram(['fail', '--how', 'defect'])).stderr).toContain('again with --debug');
});

test('with --json, stdout holds one document whatever happens', async () => {
  const noisy = await toyProgram(['noise', '--json']);
  expect(JSON.parse(noisy.stdout)).toEqual({ values: [1, 2] });
  expect(noisy.stderr).toContain('a library prints');
  expect(noisy.stderr).toMatch(/news[\s\S]*warning: careful[\s\S]*Counting: 3 things in/);

  const failed = await toyProgram(['fail', '--how', 'plain', '--json']);
  expect(failed.code).toBe(1);
  expect(JSON.parse(failed.stdout)).toEqual({ error: 'visedit fail: layer 9 is out of range; the model has 8 layers' });

  const unpassed = await toyProgram(['fail', '--how', 'checks', '--json']);
  expect(unpassed.code).toBe(1);
  expect(JSON.parse(unpassed.stdout)).toEqual({ passed: 3, failed: 1 });
  expect(JSON.parse((await toyProgram(['echo', '--help', '--json'])).stdout).help).toContain('--max-new-tokens');
});

test('--quiet leaves warnings and the result', async () => {
  const { stderr } = await toyProgram(['noise', '--quiet', '--json']);
  expect(stderr).toBe('a library prints\nwarning: careful\n');
});

test('Ctrl-C runs the clean-ups and ends with 130', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-cli-'));
  try {
    const mark = join(folder, 'mark');
    const { code, stdout, stderr, seconds } = await toyProgram(['wait', '--mark', mark], { interruptAt: 'ready' });
    expect({ code, stdout }).toEqual({ code: 130, stdout: '' });
    expect(stderr).toContain('Stopping; saving what is done');
    expect(existsSync(mark) && readFileSync(mark, 'utf8')).toBe('saved');
    expect(seconds).toBeLessThan(15);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a terminal that closes runs the clean-ups, too; under nohup it does not end the work', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-cli-'));
  try {
    const mark = join(folder, 'mark');
    const hung = await toyProgram(['wait', '--mark', mark], { interruptAt: 'ready', signal: 'SIGHUP' });
    expect([hung.code, existsSync(mark) && readFileSync(mark, 'utf8')]).toEqual([129, 'saved']);
    const kept = await toyProgram(['noise', '--json'], { under: ['nohup'], interruptAt: 'news', signal: 'SIGHUP' });
    expect(kept.code).toBe(0);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('long output arrives whole, and a reader that leaves early causes no error', async () => {
  const whole = await toyProgram(['flood']);
  expect({ code: whole.code, length: whole.stdout.length }).toEqual({ code: 0, length: 5 * 200_000 });
  const left = await toyProgram(['flood'], { closeEarly: true });
  expect({ code: left.code, stderr: left.stderr }).toEqual({ code: 0, stderr: '' });
});

test('numbers must be finite and written in full', () => {
  for (const given of ['', 'Infinity', '0x10', '1_000', '1e999', '12px']) expect(() => number('x').parse(given), given).toThrow();
  expect(['-1', '+.5', '1e3'].map((given) => number('x').parse(given))).toEqual([-1, 0.5, 1000]);
  expect(() => integers('x').parse('5-2')).toThrow(/2-5/);
  expect(() => integers('x').parse('1,,2')).toThrow(/not a number/);
});

test('progress in a log: a line every few seconds with rate and remaining time, and one at the end', () => {
  const stream = new PassThrough() as unknown as NodeJS.WriteStream & PassThrough;
  let now = 0;
  const clock = () => now;
  const bar = createProgress(100, 'Training', { unit: 'steps', start: 20, stream, clock });
  now = 1000;
  bar.update(30);
  now = 10_000;
  bar.update(60, { note: 'loss 0.5' });
  now = 20_000;
  bar.update(100);
  bar.finish('loss 0.4');
  bar.advance();
  expect(String(stream.read())).toBe(
    'Training: 60/100, 4.0 steps/s, 10 s left, loss 0.5\nTraining: 100/100, 4.0 steps/s, loss 0.5\nTraining: 100 steps in 20 s, loss 0.4\n',
  );
  expect([formatSeconds(3.21), formatSeconds(59.9), formatSeconds(119.7), formatSeconds(7300)]).toEqual([
    '3.2 s',
    '60 s',
    '2 min 0 s',
    '2 h 1 min',
  ]);
  expect([formatRate(0.5, 'scenes'), formatRate(12.34, 'scenes'), formatRate(1234, 'scenes')]).toEqual([
    '2.0 s/scene',
    '12.3 scenes/s',
    '1234 scenes/s',
  ]);
});

test('tables: numbers to the right, words to the left', () => {
  expect(
    table({
      head: ['editor', 'Rel'],
      rows: [
        ['vead', 97.5],
        ['ft-l', 8],
      ],
    }),
  ).toBe([' editor    Rel', '---------------', ' vead     97.5', ' ft-l        8'].join('\n'));
});

/** Escape sequences that clear the screen, turn the reading order, and begin with one byte. */
const steering = ['\u001b[2J\u001b[H', '\u202egnp.exe', '\u009b2J', '\u0007', '\r', '\b', '\u007f'];

test('what steers a terminal is escaped in tables, progress and whatever is written', () => {
  for (const name of steering) {
    for (const text of [
      visible(`a ${name} b`),
      table({ head: ['name'], rows: [[`${name}\nforged`]] }),
      progressLine(`${name}\nforged`),
    ]) {
      expect(text.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/u);
      expect(text).not.toMatch(/^forged/m);
    }
  }
  expect(visible('a\tb\nc é 语 👩\u200d🎨 \u200f')).toBe('a\tb\nc é 语 👩\u200d🎨 \u200f');
  expect(JSON.parse(visible(JSON.stringify(steering)))).toEqual(steering);
});

function progressLine(note: string): string {
  const stream = new PassThrough() as unknown as NodeJS.WriteStream & PassThrough;
  createProgress(1, 'Reading', { stream }).finish(note);
  return String(stream.read());
}

test('a file whose names steer a terminal: the message has them escaped, and forges no line of its own', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-cli-'));
  try {
    const model = join(folder, 'mo\u001b[31mdel');
    cpSync(join(root, 'models/mini-llava'), model, { recursive: true });
    const header = JSON.stringify({
      [`w\nvisedit: all is well${steering.join('')}`]: { dtype: 'Q', shape: [], data_offsets: [0, 0] },
    });
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(Buffer.byteLength(header)));
    writeFileSync(join(model, 'model.safetensors'), Buffer.concat([length, Buffer.from(header)]));
    const { code, stderr, stdout } = await visedit(['inspect', model, '--json']);
    expect(code).toBe(1);
    expect(stderr).toContain('mo\\u001b[31mdel');
    expect(stderr).toContain('\\u001b[2J');
    for (const text of [stderr, stdout, JSON.parse(stdout).error]) {
      expect(text.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/u);
      expect(text).not.toMatch(/^visedit: all is well/m);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
