/** Turns the registry and an argument list into the command to run and its checked values (commander does the parsing). */
import { Command as Commander, CommanderError, Option } from 'commander';
import type { AnyCommand, CommandEntry, CommandGroup } from './command.ts';
import { UsageError } from './errors.ts';
import type { Value, Values } from './values.ts';

export interface Invocation {
  command: AnyCommand;
  given: Record<string, unknown>;
}

export interface Parsed {
  /** As typed: `world build`. Set as far as it could be read, even when parsing fails. */
  path: string;
  /** What to run, or the text (help, version) to print. */
  result(): Promise<Invocation | string>;
}

/** Options that every command takes. */
export const globalOptions: readonly { flags: string; help: string; choices?: readonly string[] }[] = [
  {
    flags: '--device <WORD>',
    help: 'where models run; auto takes CUDA where it works and the model is large (default: VISEDIT_DEVICE, or auto)',
    choices: ['auto', 'cpu', 'cuda', 'webgpu'],
  },
  { flags: '--json', help: 'print one JSON document on stdout, everything else on stderr' },
  { flags: '--quiet', help: 'no progress and no news, only the result' },
  { flags: '--debug', help: 'show where an error comes from' },
];

/** Splits off the words that name the command; the rest is parsed when the result is asked for. */
export function parse(args: readonly string[], registry: Record<string, CommandEntry>, version: string): Parsed {
  const asked = args[0] === 'help' ? [...args.slice(1), '--help'] : [...args];
  // The help of a command that does not exist is refused like the command, with the name that was meant.
  const first = asked.find((word) => !word.startsWith('-'));
  const words = first === undefined || first in registry ? asked : asked.filter((word) => word !== '--help' && word !== '-h');
  const parsed: Parsed = { path: '', result: () => resolve(words, registry, version, parsed) };
  return parsed;
}

async function resolve(
  words: string[],
  registry: Record<string, CommandEntry>,
  version: string,
  parsed: Parsed,
): Promise<Invocation | string> {
  let printed = '';
  let invocation: Invocation | undefined;
  const silence = (commander: Commander) =>
    commander
      .exitOverride()
      .helpCommand(false)
      .configureOutput({ writeOut: (text) => (printed += text), writeErr: (text) => (printed += text), outputError: () => {} });

  const root = silence(new Commander('visedit'))
    .description('See why a vision-language model answers as it does, and correct it.')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'show this help')
    .usage('COMMAND [options]')
    .configureHelp({ showGlobalOptions: true })
    .addHelpText('after', '\nvisedit COMMAND --help tells more about a command.');
  for (const { flags, help, choices } of globalOptions) {
    const option = new Option(flags, help);
    root.addOption(choices === undefined ? option : option.choices(choices));
  }

  const add = async (parent: Commander, entries: Record<string, CommandEntry>, path: string, rest: string[]): Promise<void> => {
    const index = rest.findIndex((word) => !word.startsWith('-'));
    for (const [name, { summary, load }] of Object.entries(entries)) {
      const commander = silence(new Commander(name))
        .summary(summary)
        .helpOption('-h, --help', 'show this help')
        .configureHelp({ showGlobalOptions: true });
      parent.addCommand(commander);
      if (name !== rest[index]) continue;
      const full = path === '' ? name : `${path} ${name}`;
      parsed.path = full;
      const { command } = await load();
      commander.description(`${upperFirst(summary)}.${command.details ? `\n\n${command.details}` : ''}`);
      if ('commands' in command) {
        // Lets an unknown word through to the action, which can name the words that would have done.
        commander.usage('COMMAND [options]').allowExcessArguments();
        commander.action(() => refuseGroup(command, commander.args[0]));
        await add(commander, command.commands, full, rest.slice(index + 1));
      } else {
        declare(commander, command, full);
        commander.action(() => {
          invocation = { command, given: readValues(commander, command) };
        });
      }
    }
  };
  await add(root, registry, '', words);
  try {
    await root.parseAsync(words.length === 0 ? ['--help'] : words, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.code === 'commander.help') throw new UsageError('no command is named');
    if (error.exitCode !== 0) throw new UsageError(rewrite(error.message));
  }
  const { device } = root.opts<{ device?: string }>();
  // Processes and threads that the command starts see it too.
  if (device !== undefined) process.env.VISEDIT_DEVICE = device;
  if (invocation) return invocation;
  if (printed !== '') return printed;
  throw new UsageError('no command is named');
}

function refuseGroup(group: CommandGroup, word: string | undefined): never {
  const names = Object.keys(group.commands).join(', ');
  throw new UsageError(word === undefined ? `which one? Add one of: ${names}` : `unknown command '${word}'; one of: ${names}`);
}

function declare(commander: Commander, command: AnyCommand, path: string): void {
  for (const [name, value] of Object.entries(command.arguments ?? {})) {
    // Whether a value is missing is checked with all the others, so that one message tells everything.
    commander.argument(`[${upperKebab(name)}${value.repeatable ? '...' : ''}]`, describe(value));
  }
  for (const [name, value] of Object.entries(command.options ?? {})) {
    const option = new Option(`--${kebab(name)}${value.placeholder === '' ? '' : ` <${value.placeholder}>`}`, describe(value));
    if (value.repeatable) option.argParser((text: string, before: string[] | undefined) => [...(before ?? []), text]);
    commander.addOption(option);
  }
  const words = Object.entries(command.arguments ?? {}).map(([name, value]) => {
    const shown = upperKebab(name) + (value.repeatable ? '...' : '');
    return value.required ? shown : `[${shown}]`;
  });
  commander.usage([...words, '[options]'].join(' '));
  if (command.examples?.length) {
    commander.addHelpText('after', `\nExamples:\n${command.examples.map((line) => `  visedit ${line}`).join('\n')}`);
  }
  if (command.examples?.some((line) => !line.startsWith(path))) throw new Error(`an example of ${path} shows another command`);
}

function describe(value: Value<unknown>): string {
  const notes = [
    value.choices ? `one of: ${value.choices.join(', ')}` : '',
    value.required ? 'required' : '',
    value.repeatable ? 'may be repeated' : '',
    value.fallback === undefined || value.fallback === false || value.repeatable ? '' : `default: ${String(value.fallback)}`,
  ].filter(Boolean);
  return notes.length > 0 ? `${value.help} (${notes.join('; ')})` : value.help;
}

function readValues(commander: Commander, command: AnyCommand): Record<string, unknown> {
  const given: Record<string, unknown> = {};
  const problems: string[] = [];
  const read = (name: string, value: Value<unknown>, raw: unknown, shown: string) => {
    const texts = raw === undefined || (Array.isArray(raw) && raw.length === 0) ? [] : Array.isArray(raw) ? raw : [raw];
    if (texts.length === 0) {
      if (value.required) problems.push(`${shown} is missing: ${value.help}`);
      given[name] = value.fallback;
      return;
    }
    const parsed = texts.map((text: unknown) => {
      try {
        return typeof text === 'string' ? value.parse(text) : text;
      } catch (error) {
        problems.push(`${shown} '${String(text)}' ${error instanceof Error ? error.message : String(error)}`);
        return undefined;
      }
    });
    given[name] = value.repeatable ? parsed : parsed[0];
  };
  const positional: unknown[] = commander.processedArgs;
  Object.entries(command.arguments ?? ({} as Values)).forEach(([name, value], i) => {
    read(name, value, positional[i], upperKebab(name));
  });
  const options: Record<string, unknown> = commander.opts();
  for (const [name, value] of Object.entries(command.options ?? {})) read(name, value, options[name], `--${kebab(name)}`);
  if (problems.length > 0) throw new UsageError(problems.join('\n  '));
  return given;
}

/** Commander's wording, in the form of all our messages. */
function rewrite(message: string): string {
  return message
    .replace(/^error: /, '')

    .replace(/^(too many arguments .*)\.$/, '$1; put quotes around a value that has spaces')
    .replace(/\s*\n\(Did you mean (.+)\?\)/, '; did you mean $1?')
    .replace(/^option '(\S+).*' argument '(.*)' is invalid\. Allowed choices are (.*)\.$/, "$1 '$2' is not one of: $3")
    .replace(/^option '(\S+).*' argument missing$/, '$1 needs a value after it');
}

/** `maxNewTokens` as it is typed after `--`: `max-new-tokens`. */
export const kebab = (name: string) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
/** `model` as an argument is shown: `MODEL`. */
export const upperKebab = (name: string) => kebab(name).toUpperCase();
const upperFirst = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);
