/** The commands' pages say what the program takes, and every command line in the docs is one that it understands. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { commands } from '../../apps/cli/commands/index.ts';
import { UsageError } from '../../apps/cli/frame/errors.ts';
import { globalOptions, kebab, parse } from '../../apps/cli/frame/program.ts';
import { allCommands, commandPages } from '../../scripts/docs/commands.ts';
import { markdownFiles } from '../../scripts/docs/sections.ts';
import { root } from '../cli/start.ts';
import { shownLines } from './shown-commands.ts';

const pages = ['README.md', ...markdownFiles(join(root, 'docs')).map((path) => `docs/${path}`)];
const all = await allCommands();
const names = Object.keys(commands);
const everywhere = new Set([...globalOptions.map(({ flags }) => flags.split(' ')[0]!), '--help', '--version']);

test.each([...(await commandPages())])('docs/%s is what its command says (npm run docs)', (path, text) => {
  expect(readFileSync(join(root, 'docs', path), 'utf8')).toBe(text);
});

test('there is no page of a command that is not there', async () => {
  const made = await commandPages();
  const there = markdownFiles(join(root, 'docs', 'commands')).map((path) => `commands/${path}`);
  expect(there.filter((path) => !made.has(path))).toEqual([]);
});

/** The command that the first words name: the longest. */
function named(words: readonly string[]) {
  const fits = all.filter(({ words: own }) => own.every((word, i) => words[i]?.split('|').includes(word)));
  return fits.sort((a, b) => b.words.length - a.words.length)[0];
}

/** What is wrong with a line, files that are not here aside. */
async function problems(words: readonly string[], whole: boolean): Promise<string[]> {
  if (!names.includes(words[0]!))
    return everywhere.has(words[0]!) || /^[A-Z.<]/.test(words[0]!) ? [] : [`no command ${words[0]}`];
  if (!whole) {
    const { command } = named(words)!;
    const known = new Set('commands' in command ? [] : Object.keys(command.options ?? {}).map((name) => `--${kebab(name)}`));
    const given = words.flatMap((word) => word.match(/^--[a-z][a-z-]*/) ?? []);
    return given.filter((option) => !known.has(option) && !everywhere.has(option)).map((option) => `no option ${option}`);
  }
  try {
    await parse(words, commands, '').result();
    return [];
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    return error.message.split('\n').filter((line) => !line.includes('does not exist; check the path'));
  }
}

test.each(pages)('command lines in %s are understood', async (path) => {
  const wrong: string[] = [];
  for (const { words, whole } of shownLines(readFileSync(join(root, path), 'utf8'), names))
    for (const problem of await problems(words, whole)) wrong.push(`visedit ${words.join(' ')}: ${problem}`);
  expect(wrong).toEqual([]);
});

test('a command line with a wrong option or value is found', async () => {
  const page =
    '```sh\nvisedit edit --modle x\nvisedit inspekt mini-llava\n```\n`visedit train vead --stepz 3` `evaluate --dta F`';
  const found = shownLines(page, names);
  expect(found).toHaveLength(4);
  for (const { words, whole } of found) expect(await problems(words, whole)).not.toEqual([]);
});
