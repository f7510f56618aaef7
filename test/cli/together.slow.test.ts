/** The same command twice at once, as processes, with one place to write: one does its work, the other says why it cannot, and nothing is lost. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { writeRandomLlava } from '../tiny-model.ts';
import { type TinyWorld, temporaryFolder, writeTinyWorld } from '../tiny-world.ts';
import { root as clone, visedit } from './start.ts';

const root = temporaryFolder();
const at = (...parts: string[]): string => join(root, ...parts);
let world: TinyWorld;
let image: string;

beforeAll(async () => {
  writeRandomLlava(at('model'), { positions: 256 });
  world = await writeTinyWorld(at('world'), { vqaTest: 12 });
  image = join(world.images, readdirSync(world.images).sort()[0]!);
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const data = (): string[] => ['--model', at('model'), '--data', world.test, '--images', world.images];
const said = / (is in use: process|is in use by process|holds a training already|holds results already|is not empty)/;

const commands: Record<string, (out: string) => string[]> = {
  'world build': (out) => [
    ...['world', 'build', '--out', out, '--vqa-train', '6', '--vqa-test', '6', '--caption-train', '2', '--caption-test', '2'],
  ],
  convert: (out) => ['convert', at('model'), '--dtype', 'float16', '--out', out],
  quantize: (out) => ['quantize', at('model'), '--dtype', 'int8', '--out', out],
  train: (out) => [
    ...['train', 'vead', ...data(), '--steps', '2', '--batch', '2', '--set', 'width=32', '--set', 'influenceWidth=16'],
    ...['--out', out],
  ],
  evaluate: (out) => ['evaluate', '--editor', 'ft-l', ...data(), '--batch', '2', '--max-new-tokens', '4', '--out', out],
};

/** Files of a folder, without the marks of locks. */
const filesIn = (folder: string): string[] => readdirSync(folder, { recursive: true }).map(String).sort();

test.each(Object.keys(commands))('%s', async (name) => {
  const words = commands[name]!;
  await visedit(words(at(name, 'alone')));
  const ended = await Promise.all([visedit(words(at(name, 'both'))), visedit(words(at(name, 'both')))]);
  const [won, lost] = ended.sort((a, b) => a.code! - b.code!) as [(typeof ended)[0], (typeof ended)[0]];
  expect([won.code, won.code === 0 ? '' : won.stderr]).toEqual([0, '']);
  expect(lost.code, lost.stderr).toBe(1);
  expect(lost.stderr).toMatch(said);
  expect(lost.stderr).not.toMatch(/ENOTEMPTY|\n\s+at /);
  expect(filesIn(at(name, 'both'))).toEqual(filesIn(at(name, 'alone')));
  // Nothing of the one that lost lies beside the folder.
  expect(readdirSync(at(name)).sort()).toEqual(['alone', 'both']);
});

test('edits add: what was confirmed is in the ledger, and nothing else', async () => {
  const words = [
    ...['edits', 'add', at('ledger'), '--model', at('model'), '--editor', 'ft-l', '--image', image, '--prompt', 'What is it?'],
    ...['--target', 'pizza', '--measure', 'none', '--max-new-tokens', '2', '--force', '--json'],
  ];
  const ended = await Promise.all([visedit(words), visedit(words)]);
  const done = ended.filter(({ code }) => code === 0 || code === 2);
  expect(done.length, ended.map(({ stderr }) => stderr).join('\n')).toBeGreaterThan(0);
  for (const one of ended.filter((one) => !done.includes(one))) {
    expect(one.code).toBe(1);
    expect(one.stderr).toMatch(said);
  }
  const listed = await visedit(['edits', 'list', at('ledger'), '--json']);
  expect((listed.stdout.match(/"id": ?"edit_/g) ?? []).length).toBe(done.length);
  expect(readdirSync(at('ledger', 'edits')).length).toBe(done.length);
});

test('world pretrain', async () => {
  const words = ['world', 'pretrain', 'mini-llava', '--threads', '1', '--out', at('mini')];
  const first = spawn(process.execPath, [`${clone}bin/visedit`, ...words], { stdio: 'ignore' });
  try {
    while (!existsSync(at('mini', 'vision'))) await new Promise((resolve) => setTimeout(resolve, 50));
    const second = await visedit(words);
    expect(second.code).toBe(1);
    expect(second.stderr).toMatch(/is in use: process \d+ has worked in it since/);
    expect(first.exitCode).toBeNull();
  } finally {
    first.kill('SIGKILL');
    await once(first, 'exit');
  }
});
