/** Heat maps of questions, layer by layer, and whether deep layers look at what is asked (figures 1, 4, 7 and 9). */

import { averageModuleContribution } from '../../../src/attribution/dataset-average.ts';
import { highShare } from '../../../src/attribution/insert-layer.ts';
import { tokenText } from '../../../src/attribution/key-token.ts';
import { massInside, meanOf } from '../../../src/attribution/map-measures.ts';
import { nextToken } from '../../../src/attribution/next-token.ts';
import { onPictures } from '../../../src/attribution/on-pictures.ts';
import { visualAttributions } from '../../../src/attribution/visual-attribution.ts';
import type { HeatMap, HeatMapRow } from '../../../src/figures/index.ts';
import type { RgbImage } from '../../../src/input/segments.ts';
import type { Rewrite } from '../../../src/models/rewrite.ts';
import type { Vlm } from '../../../src/models/vlm.ts';
import { Random } from '../../../src/random.ts';
import { canvas } from '../../world/scene.ts';
import { type Claim, percent, pixels } from './figure.ts';
import { layersOf } from './modules.ts';
import { type AskedQuestion, cellArea } from './scenes.ts';

/** A map whose largest value is not above this shows rounding errors of single precision, nothing of the model. */
export const rounding = 1e-9;

export interface LayerMap {
  readonly layer: number;
  /** one value per patch of the picture */
  readonly values: readonly number[];
}

export interface QuestionMaps {
  /** what the answer begins with */
  readonly answer: string;
  readonly predicted: number;
  readonly maps: readonly LayerMap[];
}

export async function questionMaps(
  vlm: Vlm,
  { prompt, image }: { prompt: string; image: RgbImage },
  layers: readonly number[],
  { seed, rewrite }: { seed: string; rewrite?: Rewrite | undefined },
): Promise<QuestionMaps> {
  const batch = await vlm.batch([vlm.layout({ prompt, image })]);
  const { predicted } = await nextToken(vlm, batch, rewrite);
  const found = await visualAttributions(vlm, batch, layers, {
    protocol: 'paper',
    random: new Random(seed),
    ...(rewrite === undefined ? {} : { rewrite }),
  });
  const toPatches = await onPictures(vlm, batch.sequences[0]!);
  return {
    answer: tokenText(vlm, predicted),
    predicted,
    maps: found.map(({ layer, values }) => ({ layer, values: toPatches(values)[0]!.values })),
  };
}

/** Rows and columns of the maps of a scene. */
export const gridOf = (vlm: Vlm): readonly [number, number] =>
  vlm.processor({ width: canvas, height: canvas, data: new Uint8Array(3 * canvas * canvas) }).grid;

/** Whether a map is more than rounding. */
export const shows = ({ values }: LayerMap): boolean => Math.max(...values) > rounding;

export interface Looks {
  readonly asked: readonly (AskedQuestion & QuestionMaps & { right: boolean })[];
  /** attention's mean contribution per layer, over the same questions */
  readonly attention: readonly number[];
  /** layers whose attention contributes at least `highShare` of the largest */
  readonly high: readonly number[];
  /** share of each map's mass in the asked cell, by layer, for questions answered right; maps that show nothing are left out */
  readonly insides: readonly (readonly number[])[];
  /** their means; null: no map shows anything */
  readonly shares: readonly (number | null)[];
  readonly count: number;
}

/** Maps of every question at every layer. */
export async function looks(vlm: Vlm, questions: readonly AskedQuestion[], seed: number, signal?: AbortSignal): Promise<Looks> {
  const layers = layersOf(vlm);
  const { contribution } = await averageModuleContribution(vlm, questions, { signal });
  const asked = [];
  for (const [i, question] of questions.entries()) {
    signal?.throwIfAborted();
    const found = await questionMaps(vlm, question, layers, { seed: `${seed}/looks/${i}` });
    const [first] = vlm.layout(question, question.answer).targetIds;
    asked.push({ ...question, ...found, right: first === found.predicted });
  }
  const right = asked.filter((question) => question.right);
  const grid = gridOf(vlm);
  const largest = Math.max(...contribution.attn);
  const insides = layers.map((i) =>
    right.flatMap(({ maps, box }) => (shows(maps[i]!) ? (massInside(maps[i]!.values, grid, box) ?? []) : [])),
  );
  return {
    asked,
    attention: contribution.attn,
    high: layers.filter((layer) => contribution.attn[layer]! >= highShare * largest),
    insides,
    shares: insides.map((list) => meanOf(list) ?? null),
    count: right.length,
  };
}

/** The paper's second observation (Fig. 1) on questions about one cell of four. */
export function looksClaims(model: string, { insides, shares, high, count, asked }: Looks): Claim[] {
  const perLayer = insides.map((list, layer) => `${layer}: ${percent(shares[layer] ?? undefined)} (${list.length})`).join(', ');
  // Every map counts once, so that a layer that hardly ever reads the picture weighs as little as it should.
  const pooled = (wanted: boolean): number | undefined =>
    meanOf(insides.flatMap((list, layer) => (high.includes(layer) === wanted ? list : [])));
  const [deep, others] = [pooled(true), pooled(false)];
  const of = `${count} questions answered right of ${asked.length}, the cell is ${percent(cellArea)} of the picture`;
  return [
    {
      claim: `${model}: attention outputs of high-contribution layers are mostly influenced by the region of the asked object`,
      holds: deep === undefined ? null : deep > 0.5,
      measured: `share of the heat map in the asked object's cell (${of}): ${percent(deep)} at the high-contribution layers ${high.join(', ')}. By layer (maps that show anything): ${perLayer}`,
    },
    {
      claim: `${model}: high-contribution layers look at the asked object more than other layers do, and more than its area`,
      holds: deep === undefined ? null : deep > cellArea && deep > (others ?? 0),
      measured: `${percent(deep)} at the high-contribution layers, ${percent(others)} at the others, area ${percent(cellArea)}`,
    },
  ];
}

/** All layers of a small model, eight of a large one, the last among them. */
export function shownLayers(layers: readonly number[], most = 8): number[] {
  if (layers.length <= most) return [...layers];
  return Array.from({ length: most }, (_, i) => layers[Math.round(((i + 1) * layers.length) / most) - 1]!);
}

/** A row of the figure: the question, the answer, the picture and the maps of some layers. */
export function questionRow(
  name: string,
  {
    prompt,
    answer,
    image,
    maps,
    box,
  }: { prompt: string; answer: string; image: RgbImage; maps: readonly LayerMap[]; box?: AskedQuestion['box'] },
  grid: readonly [number, number],
  layers: readonly number[],
): HeatMapRow {
  const shown = layers.map((layer) => maps.find((map) => map.layer === layer)!);
  return {
    caption: `${name}: ${prompt}`,
    captionEnd: `→ ${answer}`,
    label: name,
    image: pixels(image),
    grid,
    ...(box === undefined ? {} : { box }),
    maps: shown.map(({ layer, values }): HeatMap => ({ label: `L${layer}`, values })),
  };
}
