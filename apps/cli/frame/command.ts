/**
 * What a command is: its values, and a function from them to a result. How it is parsed, printed, interrupted and how
 * it fails is the frame's business, so a command file holds only what is its own.
 */
import type { CommandContext } from './context.ts';
import type { ParsedValues, Values } from './values.ts';

export interface CommandResult {
  /** The one JSON document of `--json`. Typed arrays become lists; keep it free of NaN. */
  data: unknown;
  /** What a person reads without `--json`; the data as `name: value` lines when absent. */
  text?: string | undefined;
  /** Of a run that ended well with a bad result: 1 when checks did not pass, 2 when an edit did not take; 0 when absent. */
  exitCode?: number;
}

export interface Command<A extends Values = Values, O extends Values = Values> {
  /** Values by position, in order, as `inspect MODEL`. */
  arguments?: A;
  /** Values by name: `maxNewTokens` is `--max-new-tokens`. */
  options?: O;
  /** More than the summary, where a user needs it. */
  details?: string;
  /** Command lines without the leading `visedit`. */
  examples?: readonly string[];
  run(given: ParsedValues<A> & ParsedValues<O>, context: CommandContext): Promise<CommandResult> | CommandResult;
}

export interface CommandGroup {
  details?: string;
  commands: Record<string, CommandEntry>;
}

/** A command by name, loaded when it is asked for: `visedit --help` reads no command file. */
export interface CommandEntry {
  summary: string;
  load(): Promise<{ command: AnyCommand | CommandGroup }>;
}

/** A command whose value types are forgotten, as the frame sees it. */
export interface AnyCommand extends Omit<Command, 'run'> {
  run(given: never, context: CommandContext): Promise<CommandResult> | CommandResult;
}

/** Declares a command; the types of the values given to `run` follow from the declared arguments and options. */
// biome-ignore lint/complexity/noBannedTypes: a command without arguments or options has the empty record of values
export function defineCommand<A extends Values = {}, O extends Values = {}>(command: Command<A, O>): Command<A, O> {
  return command;
}

export function entry(summary: string, load: CommandEntry['load']): CommandEntry {
  return { summary, load };
}
