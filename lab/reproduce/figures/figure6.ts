/** Figure 6: contributions to wrong key tokens, the answers of the locality samples, against those to the right ones. */

import type { AverageContribution } from '../../../src/attribution/dataset-average.ts';
import type { FigurePanel } from '../../../src/figures/index.ts';
import { type Claim, type PaperFigure, times, withModel } from './figure.ts';
import { deepOverShallow, rightContributions, scaleOf, wrongContributions } from './modules.ts';
import { modelsOf, moduleBarsOf } from './parts.ts';
import { figureRecords } from './scenes.ts';

type Bars = Pick<AverageContribution, 'contribution'>;

/** Both on one scale, and the wrong ones on their own. */
export function rightAndWrong(model: string, right: Bars, wrong: Bars): FigurePanel[] {
  const compare = { label: 'wrong key tokens', ...wrong.contribution };
  return [
    { kind: 'module-bars', data: moduleBarsOf(right, { title: model, label: 'right key token', compare }) },
    { kind: 'module-bars', data: moduleBarsOf(wrong, { title: `${model}, wrong key tokens, on their own scale` }) },
  ];
}

export const figure6: PaperFigure = {
  summary: 'module contributions to wrong key tokens (answers of the locality samples) against right ones',
  models: ['mini-blip2-opt', 'mini-llava', 'mini-minigpt4'],
  async make(options) {
    const { quick, signal, log, limit = quick ? 40 : 200 } = options;
    const names = modelsOf(figure6, options);
    const { records } = await figureRecords(options, limit);
    const panels: FigurePanel[] = [];
    const claims: Claim[] = [];
    const measures: Record<string, unknown> = {};
    const models = [];
    for (const name of names) {
      log(`Right and wrong key tokens of ${name} over ${records.length} questions ...`);
      const { right, wrong, model } = await withModel(name, options, async (vlm) => {
        const right = await rightContributions(vlm, records, signal);
        const wrong = await wrongContributions(vlm, records, right, signal);
        return { right, wrong, model: { name: vlm.name, fingerprint: vlm.fingerprint } };
      });
      panels.push(...rightAndWrong(model.name, right, wrong));
      const [r, w] = [scaleOf(right), scaleOf(wrong)];
      const ratio = r.largest / w.largest;
      claims.push({
        claim: `${model.name}: on wrong key tokens the scale of module contributions decreases by an order of magnitude`,
        holds: ratio >= 10,
        measured: `largest contribution ${r.largest.toFixed(4)} on right key tokens, ${w.largest.toFixed(4)} on wrong ones: ratio ${times(ratio)}; mean size ${r.mean.toFixed(4)} and ${w.mean.toFixed(4)}: ratio ${times(r.mean / w.mean)}`,
      });
      const trend = (of: typeof right): number => {
        const sizes = of.contribution.attn.map((a, i) => Math.abs(a) + Math.abs(of.contribution.mlp[i]!));
        const { deep, shallow } = deepOverShallow(sizes);
        return deep / shallow;
      };
      const [rightTrend, wrongTrend] = [trend(right), trend(wrong)];
      claims.push({
        claim: `${model.name}: on wrong key tokens contributions rise less from shallow to deep layers`,
        holds: wrongTrend < rightTrend,
        measured: `deeper half over shallower half: ${times(rightTrend)} on right key tokens, ${times(wrongTrend)} on wrong ones`,
      });
      measures[model.name] = {
        right: right.contribution,
        wrong: wrong.contribution,
        questions: right.count,
        wrongTokens: wrong.count,
        ratioOfLargest: ratio,
        ratioOfMean: r.mean / w.mean,
      };
      models.push(model);
    }
    return {
      caption: `Contribution of module outputs to wrong key tokens (the answers of the locality samples), mean over ${records.length} questions. Left of each pair: right key tokens as bars, wrong ones as black lines, on one scale. Right: wrong key tokens on a scale of their own.`,
      figure: { panels, columns: 2 },
      claims,
      measures,
      models,
    };
  },
};
