/** Figure 5: module contributions of the other backbones, dataset average. */

import type { AverageContribution } from '../../../src/attribution/dataset-average.ts';
import type { FigurePanel } from '../../../src/figures/index.ts';
import { type Claim, type PaperFigure, withModel } from './figure.ts';
import { rightContributions, risesClaim } from './modules.ts';
import { modelsOf, moduleBarsOf } from './parts.ts';
import { figureRecords } from './scenes.ts';

export const contributionBars = (model: string, average: Pick<AverageContribution, 'contribution'>): FigurePanel => ({
  kind: 'module-bars',
  data: moduleBarsOf(average, { title: model }),
});

export const figure5: PaperFigure = {
  summary: 'module contributions of the other backbones (dataset average)',
  models: ['mini-blip2-opt', 'mini-minigpt4'],
  async make(options) {
    const { quick, signal, log, limit = quick ? 40 : 200 } = options;
    const names = modelsOf(figure5, options);
    const { records } = await figureRecords(options, limit);
    const panels: FigurePanel[] = [];
    const claims: Claim[] = [];
    const measures: Record<string, unknown> = {};
    const models = [];
    for (const name of names) {
      log(`Module contributions of ${name} over ${records.length} questions ...`);
      const { average, model } = await withModel(name, options, async (vlm) => ({
        average: await rightContributions(vlm, records, signal),
        model: { name: vlm.name, fingerprint: vlm.fingerprint },
      }));
      panels.push(contributionBars(model.name, average));
      claims.push(risesClaim(model.name, average));
      measures[model.name] = { contribution: average.contribution, prob: average.prob, questions: average.count };
      models.push(model);
    }
    return {
      caption: `Contribution of the attention and MLP output of each layer to the predicted key token, mean over ${records.length} questions: ${models.map(({ name }) => name).join(', ')}.`,
      figure: { panels, columns: 2 },
      claims,
      measures,
      models,
    };
  },
};
