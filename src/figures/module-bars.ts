/** Contribution of each layer's attention and MLP output to a key token (figures 1, 5 and 6 of the paper), as bars. */

import { columnWidth, drawChart } from './chart.ts';
import { categories, faint } from './colours.ts';
import { tokenLabel, wrap } from './text.ts';

/** Contributions of every layer's attention and MLP, [layers] each, as data of a figure. */
export interface ModuleBars {
  /** Numbers of the layers, in the order of the bars. */
  layers: readonly number[];
  attn: ArrayLike<number>;
  mlp: ArrayLike<number>;
  title?: string;
  /** The token that the contributions are about. */
  keyToken?: string;
  /** A layer to mark with a grey band, such as the one that is edited. */
  markLayer?: number;
  /** Other values of the same modules, as a line across each bar: what another key token gets, say. */
  compare?: { label: string; attn: ArrayLike<number>; mlp: ArrayLike<number> };
  /** What the bars are, in the legend; with `compare` only. */
  label?: string;
  /** Range of the vertical axis; from the data when absent. */
  yRange?: readonly [number, number];
  width?: number;
  height?: number;
}

/**
 * SVG text of the contributions of every layer's attention and MLP, as bars.
 * @throws Error when the lists differ in length, or a value is not finite
 */
export function moduleBars({
  layers,
  attn,
  mlp,
  title,
  keyToken,
  markLayer,
  compare,
  label,
  yRange,
  width = columnWidth,
  height = 190,
}: ModuleBars): Promise<string> {
  const values = byModule(layers, attn, mlp);
  const compared = compare === undefined ? [] : byModule(layers, compare.attn, compare.mlp);
  // With many layers only every second (third, ...) number fits below the bars.
  const every = Math.ceil(layers.length / 17);
  const labelFontWeight =
    markLayer === undefined ? 400 : { condition: { test: `datum.value === ${markLayer}`, value: 600 }, value: 400 };
  const x = {
    field: 'layer',
    type: 'ordinal',
    axis: { title: 'Layer', labelAngle: 0, ticks: false, labelFontWeight, values: layers.filter((_, i) => i % every === 0) },
    scale: { paddingInner: 0.25, paddingOuter: 0.15 },
  };
  const bars = {
    mark: { type: 'bar', stroke: '#ffffff', strokeWidth: layers.length > 16 ? 0 : 0.5 },
    encoding: {
      x,
      xOffset: { field: 'module', sort: ['Attention', 'MLP'] },
      y: {
        field: 'contribution',
        type: 'quantitative',
        title: keyToken === undefined ? 'Contribution' : `Contribution to “${tokenLabel(keyToken)}”`,
        // A precision of its own: the default one rounds 0.15 to 0.1 where ticks are 0.05 apart.
        axis: { tickCount: 5, format: '.6~g' },
        ...(yRange === undefined ? {} : { scale: { domain: yRange, nice: false } }),
      },
      color: {
        field: 'module',
        type: 'nominal',
        scale: {
          domain: modules,
          range: [categories[0], categories[1]],
        },
        legend: { title: null, orient: 'top', direction: 'horizontal', offset: 2 },
      },
    },
  };
  // A tick is as wide as its bar, which has its share of the layer's band.
  const tick = Math.max(2, (0.75 * (width - 50)) / layers.length / 2 - 1);
  const ticks = {
    data: { values: compared },
    mark: { type: 'tick', color: '#000000', thickness: 1.6, size: tick, orient: 'horizontal' },
    encoding: { x, xOffset: bars.encoding.xOffset, y: { ...bars.encoding.y }, opacity: { value: 1 } },
  };
  const subtitle =
    compare === undefined ? {} : { subtitle: wrap(`Bars: ${label ?? 'these'}. Black lines: ${compare.label}.`, width - 20, 9) };
  const zero = { mark: { type: 'rule', color: faint, strokeWidth: 0.7 }, encoding: { y: { datum: 0 } } };
  const mark = {
    data: { values: [{ layer: markLayer }] },
    mark: { type: 'rect', color: '#e9edf1' },
    encoding: { x },
  };
  return drawChart({
    width,
    height,
    ...(title === undefined ? {} : { title: { text: wrap(title, width - 20, 10.5, { bold: true }), ...subtitle } }),
    data: { values },
    layer: [...(markLayer === undefined ? [] : [mark]), bars, zero, ...(compare === undefined ? [] : [ticks])],
  });
}

const modules = ['Attention', 'MLP'];

function byModule(layers: readonly number[], attn: ArrayLike<number>, mlp: ArrayLike<number>) {
  if (attn.length !== layers.length || mlp.length !== layers.length) {
    throw new Error(
      `bars of ${layers.length} layers need as many values: ${attn.length} of attention and ${mlp.length} of MLP were given`,
    );
  }
  const values = layers.flatMap((layer, i) => [
    { layer, module: 'Attention', contribution: attn[i] },
    { layer, module: 'MLP', contribution: mlp[i] },
  ]);
  const broken = values.find(({ contribution }) => !Number.isFinite(contribution));
  if (broken)
    throw new Error(
      `the contribution of ${broken.module} in layer ${broken.layer} is ${broken.contribution}, which cannot be drawn`,
    );
  return values;
}
