/** Figure 1: which modules contribute to the answer (dataset average), and where high-contribution layers look, on four samples. */

import type { AverageContribution } from '../../../src/attribution/dataset-average.ts';
import { sum } from '../../../src/attribution/map-measures.ts';
import type { Figure, HeatMapRow } from '../../../src/figures/index.ts';
import { type PaperFigure, withModel } from './figure.ts';
import { gridOf, looks, looksClaims, questionRow, rounding } from './maps.ts';
import { rightContributions, risesClaim } from './modules.ts';
import { moduleBarsOf, pairs } from './parts.ts';
import { askedQuestions, figureRecords } from './scenes.ts';

const samples = 4;

export function overview(model: string, average: Pick<AverageContribution, 'contribution'>, rows: readonly HeatMapRow[]): Figure {
  return {
    columns: 2,
    panels: [
      { kind: 'module-bars', title: `(a) Module contributions, ${model}`, data: moduleBarsOf(average, { height: 290 }) },
      {
        kind: 'heat-maps',
        title: '(b) Where the attention looks',
        data: { rows, across: 2, panel: 70, normalise: 'each', floor: rounding, scaleTitle: 'Visual contribution' },
      },
    ],
  };
}

export const figure1: PaperFigure = {
  summary: 'attribution overview: module contributions (dataset average) and where high-contribution layers look',
  models: ['mini-llava'],
  make: (options) =>
    withModel(options.models?.[0] ?? figure1.models[0]!, options, async (vlm) => {
      const { seed, quick, signal, log } = options;
      const { records } = await figureRecords(options, options.limit ?? (quick ? 40 : 200));
      log(`Module contributions over ${records.length} questions ...`);
      const average = await rightContributions(vlm, records, signal);
      const questions = pairs(await askedQuestions(seed, quick ? 6 : 20));
      log(`Heat maps of ${questions.length} questions ...`);
      const found = await looks(vlm, questions, seed, signal);
      // The layer of a sample (L* in the paper): among the layers that contribute, the one that the picture moves most.
      // One question of each picture; those answered right come first.
      const firsts = found.asked.filter((_, i) => i % 2 === 0);
      const rows = [...firsts.filter(({ right }) => right), ...firsts.filter(({ right }) => !right)]
        .slice(0, samples)
        .map((question, i) => {
          const mass = (layer: number): number => sum(question.maps[layer]!.values);
          const layer = found.high.reduce((best, one) => (mass(one) > mass(best) ? one : best), found.high[0]!);
          return questionRow(`T${i + 1}`, question, gridOf(vlm), [layer]);
        });
      return {
        caption: `Attribution analysis of ${vlm.name}. Left: contribution of the attention and MLP output of each layer to the predicted key token, mean over ${average.count} questions. Right: contribution of the visual representations to the attention output of one high-contribution layer (L), for four samples; dashes outline the asked object's cell.`,
        figure: overview(vlm.name, average, rows),
        claims: [risesClaim(vlm.name, average), ...looksClaims(vlm.name, found)],
        measures: {
          contribution: average.contribution,
          questions: average.count,
          attention: found.attention,
          highLayers: found.high,
          shareInAskedCell: found.shares,
          mapsThatShow: found.insides.map((list) => list.length),
          askedQuestions: found.count,
        },
        models: [{ name: vlm.name, fingerprint: vlm.fingerprint }],
      };
    }),
};
