/** Charts drawn by Vega-Lite without a browser: the figures' look, text measured with the figures' own font. */
import type { TopLevelSpec } from 'vega-lite';
import { faint, ink, rule } from './colours.ts';
import { fontFamily, textWidth } from './text.ts';

/** Width of a column of a two-column paper, 8.5 cm, in CSS pixels. */
export const columnWidth = 321;

export async function drawChart(spec: Record<string, unknown>): Promise<string> {
  // Loaded when the first chart is drawn: they take a quarter of a second.
  // The interpreter evaluates their expressions without making code from text, which a strict page (CSP) forbids.
  const [vega, lite, { expressionInterpreter }] = await Promise.all([
    import('vega'),
    import('vega-lite'),
    import('vega-interpreter'),
  ]);
  const metrics = (vega as unknown as { textMetrics: { width(item: VegaText, text?: unknown): number } }).textMetrics;
  metrics.width = (item, text) => textWidth(String(text ?? item.text ?? ''), item.fontSize ?? 11, Number(item.fontWeight) >= 600);
  const { spec: compiled } = lite.compile({
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: '#ffffff',
    padding: { left: 4, top: 4, right: 8, bottom: 4 },
    autosize: { type: 'fit', contains: 'padding' },
    config: look,
    ...spec,
  } as unknown as TopLevelSpec);
  (vega as unknown as { resetSVGDefIds(): void }).resetSVGDefIds();
  const runtime = vega.parse(compiled, undefined, { ast: true });
  const view = new vega.View(runtime, { renderer: 'none', logLevel: vega.Error, expr: expressionInterpreter });
  try {
    return `${await view.toSVG()}\n`;
  } finally {
    view.finalize();
  }
}

interface VegaText {
  text?: unknown;
  fontSize?: number;
  fontWeight?: number | string;
}

const text = {
  labelFont: fontFamily,
  titleFont: fontFamily,
  labelFontSize: 9,
  titleFontSize: 9.5,
  labelColor: ink,
  titleColor: ink,
};

const look = {
  font: fontFamily,
  axis: {
    ...text,
    titleFontWeight: 400,
    gridColor: '#e6e9ec',
    domainColor: faint,
    tickColor: faint,
    tickSize: 3,
    titlePadding: 5,
  },
  legend: { ...text, titleFontWeight: 400, symbolSize: 70, rowPadding: 2 },
  title: {
    font: fontFamily,
    fontSize: 10.5,
    fontWeight: 600,
    color: ink,
    anchor: 'start',
    offset: 6,
    subtitleFont: fontFamily,
    subtitleFontSize: 9,
    subtitleColor: faint,
  },
  view: { stroke: rule },
};
