/** `visedit reproduce compare`: finished tables beside the paper's. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ReproduceOptions } from './commands/reproduce.ts';
import type { CommandResult } from './frame/command.ts';
import type { CommandContext } from './frame/context.ts';

export async function comparePaper(
  { from = 'results', out = 'docs' }: Pick<ReproduceOptions, 'from' | 'out'>,
  context: CommandContext,
): Promise<CommandResult> {
  const [{ findings, readTables, renewed, sections }, { writeFileAtomic }] = await Promise.all([
    import('../../lab/reproduce/results-page.ts'),
    import('../../src/files/atomic.ts'),
  ]);
  const results = readTables(from, (line) => context.warn(line));
  const made = sections(results);
  if (made.size === 0)
    throw new Error(
      `${from} holds no finished tables; make one with: visedit reproduce table1 --out ${join(from, 'table1')}, or name another folder with --from`,
    );
  const path = join(out, 'results.md');
  writeFileAtomic(path, renewed(existsSync(path) ? readFileSync(path, 'utf8') : undefined, made));
  const found = findings(results);
  const verdict = (holds: boolean | null): string => (holds === null ? 'not measured' : holds ? 'yes' : 'NO');
  return {
    data: { findings: found, page: path },
    text: [
      ...found.map(({ claim, holds, measured }) => `${verdict(holds).padEnd(4)} ${claim}\n       ${measured}`),
      '',
      `${path}: ${[...made.keys()].join(', ')}.`,
    ].join('\n'),
  };
}
