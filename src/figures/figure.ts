/**
 * A figure as plain data: panels of the kinds that there are, each with what its drawing function takes. It can be kept as JSON and drawn
 * again from it, by the command line, the documentation and a browser alike.
 */
import { type BeforeAfter, beforeAfter } from './before-after.ts';
import { type HeatMaps, heatMaps } from './heat-maps.ts';
import { type LineChart, lineChart } from './line-chart.ts';
import { type MatrixFigure, matrix } from './matrix.ts';
import { type ModuleBars, moduleBars } from './module-bars.ts';
import { arrange, type Panels } from './panels.ts';
import { toBase64 } from './png.ts';

/** One line for each kind of panel. */
const kinds = {
  'module-bars': (data: ModuleBars) => moduleBars(data),
  'heat-maps': (data: HeatMaps) => heatMaps(data),
  'line-chart': (data: LineChart) => lineChart(data),
  matrix: (data: MatrixFigure) => matrix(data),
  'before-after': (data: BeforeAfter) => beforeAfter(data),
};

type Kinds = typeof kinds;
/** What a panel draws. */
export type PanelKind = keyof Kinds;

/** One panel as plain data: its kind, and what its drawing function takes. */
export type FigurePanel = {
  [K in PanelKind]: { kind: K; data: Parameters<Kinds[K]>[0]; title?: string };
}[PanelKind];

/** A whole figure as plain data; JSON keeps it. */
export interface Figure extends Panels {
  panels: readonly FigurePanel[];
  /** what was found, in sentences; kept with the figure, not drawn */
  said?: readonly string[];
  /** its numbers, for a person; not drawn either */
  table?: { head: readonly string[]; rows: readonly (readonly (string | number | null)[])[] };
}

/**
 * SVG text of a figure of several panels.
 * @throws Error when there are no panels, or one of a kind that there is not
 */
export async function drawFigure({ panels, ...layout }: Figure): Promise<string> {
  const drawn = [];
  // One after the other: the charts' library numbers its parts in one sequence.
  for (const { kind, data, title } of panels) {
    const draw = kinds[kind] as ((data: unknown) => Promise<string>) | undefined;
    if (draw === undefined)
      throw new Error(`there is no kind of panel ${JSON.stringify(kind)}; there are: ${Object.keys(kinds).join(', ')}`);
    drawn.push({ svg: await draw(data), title });
  }
  return arrange(drawn, layout);
}

/** What JSON writes of a figure: bytes of pictures in base64, values as lists of six digits. */
export function figureJson(_key: string, value: unknown): unknown {
  if (value instanceof Uint8Array || value instanceof Uint8ClampedArray) return toBase64(Uint8Array.from(value));
  if (ArrayBuffer.isView(value)) return Array.from(value as Float32Array, rounded);
  return typeof value === 'number' ? rounded(value) : value;
}

const rounded = (value: number): number => (Number.isInteger(value) ? value : Number(value.toPrecision(6)));
