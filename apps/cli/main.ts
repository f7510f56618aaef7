/** The command line, called by bin/visedit. */
import { commands } from './commands/index.ts';
import { runProgram } from './frame/run.ts';

export function main(argv: readonly string[]): Promise<void> {
  return runProgram(argv.slice(2), commands);
}
