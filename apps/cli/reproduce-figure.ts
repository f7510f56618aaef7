/** `visedit reproduce figureN`: makes the figure and says what its claims measured. */
import { type FigureName, figureNames, paperFigures } from '../../lab/reproduce/figures/index.ts';
import type { CommandResult } from './frame/command.ts';
import type { CommandContext } from './frame/context.ts';

export interface FigureArguments {
  /** none: the figure's own */
  model: readonly string[];
  world: string | undefined;
  weights: string | undefined;
  from: string | undefined;
  out: string;
  limit: number | undefined;
  quick: boolean;
  seed: number;
}

export const isFigure = (name: string): name is FigureName => (figureNames as readonly string[]).includes(name);

export async function reproduceFigure(
  name: FigureName,
  { model, world, weights, from, out, limit, quick, seed }: FigureArguments,
  context: CommandContext,
): Promise<CommandResult> {
  const { writeFigure } = await import('../../lab/reproduce/figures/figure.ts');
  const started = performance.now();
  const written = await writeFigure(
    name,
    await paperFigures[name](),
    {
      models: model.length > 0 ? model : undefined,
      world,
      weights,
      from,
      out,
      limit,
      quick,
      seed,
      signal: context.signal,
      log: (line) => context.log(line),
    },
    ['visedit', ...process.argv.slice(2)].join(' '),
  );
  const seconds = (performance.now() - started) / 1000;
  const { caption, claims, measures, pictures, data } = written;
  const verdict = (holds: boolean | null): string => (holds === null ? 'not measurable here' : holds ? 'holds' : 'DOES NOT HOLD');
  const lines = [
    caption,
    ...(claims.length === 0 ? [] : ['', 'Claims:']),
    ...claims.map(({ claim, holds, measured }) => `- ${claim}: ${verdict(holds)}\n    ${measured}`),
    '',
    `${[...pictures, data].join(', ')} (${seconds.toFixed(0)} s)`,
  ];
  return { data: { name, caption, claims, measures, pictures, data, seconds }, text: lines.join('\n') };
}
