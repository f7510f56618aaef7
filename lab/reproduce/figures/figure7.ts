/** Figure 7: where every layer looks, on eight samples: four pictures with two questions each. */

import type { Figure, HeatMapRow } from '../../../src/figures/index.ts';
import { type PaperFigure, withModel } from './figure.ts';
import { gridOf, looks, looksClaims, questionRow, rounding, shownLayers } from './maps.ts';
import { layersOf } from './modules.ts';
import { pairs } from './parts.ts';
import { askedQuestions, cellArea } from './scenes.ts';

const samples = 8;

export const figure7: PaperFigure = {
  summary: 'where every layer looks, on eight samples',
  models: ['mini-llava'],
  make: (options) =>
    withModel(options.models?.[0] ?? figure7.models[0]!, options, async (vlm) => {
      const { seed, quick, signal, log } = options;
      const questions = pairs(await askedQuestions(seed, quick ? 6 : 20));
      log(`Heat maps of ${questions.length} questions at ${vlm.decoder.layers} layers ...`);
      const found = await looks(vlm, questions, seed, signal);
      const layers = shownLayers(layersOf(vlm));
      // Pictures whose two questions are both answered right come first, so that the two rows show what the question changes.
      const both = (i: number): number => Number(found.asked[i - (i % 2)]!.right && found.asked[i - (i % 2) + 1]!.right);
      const order = found.asked.map((_, i) => i).sort((a, b) => both(b) - both(a) || a - b);
      const rows = order.slice(0, samples).map((at, i) => questionRow(`T${i + 1}`, found.asked[at]!, gridOf(vlm), layers));
      return {
        caption: `Contribution of the visual representations of ${vlm.name} to the attention output at the answer, for eight questions about four pictures (T) at each layer (L). Each map has its own scale, given below it; dashes outline the asked object's cell.`,
        figure: allLayers(
          rows,
          layers.length,
          found.insides.map((list, i) => (2 * list.length >= found.count ? found.shares[i]! : null)),
        ),
        claims: looksClaims(vlm.name, found),
        measures: {
          attention: found.attention,
          highLayers: found.high,
          shareInAskedCell: found.shares,
          mapsThatShow: found.insides.map((list) => list.length),
          questions: found.asked.length,
          right: found.count,
        },
        models: [{ name: vlm.name, fingerprint: vlm.fingerprint }],
      };
    }),
};

/** @param shares null: layers where most maps show nothing, which have no place in the curve */
export function allLayers(rows: readonly HeatMapRow[], layers: number, shares: readonly (number | null)[]): Figure {
  return {
    columns: 1,
    panels: [
      {
        kind: 'heat-maps',
        data: {
          rows,
          perLine: layers,
          panel: Math.min(64, Math.floor(630 / (layers + 1)) - 6),
          normalise: 'each',
          floor: rounding,
          scaleTitle: 'Visual contribution',
        },
      },
      {
        kind: 'line-chart',
        title: 'Share of the heat map in the asked cell, mean over the questions',
        data: {
          xTitle: 'Layer',
          yTitle: 'Share',
          yFormat: 'percent',
          yRange: [0, 1],
          series: [
            shareLine('asked cell', shares),
            shareLine(
              'area of the cell',
              shares.map(() => cellArea),
            ),
          ],
          width: 430,
          height: 130,
        },
      },
    ],
  };
}

function shareLine(label: string, shares: readonly (number | null)[]) {
  const there = shares.flatMap((share, layer) => (share === null ? [] : [{ layer, share }]));
  return { label, x: there.map(({ layer }) => layer), y: there.map(({ share }) => share) };
}
