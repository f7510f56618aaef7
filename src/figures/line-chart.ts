/** Lines over a number: insert-layer sweeps, training curves. Lines differ in colour, dash and mark, so grey print is enough. */
import { columnWidth, drawChart } from './chart.ts';
import { categories, faint } from './colours.ts';
import { wrap } from './text.ts';

/** One line of a chart: as many places as values. */
export interface LineSeries {
  label: string;
  x: ArrayLike<number>;
  y: ArrayLike<number>;
  /** Spread around each point (± one standard deviation, say), drawn as a band. */
  spread?: ArrayLike<number>;
}

/** Lines over one axis, as data of a figure. */
export interface LineChart {
  series: readonly LineSeries[];
  xTitle: string;
  yTitle: string;
  title?: string;
  /** Range of the vertical axis; from the data when absent. */
  yRange?: readonly [number, number];
  yScale?: 'linear' | 'log';
  /** `percent` shows 0.5 as 50 %. */
  yFormat?: 'number' | 'percent';
  /** Marks at the points; on by default up to 40 points. */
  points?: boolean;
  /** Vertical lines with a word, such as the chosen layer. */
  marks?: readonly { x: number; label: string }[];
  width?: number;
  height?: number;
}

const dashes = [[], [5, 2], [2, 2], [7, 2, 2, 2], [1, 2], [10, 3], [4, 1, 1, 1]];
const thousands = "datum.value >= 1000 ? format(datum.value / 1000, '~g') + 'k' : format(datum.value, '~g')";
const shapes = ['circle', 'square', 'triangle-up', 'diamond', 'cross', 'triangle-down', 'stroke'];

/**
 * SVG text of lines over one axis, told apart by dash and mark as well as by colour.
 * @throws Error when there are too many lines, places and values are not as many, or a value cannot be drawn
 */
export function lineChart({
  series,
  xTitle,
  yTitle,
  title,
  yRange,
  yScale = 'linear',
  yFormat = 'number',
  points,
  marks = [],
  width = columnWidth,
  height = 200,
}: LineChart): Promise<string> {
  if (series.length > categories.length)
    throw new Error(`${series.length} lines in one chart cannot be told apart; show at most ${categories.length}`);
  const values = series.flatMap(({ label, x, y, spread }) => {
    if (x.length !== y.length)
      throw new Error(`the line "${label}" has ${x.length} places and ${y.length} values; they must be as many`);
    return Array.from(x, (at, i) => {
      const value = y[i] ?? 0;
      if (!Number.isFinite(value) || !Number.isFinite(at))
        throw new Error(`the line "${label}" has a value that cannot be drawn: ${value} at ${at}`);
      if (yScale === 'log' && value <= 0)
        throw new Error(`the line "${label}" has the value ${value} at ${at}; a logarithmic axis shows only values above 0`);
      return { label, x: at, y: value, low: value - (spread?.[i] ?? 0), high: value + (spread?.[i] ?? 0) };
    });
  });
  const longest = Math.max(0, ...series.map(({ x }) => x.length));
  const domain = series.map(({ label }) => label);
  const xs = [...new Set(values.map(({ x }) => x))].sort((a, b) => a - b);
  const whole = xs.every(Number.isInteger);
  const x = {
    field: 'x',
    type: 'quantitative',
    title: xTitle,
    scale: { nice: false, zero: false, padding: 6 },
    axis: {
      grid: false,
      ...(whole && xs.length <= 12 ? { values: xs, format: 'd' } : { tickCount: 6, labelExpr: thousands, labelFlush: true }),
    },
  };
  const y = {
    field: 'y',
    type: 'quantitative',
    title: yTitle,
    scale: {
      type: yScale,
      ...(yScale === 'log' ? {} : { zero: false }),
      ...(yRange ? { domain: yRange, clamp: true } : { nice: true }),
    },
    axis: {
      ...(yScale === 'log' ? { values: decades(values) } : { tickCount: 5 }),
      format: yFormat === 'percent' ? '.1~%' : yScale === 'log' ? '~g' : '.6~g',
    },
  };
  const byLabel = (range: readonly unknown[], legend: unknown = null) => ({
    field: 'label',
    type: 'nominal',
    scale: { domain, range: range.slice(0, domain.length) },
    legend,
  });
  const legend =
    series.length > 1
      ? {
          title: null,
          orient: 'top',
          direction: 'horizontal',
          columns: legendColumns(domain, width),
          symbolType: 'stroke',
          symbolSize: 160,
        }
      : null;
  const band = {
    mark: { type: 'area', opacity: 0.18 },
    encoding: { x, y: { ...y, field: 'low' }, y2: { field: 'high' }, fill: byLabel(categories) },
  };
  const lines = {
    mark: { type: 'line', strokeWidth: 1.6, clip: true },
    encoding: { x, y, stroke: byLabel(categories, legend), strokeDash: byLabel(dashes, legend) },
  };
  const dots = {
    mark: { type: 'point', filled: true, size: 28, opacity: 1 },
    encoding: { x, y, fill: byLabel(categories), shape: byLabel(shapes) },
  };
  const marked = marks.flatMap((mark) => [
    { data: { values: [mark] }, mark: { type: 'rule', strokeDash: [3, 3], color: faint }, encoding: { x } },
    {
      data: { values: [mark] },
      mark: { type: 'text', align: 'left', dx: 3, baseline: 'top', fontSize: 9, color: faint },
      encoding: { x, y: { value: 2 }, text: { field: 'label' } },
    },
  ]);
  return drawChart({
    width,
    height,
    ...(title === undefined ? {} : { title: wrap(title, width - 20, 10.5, { bold: true }) }),
    data: { values },
    // Only the lines have a legend; shared ones would be switched off by the bands and dots.
    resolve: { legend: { fill: 'independent', shape: 'independent' } },
    layer: [
      ...(series.some(({ spread }) => spread) ? [band] : []),
      lines,
      ...((points ?? longest <= 40) ? [dots] : []),
      ...marked,
    ],
  });
}

/** The powers of ten in the range of the values, and their doubles and fivefolds where those alone would be few. */
function decades(values: readonly { y: number }[]): number[] {
  const exponents = values.map(({ y }) => Math.floor(Math.log10(y)));
  const [low, high] = [Math.min(...exponents), Math.max(...exponents) + 1];
  const steps = high - low > 2 ? [1] : [1, 2, 5];
  return Array.from({ length: high - low + 1 }, (_, i) => steps.map((step) => Number(`${step}e${low + i}`))).flat();
}

function legendColumns(labels: readonly string[], width: number): number {
  const longest = Math.max(...labels.map((label) => label.length));
  return Math.max(1, Math.min(labels.length, Math.floor((width - 30) / (longest * 5.2 + 34))));
}
