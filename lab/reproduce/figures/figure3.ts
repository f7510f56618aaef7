/** Figures 3 and 8: the influence mapper's gates on the edited picture and on queried ones, related and unrelated to the edit. */

import { massInside, meanOf, sum } from '../../../src/attribution/map-measures.ts';
import type { Figure, HeatMapRow } from '../../../src/figures/index.ts';
import type { RgbImage } from '../../../src/input/segments.ts';
import { type EditCase, editCases } from './edits.ts';
import {
  type Claim,
  type FigureOptions,
  type FigureResult,
  type PaperFigure,
  percent,
  pixels,
  times,
  withModel,
} from './figure.ts';
import { gatesOnPicture, influenceGates } from './influence-gates.ts';
import { gridOf } from './maps.ts';

interface Gated extends EditCase {
  /** gates by picture, one per patch */
  gates: Record<'edited' | 'rephrased' | 'unrelated', number[]>;
}

/** @param tests for each row, whether the queried picture is related to the edit; @param skip edits that another figure shows */
function influenceFigure(tests: readonly boolean[], skip: number, across: number): PaperFigure {
  const figure: PaperFigure = {
    summary: `outputs of the influence mapper on edited and queried pictures${skip === 0 ? '' : ', more samples'}`,
    models: ['mini-llava'],
    make: (options) => make(options, figure.models[0]!, tests, skip, across),
  };
  return figure;
}

export const figure3 = influenceFigure([true, true, false], 0, 1);
export const figure8 = influenceFigure([true, true, true, true, false, false], 3, 2);

const make = (
  options: FigureOptions,
  model: string,
  tests: readonly boolean[],
  skip: number,
  across: number,
): Promise<FigureResult> =>
  withModel(options.models?.[0] ?? model, options, async (vlm) => {
    const { quick, log, signal, limit = quick ? 16 : 80 } = options;
    const { weights, files, cases } = await editCases(vlm, options, Math.max(limit, skip + tests.length), () => true);
    log(`Gates of ${cases.length} edits on three pictures each ...`);
    const gated: Gated[] = [];
    for (const one of cases) {
      signal?.throwIfAborted();
      const of = async (image: EditCase['edited']): Promise<number[]> =>
        gatesOnPicture(vlm, image, await influenceGates(vlm, weights, one.edit, image));
      gated.push({
        ...one,
        gates: { edited: await of(one.edited), rephrased: await of(one.rephrased), unrelated: await of(one.unrelated) },
      });
    }
    const grid = gridOf(vlm);
    // Shown are pictures whose things have their own names; the measures are over all.
    const shown = [...gated.filter(({ plain }) => plain), ...gated.filter(({ plain }) => !plain)].slice(
      skip,
      skip + tests.length,
    );
    const mean = (of: keyof Gated['gates']): number => meanOf(gated.map(({ gates }) => sum(gates[of]) / gates[of].length))!;
    const inside = (of: keyof Gated['gates']): number | undefined =>
      meanOf(gated.map(({ gates, box }) => (box === undefined ? undefined : massInside(gates[of], grid, box))));
    const means = { edited: mean('edited'), rephrased: mean('rephrased'), unrelated: mean('unrelated') };
    const shares = { edited: inside('edited'), rephrased: inside('rephrased') };
    return {
      caption: `Gates of the influence mapper of VEAD after layer ${weights.settings.layer} of ${vlm.name}. In each test VEAD is edited with the left picture and the prompt; its gates are shown on that picture and on a queried one. Dashes outline the asked object's cell.`,
      figure: gatesFigure(
        shown.map((one, i) => ({ ...one, ...one.record.request, related: tests[i]! })),
        grid,
        across,
      ),
      claims: claims(vlm.name, means, shares, gated.length),
      measures: { meanGate: means, shareInAskedCell: shares, edits: gated.length, layer: weights.settings.layer },
      models: [{ name: vlm.name, fingerprint: vlm.fingerprint }],
      files,
    };
  });

interface GatesTest extends Omit<Gated, 'record' | 'edit' | 'plain'> {
  prompt: string;
  target: string;
  /** whether the queried picture shows what the edit is about */
  related: boolean;
}

export function gatesFigure(tests: readonly GatesTest[], grid: readonly [number, number], across: number): Figure {
  const pictures: RgbImage[] = [];
  const rows = tests.map(({ prompt, target, box: asked, related, edited, rephrased, unrelated, gates }, i): HeatMapRow => {
    const image = pictures.push(pixels(edited), pixels(related ? rephrased : unrelated)) - 2;
    const box = asked === undefined ? {} : { box: asked };
    const boxQueried = related ? box : {};
    return {
      caption: `Test ${i + 1}: ${prompt}`,
      captionEnd: `→ ${target}`,
      grid,
      maps: [
        { label: 'Edited', image, ...box },
        { label: 'Gates', image, values: gates.edited, ...box },
        { label: related ? 'Queried' : 'Unrelated', image: image + 1, ...boxQueried },
        { label: 'Gates', image: image + 1, values: related ? gates.rephrased : gates.unrelated, ...boxQueried },
      ],
    };
  });
  const data = { rows, pictures, across, panel: 74, range: [0, 1] as const, scaleTitle: 'Gate (edit intensity)' };
  return { columns: 1, panels: [{ kind: 'heat-maps', data }] };
}

function claims(
  model: string,
  { edited, rephrased, unrelated }: Record<'edited' | 'rephrased' | 'unrelated', number>,
  shares: Record<'edited' | 'rephrased', number | undefined>,
  count: number,
): Claim[] {
  const known = shares.edited !== undefined && shares.rephrased !== undefined;
  return [
    {
      claim: `${model}: pictures unrelated to the edit receive low edit intensities`,
      holds: unrelated < 0.5 && unrelated < rephrased / 2,
      measured: `mean gate over ${count} edits: ${edited.toFixed(3)} on the edited picture, ${rephrased.toFixed(3)} on its rephrased picture, ${unrelated.toFixed(3)} on an unrelated one (rephrased over unrelated ${times(rephrased / unrelated)})`,
    },
    {
      claim: `${model}: the influence mapper picks the region that the edit prompt is about`,
      holds: known ? shares.edited! > 0.25 && shares.rephrased! > 0.25 : null,
      measured: `share of the gates in the asked object's cell: ${percent(shares.edited)} on the edited picture, ${percent(shares.rephrased)} on the rephrased one; the cell is 25.0 % of the picture`,
    },
  ];
}
