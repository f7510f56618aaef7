/** One run of the program: reads the arguments, runs a command, prints its result or its error, ends with code 0, 1, or the result's own. */

import { packageVersion } from '../../../src/files/package-root.ts';
import type { CommandEntry } from './command.ts';
import { createContext, type Globals } from './context.ts';
import { describeError } from './errors.ts';
import { watchInterrupts } from './interrupt.ts';
import { endQuietlyOnClosedPipe, printResult, sendConsoleToStderr, toJson, write } from './output.ts';
import { parse } from './program.ts';

export async function runProgram(args: readonly string[], commands: Record<string, CommandEntry>): Promise<void> {
  const globals = readGlobals(args);
  const parsed = parse(args, commands, packageVersion);
  endQuietlyOnClosedPipe();
  if (globals.json) sendConsoleToStderr();
  const interrupts = watchInterrupts();

  const fail = async (error: unknown): Promise<void> => {
    // The first Ctrl-C may make the running command fail; its clean-up is then under way and ends the process.
    if (interrupts.signal.aborted) return;
    const message = describeError(error, parsed.path, globals.debug);
    await write(process.stderr, `${message}\n`);
    if (globals.json) await write(process.stdout, `${toJson({ error: message.replace(/\n(See: |This looks ).*$/s, '') })}\n`);
    process.exit(1);
  };
  process.on('uncaughtException', (error) => void fail(error));
  process.on('unhandledRejection', (error) => void fail(error));

  try {
    const found = await parsed.result();
    if (typeof found === 'string') {
      await printResult({ data: { help: found }, text: found }, globals.json);
      process.exit(0);
    }
    const result = await found.command.run(found.given as never, createContext(globals, interrupts));
    if (interrupts.signal.aborted) return;
    await printResult(result, globals.json);
    process.exit(result.exitCode ?? 0);
  } catch (error) {
    await fail(error);
  }
}

/** Read before parsing, because they also say how a mistake in the arguments is reported. */
function readGlobals(args: readonly string[]): Globals {
  const end = args.indexOf('--');
  const options = new Set(end < 0 ? args : args.slice(0, end));
  return { json: options.has('--json'), quiet: options.has('--quiet'), debug: options.has('--debug') };
}
