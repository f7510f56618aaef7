/** What the numbers of an attribution say, in sentences for a person who has never read the paper. */
import type { AttributionParts, LensLayer, ModuleValues, VisualMaps } from '../../api/types.ts';
import { percent, tokenText } from '../../parts/words.ts';

const quoted = (text: string): string => `“${tokenText(text)}”`;

export function explainModules(key: AttributionParts['key'], layers: readonly number[], { attn, mlp }: ModuleValues): string {
  const all = [
    ...attn.map((value, i) => ({ value, what: `attention in layer ${layers[i]}` })),
    ...mlp.map((value, i) => ({ value, what: `the MLP in layer ${layers[i]}` })),
  ].sort((a, b) => b.value - a.value);
  const [first, second] = all;
  if (first === undefined || first.value <= 0.01)
    return `No single part speaks clearly for ${quoted(key.text)}: the model has no reason of its own for this word.`;
  const also = second !== undefined && second.value > 0.3 * first.value ? `, then ${second.what}` : '';
  return `The strongest voice for ${quoted(key.text)} is ${first.what}${also}.`;
}

/** In which layer the word first becomes the first choice, from which layer on it stays so, and what was before it. */
export function explainLens(key: AttributionParts['key'], lens: readonly LensLayer[]): string {
  const last = lens.at(-1);
  if (last === undefined) return '';
  if (last.key_rank !== 0)
    return `The model does not say ${quoted(key.text)} here: its first choice is ${quoted(last.tokens[0]!.text)} (${percent(last.tokens[0]!.probability)}).`;
  let from = lens.length - 1;
  while (from > 0 && lens[from - 1]!.tokens[0]?.id === key.id) from--;
  if (from === 0) return `${quoted(key.text)} is the first choice from the very first layer on.`;
  const earliest = lens.find(({ tokens }) => tokens[0]?.id === key.id)!;
  const early = earliest === lens[from] ? '' : ` It was first in layer ${earliest.layer} already, and lost that place again.`;
  const before = lens[from - 1]!;
  return `${quoted(key.text)} is the first choice from layer ${lens[from]!.layer} on; one layer before, it was ${quoted(before.tokens[0]!.text)} (${percent(before.tokens[0]!.probability)}).${early}`;
}

export interface Place {
  /** `at the top left` */
  where: string;
  /** Share of all weight in the strongest tenth of the patches. */
  share: number;
}

/** Where the weight of a map lies; undefined for a map of nothing. */
export function placeOf(values: ArrayLike<number>, [rows, columns]: readonly [number, number]): Place | undefined {
  const cells = Array.from({ length: rows * columns }, (_, i) => ({ i, value: Math.max(0, values[i]!) }));
  const total = cells.reduce((sum, { value }) => sum + value, 0);
  if (!(total > 0)) return undefined;
  const strongest = cells.sort((a, b) => b.value - a.value).slice(0, Math.max(1, Math.round(cells.length / 10)));
  const weight = strongest.reduce((sum, { value }) => sum + value, 0);
  const [row, column] = [
    strongest.reduce((sum, { i, value }) => sum + (value * (Math.floor(i / columns) + 0.5)) / rows, 0) / weight,
    strongest.reduce((sum, { i, value }) => sum + (value * ((i % columns) + 0.5)) / columns, 0) / weight,
  ];
  const third = (x: number): 0 | 1 | 2 => (x < 0.38 ? 0 : x > 0.62 ? 2 : 1);
  const vertical = ['top', '', 'bottom'][third(row)]!;
  const horizontal = ['left', '', 'right'][third(column)]!;
  const words = [vertical, horizontal].filter(Boolean).join(' ');
  return { where: words === '' ? 'in the middle' : `at the ${words}`, share: weight / total };
}

/** @param layer the one to tell of */
export function explainMaps(visual: VisualMaps, layer: number): string {
  const map = visual.layers.find((one) => one.layer === layer) ?? visual.layers.at(-1)!;
  const place = map.carries_weight ? placeOf(map.patches, visual.grid) : undefined;
  if (place === undefined) return 'Nothing in the picture matters for this word: it comes from the words before it.';
  const even = place.share < 0.2;
  return even
    ? `In layer ${map.layer} it looks at the whole picture rather than at one place.`
    : `In layer ${map.layer} it looks mostly ${place.where}: a tenth of the patches has ${percent(place.share)} of the weight.`;
}

/** The layer whose attention speaks loudest for the word: where it looks says most about the answer. */
export function loudestLayer(layers: readonly number[], { attn }: ModuleValues): number {
  return layers[attn.indexOf(Math.max(...attn))] ?? 0;
}
