/** docs/commands/: a page for every command, made from its definition, so that the pages say what the program takes. */
import { commands } from '../../apps/cli/commands/index.ts';
import type { AnyCommand, CommandEntry, CommandGroup } from '../../apps/cli/frame/command.ts';
import { globalOptions, kebab, upperKebab } from '../../apps/cli/frame/program.ts';
import type { Value, Values } from '../../apps/cli/frame/values.ts';
import { editorIds } from '../../src/editors/index.ts';
import { code, fenced, generatedFrom, prose, sentence, shellCommand, table } from './markdown.ts';

/** A command with the words that name it. */
export interface NamedCommand {
  words: readonly string[];
  summary: string;
  command: AnyCommand | CommandGroup;
}

/** Commands and groups, each group before its own. */
export async function allCommands(
  registry: Readonly<Record<string, CommandEntry>> = commands,
  before: readonly string[] = [],
): Promise<NamedCommand[]> {
  const found: NamedCommand[] = [];
  for (const [name, { summary, load }] of Object.entries(registry)) {
    const words = [...before, name];
    const { command } = await load();
    found.push({ words, summary, command });
    if ('commands' in command) found.push(...(await allCommands(command.commands, words)));
  }
  return found;
}

const pathOf = (words: readonly string[]): string => `${words.join('/')}.md`;

const shownArgument = (name: string, { repeatable }: Value<unknown>): string => upperKebab(name) + (repeatable ? '...' : '');
const shownOption = (name: string, { placeholder }: Value<unknown>): string =>
  `--${kebab(name)}${placeholder === '' ? '' : ` ${placeholder}`}`;

const editors: ReadonlySet<string> = new Set(editorIds);

/** A word that may be given; editors have pages. */
const choice = (word: string, up: string): string =>
  editors.has(word) ? `[${code(word)}](${up}../editors/${word}.md)` : code(word);

function rows(values: Values, up: string, shown: (name: string, value: Value<unknown>) => string): string[][] {
  return Object.entries(values).map(([name, value]) => {
    const notes = [
      value.choices ? `one of ${value.choices.map((word) => choice(word, up)).join(', ')}` : '',
      value.repeatable ? 'may be repeated' : '',
    ].filter(Boolean);
    const { fallback } = value;
    const none = fallback === undefined || fallback === false || value.repeatable;
    return [
      code(shown(name, value)),
      [prose(value.help), ...notes].join('; '),
      value.required ? '**required**' : none ? '' : code(String(fallback)),
    ];
  });
}

function usage(words: readonly string[], command: AnyCommand): string {
  const given = Object.entries(command.arguments ?? {}).map(([name, value]) =>
    value.required ? shownArgument(name, value) : `[${shownArgument(name, value)}]`,
  );
  const needed = Object.entries(command.options ?? {})
    .filter(([, value]) => value.required)
    .map(([name, value]) => shownOption(name, value));
  return ['visedit', ...words, ...given, ...needed, '[options]'].join(' ');
}

function page({ words, summary, command }: NamedCommand): string {
  const up = '../'.repeat(words.length - 1);
  const source = `apps/cli/commands/${words.join('/')}.ts`;
  const parts = [
    generatedFrom(source),
    `# visedit ${words.join(' ')}`,
    sentence(summary),
    ...(command.details === undefined ? [] : [prose(command.details)]),
  ];
  if ('commands' in command) {
    const own = Object.entries(command.commands).map(([name, entry]) => [
      `[${[...words, name].join(' ')}](${words.at(-1)}/${name}.md)`,
      prose(entry.summary),
    ]);
    parts.push(table(['command', 'does'], own));
  } else {
    parts.push(fenced('', usage(words, command)));
    const { arguments: positional = {}, options = {}, examples = [] } = command;
    const all = [...rows(positional, up, shownArgument), ...rows(options, up, shownOption)];
    if (all.length > 0) parts.push(table(['value', 'meaning', 'default'], all));
    parts.push(`Options of every command: [commands](${up}README.md#options-of-every-command).`);
    if (examples.length > 0)
      parts.push('## Examples', fenced('sh', examples.map((line) => shellCommand(`visedit ${line}`)).join('\n')));
  }
  return `${parts.join('\n\n')}\n`;
}

function index(all: readonly NamedCommand[]): string {
  return `${[
    generatedFrom('apps/cli/commands/index.ts'),
    '# Commands',
    '`bin/visedit` runs from a clone; each command has a page, made from its definition.',
    table(
      ['command', 'does'],
      all.map(({ words, summary }) => [`[${words.join(' ')}](${pathOf(words)})`, prose(summary)]),
    ),
    '## Options of every command',
    table(
      ['option', 'meaning'],
      globalOptions.map(({ flags, help }) => [code(flags), prose(help)]),
    ),
    'The exit code is 0 when all went well, 2 when an edit did not take, and 1 otherwise. The result is on stdout, everything else on stderr. Ctrl-C, SIGTERM and a terminal that closes save what is done before the program stops. One process at a time works in an `--out` folder. Control characters in names and answers are shown as `\\u001b`.',
    'How a command is written: [command-line.md](../command-line.md).',
  ].join('\n\n')}\n`;
}

/** Pages by their path in docs/. */
export async function commandPages(): Promise<Map<string, string>> {
  const all = await allCommands();
  return new Map([
    ['commands/README.md', index(all)],
    ...all.map((named): [string, string] => [`commands/${pathOf(named.words)}`, page(named)]),
  ]);
}
