/** Every command of the registry, as a user meets it: bin/visedit in a fresh process. */
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { expect, test } from 'vitest';
import { commands } from '../../apps/cli/commands/index.ts';
import type { CommandEntry } from '../../apps/cli/frame/command.ts';
import { root, visedit } from './start.ts';

/** `world build` and so on: the words that name a command, with its options. */
async function leaves(
  registry: Record<string, CommandEntry>,
  before: string[] = [],
): Promise<{ words: string[]; options: string[]; required: boolean }[]> {
  const found = [];
  for (const [name, { load }] of Object.entries(registry)) {
    const words = [...before, name];
    const { command } = await load();
    if ('commands' in command) found.push(...(await leaves(command.commands, words)));
    else {
      const values = [...Object.values(command.arguments ?? {}), ...Object.values(command.options ?? {})];
      found.push({ words, options: Object.keys(command.options ?? {}), required: values.some((value) => value.required) });
    }
  }
  return found;
}

const all = await leaves(commands);

test('visedit --help names every command and starts fast', async () => {
  await visedit(['--help']);
  const { code, stdout, stderr, seconds } = await visedit(['--help'], { cwd: tmpdir() });
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  for (const [name, { summary }] of Object.entries(commands)) expect(stdout.replace(/\s+/g, ' ')).toContain(`${name} ${summary}`);
  // 0.3 s alone on a core; the rest is for a machine that is busy with other tests.
  expect(seconds).toBeLessThan(2);
});

test('visedit alone shows the help, --version the version of the package', async () => {
  expect((await visedit([])).stdout).toBe((await visedit(['--help'])).stdout);
  const { version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8')) as { version: string };
  expect((await visedit(['--version'])).stdout).toBe(`${version}\n`);
});

test.each(all)('visedit $words --help tells its options', async ({ words, options }) => {
  const { code, stdout, stderr } = await visedit([...words, '--help']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  for (const option of options) expect(stdout).toContain(`--${option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`);
  expect(stdout).toContain('--json');
});

test.each(all)(
  'visedit $words refuses an unknown option with code 1, one JSON document and no stack trace',
  async ({ words }) => {
    const { code, stdout, stderr } = await visedit([...words, '--no-such-option', '--json']);
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toEqual({ error: `visedit ${words.join(' ')}: unknown option '--no-such-option'` });
    expect(stderr).toContain(`See: visedit ${words.join(' ')} --help`);
    expect(stderr).not.toMatch(/\n\s+at /);
  },
);

test.each(all.filter(({ required }) => required))('visedit $words says what is missing', async ({ words }) => {
  const { code, stdout, stderr } = await visedit(words);
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toMatch(/ is missing: /);
});

test('an unknown command is refused', async () => {
  const { code, stdout, stderr } = await visedit(['no-such-command']);
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toBe("visedit: unknown command 'no-such-command'\nSee: visedit --help\n");
});
