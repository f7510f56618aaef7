/** Figures 4 and 9: where layers look before and after a counterfactual edit: reliability, text and modal generality, modal locality. */

import { massInside, meanOf, overlap } from '../../../src/attribution/map-measures.ts';
import { vead, veadRewrite } from '../../../src/editors/vead/vead.ts';
import type { FigurePanel, HeatMap, HeatMapRow } from '../../../src/figures/index.ts';
import type { RgbImage } from '../../../src/input/segments.ts';
import { unedited } from '../../../src/models/answer.ts';
import type { Vlm } from '../../../src/models/vlm.ts';
import { type EditCase, editCases } from './edits.ts';
import { type Claim, type FigureOptions, type FigureResult, type PaperFigure, percent, pixels, withModel } from './figure.ts';
import { gridOf, type LayerMap, questionMaps, rounding, shownLayers, shows } from './maps.ts';
import { layersOf } from './modules.ts';
import { cellArea } from './scenes.ts';

/** BE: before editing, AE: after editing. */
const views = ['beRel', 'aeRel', 'aeTextGen', 'aeModalGen', 'beModalLoc', 'aeModalLoc'] as const;
type View = (typeof views)[number];
const viewLabels: Record<View, string> = {
  beRel: 'BE Rel.',
  aeRel: 'AE Rel.',
  aeTextGen: 'AE T-Gen.',
  aeModalGen: 'AE M-Gen.',
  beModalLoc: 'BE M-Loc.',
  aeModalLoc: 'AE M-Loc.',
};
const isAfter = (view: View): boolean => view.startsWith('ae');

interface Viewed extends EditCase {
  views: Record<View, { prompt: string; image: RgbImage; answer: string; maps: readonly LayerMap[] }>;
}

function beforeAfterFigure(first: number, shown: number): PaperFigure {
  const figure: PaperFigure = {
    summary: `attribution before and after an edit: reliability, generality, locality${first === 0 ? '' : ', more samples'}`,
    models: ['mini-llava'],
    make: (options) => make(options, figure.models[0]!, first, shown),
  };
  return figure;
}

export const figure4 = beforeAfterFigure(0, 1);
export const figure9 = beforeAfterFigure(1, 2);

const make = (options: FigureOptions, model: string, first: number, shown: number): Promise<FigureResult> =>
  withModel(options.models?.[0] ?? model, options, async (vlm) => {
    const { quick, log, limit = quick ? 6 : 24 } = options;
    const { weights, files, cases } = await editCases(
      vlm,
      options,
      limit,
      (record) => (record.edit ?? 'counterfactual') === 'counterfactual',
    );
    const insert = weights.settings.layer as number;
    const layers = layersOf(vlm).filter((layer) => layer > insert);
    log(`Heat maps of ${cases.length} edits, before and after, at layers ${layers.join(', ')} ...`);
    const viewed = await viewAll(vlm, cases, layers, options);
    // Shown are edits that did what was asked for, as in the paper; the measures are over all.
    const worked = viewed.filter((one) => rightBefore(one) && succeeded(one));
    const order = [...worked.filter(({ plain }) => plain), ...worked.filter(({ plain }) => !plain), ...viewed];
    const chosen = [...new Set(order)].slice(first, first + shown);
    const grid = gridOf(vlm);
    const panels = chosen.map((one) =>
      editPanel({ ...one, ...one.record.request }, grid, shownLayers(layers, shown === 1 ? 4 : 2)),
    );
    const measured = measures(viewed, layers, grid);
    return {
      caption: `Visual representation attribution of ${vlm.name} before (BE) and after (AE) VEAD, inserted after layer ${insert}, edits a counterfactual sample: reliability (Rel.), text and modal generality (T-Gen., M-Gen.), modal locality (M-Loc.); L is the layer. Each map has its own scale; dashes outline the asked object's cell.`,
      figure: { panels, columns: 1 },
      claims: claims(vlm.name, measured, viewed.length),
      measures: { ...measured, edits: viewed.length, insertLayer: insert, layers },
      models: [{ name: vlm.name, fingerprint: vlm.fingerprint }],
      files,
    };
  });

async function viewAll(
  vlm: Vlm,
  cases: readonly EditCase[],
  layers: readonly number[],
  options: FigureOptions,
): Promise<Viewed[]> {
  const queries = (view: View) =>
    cases.map(({ record, edited, rephrased, unrelated }): { prompt: string; image: RgbImage } => {
      const { request, queries } = record;
      switch (view) {
        case 'beModalLoc':
        case 'aeModalLoc':
          return { prompt: queries.modalLocality.prompt, image: unrelated };
        case 'aeModalGen':
          return { prompt: request.prompt, image: rephrased };
        case 'aeTextGen':
          return { prompt: queries.textGenerality.prompt, image: edited };
        default:
          return { prompt: request.prompt, image: edited };
      }
    });
  const before = unedited(vlm);
  const after = vead.with(
    vlm,
    cases.map(({ edit }) => edit),
  );
  const out = cases.map((one): Viewed => ({ ...one, views: {} as Viewed['views'] }));
  for (const view of views) {
    const list = queries(view);
    const answers = await (isAfter(view) ? after : before).generate(list, { maxNewTokens: 8 });
    for (const [i, query] of list.entries()) {
      options.signal?.throwIfAborted();
      const rewrite = isAfter(view) ? veadRewrite([cases[i]!.edit]) : undefined;
      // The same noise before and after, so that maps differ by the edit alone.
      const { maps } = await questionMaps(vlm, query, layers, { seed: `${options.seed}/edit/${i}`, rewrite });
      out[i]!.views[view] = { ...query, answer: answers[i]!.text, maps };
    }
  }
  return out;
}

const rightBefore = ({ record, views }: Viewed): boolean => record.pred === undefined || views.beRel.answer === record.pred;
const succeeded = ({ record, views }: Viewed): boolean =>
  (['aeRel', 'aeTextGen', 'aeModalGen'] as const).every((view) => views[view].answer === record.request.target) &&
  views.beModalLoc.answer === views.aeModalLoc.answer;

export interface EditViews extends Pick<Viewed, 'views' | 'box'> {
  prompt: string;
  target: string;
}

export function editPanel(
  { prompt: edit, target, views: viewed, box }: EditViews,
  grid: readonly [number, number],
  layers: readonly number[],
): FigurePanel {
  const boxOf = (view: View) => (box === undefined || view.endsWith('ModalLoc') ? {} : { box });
  const pictures = [...new Set(views.map((view) => viewed[view].image))];
  const pictureOf = (view: View): number => pictures.indexOf(viewed[view].image);
  const rows: HeatMapRow[] = [
    {
      caption: `Edit: ${edit}`,
      captionEnd: `→ ${target}`,
      maps: views.map((view): HeatMap => {
        const { prompt, answer } = viewed[view];
        return { label: viewLabels[view], image: pictureOf(view), prompt, answer, ...boxOf(view) };
      }),
    },
    ...layers.map(
      (layer): HeatMapRow => ({
        grid,
        maps: views.map((view): HeatMap => {
          const values = viewed[view].maps.find((map) => map.layer === layer)!.values;
          return {
            label: `L${layer}`,
            image: pictureOf(view),
            values,
            ...boxOf(view),
          };
        }),
      }),
    ),
  ];
  return {
    kind: 'heat-maps',
    data: {
      rows,
      pictures: pictures.map(pixels),
      perLine: views.length,
      panel: 98,
      normalise: 'each',
      floor: rounding,
      scaleTitle: 'Visual contribution',
    },
  };
}

interface Measures {
  /** overlap of maps, mean over edits and layers */
  overlap: Record<'reliability' | 'textGenerality' | 'modalLocality' | 'otherQuestion', number | undefined>;
  /** share of a map in the asked cell */
  shareInAskedCell: Partial<Record<View, number | undefined>>;
  /** share of edits whose answer is the target, and of unrelated answers that stay */
  answers: Record<'reliability' | 'textGenerality' | 'modalGenerality' | 'modalLocality', number>;
}

function measures(viewed: readonly Viewed[], layers: readonly number[], grid: readonly [number, number]): Measures {
  const alike = (a: (one: Viewed, i: number) => readonly LayerMap[], b: (one: Viewed, i: number) => readonly LayerMap[]) =>
    meanOf(
      viewed.flatMap((one, i) =>
        layers.map((_, at) => {
          const [x, y] = [a(one, i)[at]!, b(one, i)[at]!];
          return shows(x) && shows(y) ? overlap(x.values, y.values) : undefined;
        }),
      ),
    );
  const maps = (view: View) => (one: Viewed) => one.views[view].maps;
  const inside = (view: View) =>
    meanOf(
      viewed.flatMap(({ views, box }) =>
        views[view].maps.map((map) => (box === undefined || !shows(map) ? undefined : massInside(map.values, grid, box))),
      ),
    );
  const share = (holds: (one: Viewed) => boolean): number => viewed.filter(holds).length / viewed.length;
  const says = (view: View) => share(({ record, views }) => views[view].answer === record.request.target);
  return {
    overlap: {
      reliability: alike(maps('beRel'), maps('aeRel')),
      textGenerality: alike(maps('aeRel'), maps('aeTextGen')),
      modalLocality: alike(maps('beModalLoc'), maps('aeModalLoc')),
      otherQuestion: alike(maps('beRel'), (_, i) => viewed[(i + 1) % viewed.length]!.views.beRel.maps),
    },
    shareInAskedCell: {
      beRel: inside('beRel'),
      aeRel: inside('aeRel'),
      aeTextGen: inside('aeTextGen'),
      aeModalGen: inside('aeModalGen'),
    },
    answers: {
      reliability: says('aeRel'),
      textGenerality: says('aeTextGen'),
      modalGenerality: says('aeModalGen'),
      modalLocality: share(({ views }) => views.beModalLoc.answer === views.aeModalLoc.answer),
    },
  };
}

function claims(model: string, { overlap, shareInAskedCell: inside, answers }: Measures, count: number): Claim[] {
  const number = (x: number | undefined): string => (x === undefined ? 'none' : x.toFixed(3));
  const stays = (x: number | undefined): boolean | null =>
    x === undefined || overlap.otherQuestion === undefined ? null : x > 0.5 && x > overlap.otherQuestion;
  return [
    {
      claim: `${model}: the edit changes the answers of reliability and generality samples`,
      holds: answers.reliability > 0.5 && answers.textGenerality > 0.5 && answers.modalGenerality > 0.5,
      measured: `answers that become the target, of ${count} counterfactual edits: reliability ${percent(answers.reliability)}, text generality ${percent(answers.textGenerality)}, modal generality ${percent(answers.modalGenerality)}`,
    },
    {
      claim: `${model}: the edit does not significantly change the region that the model looks at`,
      holds:
        inside.beRel === undefined || inside.aeRel === undefined || inside.aeTextGen === undefined
          ? null
          : [inside.aeRel, inside.aeTextGen].every((after) => Math.abs(after - inside.beRel!) < 0.1),
      measured: `share of the heat maps in the asked object's cell, mean over edits and layers: ${percent(inside.beRel)} before, ${percent(inside.aeRel)} after, ${percent(inside.aeTextGen)} for the rephrased prompt, ${percent(inside.aeModalGen)} on the rephrased picture; area ${percent(cellArea)}`,
    },
    {
      claim: `${model}: patch by patch, too, most of a heat map stays where it was`,
      holds: stays(overlap.reliability),
      measured: `overlap of heat maps before and after (1: the same, 0: no place shared): ${number(overlap.reliability)}; after, with the prompt and with the rephrased one: ${number(overlap.textGenerality)}; of another question on another picture: ${number(overlap.otherQuestion)}`,
    },
    {
      claim: `${model}: attention on pictures unrelated to the edit stays as it was`,
      holds: stays(overlap.modalLocality),
      measured: `overlap of heat maps of modal locality samples before and after: ${number(overlap.modalLocality)}; ${percent(answers.modalLocality)} of their answers stay`,
    },
  ];
}
