/**
 * Whether a map names what the answer hangs on: the patches that it names are hidden, most first (deletion), or all but those (insertion), and the
 * probability of the answer is measured (Petsiuk et al. 2018). A good map has a small area under the deletion curve and a large one under the insertion
 * curve. Areas are of the probability over the share of the picture that is hidden, or shown: 0 to 1.
 */

import { z } from 'zod';
import type { FigurePanel } from '../../figures/drawings.ts';
import { f32, type Tensor } from '../../graph/dtype.ts';
import { changePicture, changePictures, imagesOf, type RgbImage } from '../../input/segments.ts';
import type { Reading } from '../../models/answer.ts';
import { visualPlaces } from '../../models/sequence.ts';
import { Random } from '../../random.ts';
import { headParts } from '../head-parts.ts';
import { hideCells } from '../hide.ts';
import { nextToken } from '../next-token.ts';
import { onPictures, type PatchValues } from '../on-pictures.ts';
import { patchMaps } from '../patch-attribution.ts';
import { combinedMap, visualAttributions } from '../visual-attribution.ts';
import { defineTool, endOf, fixed, keyOf, type Subject } from './tool.ts';

/** A value of each visual token, and of each patch of all pictures where it is not that of its token. */
interface Values {
  readonly tokens: readonly number[];
  readonly patches?: readonly number[];
}

const quick = { error: 0.1, budget: 2048 };
const layersIn = ({ vlm }: Subject): number[] => Array.from({ length: vlm.decoder.layers }, (_, i) => i);

/** How values are given. */
const methods = {
  /** the map that `attribute visual` draws of all layers together: converged, noise after the norm; where visual tokens are no patches, these are hidden */
  norm: async (subject: Subject, random: Random): Promise<Values> => {
    const { layers, together } = await patchMaps(subject.vlm, subject, layersIn(subject), { random, ...quick });
    return { tokens: combinedMap(layers), patches: together.flatMap(({ values }) => values) };
  },
  /** the same by visual tokens alone: where they are no patches, their values are spread over the patches that they look at */
  spread: (subject: Subject, random: Random) => combined(subject, { random, noiseAt: 'norm', ...quick }),
  /** the same with noise before the norm */
  hidden: (subject: Subject, random: Random) => combined(subject, { random, noiseAt: 'hidden', ...quick }),
  /** ten draws before the norm */
  paper: (subject: Subject, random: Random) => combined(subject, { random, protocol: 'paper' }),
  /** attention probabilities, over all heads and layers */
  attention: async (subject: Subject): Promise<Values> => {
    const { vlm, reading } = subject;
    const places = visualPlaces(reading.batch.sequences[0]!);
    const found = await headParts(vlm, reading, layersIn(subject), endOf(reading));
    const l = reading.batch.length;
    const tokens = places.map((place) =>
      found.reduce((sum, { probabilities: { data } }) => {
        let own = 0;
        for (let at = place; at < data.length; at += l) own += data[at]!;
        return sum + own;
      }, 0),
    );
    return { tokens };
  },
  /** any order */
  random: async ({ reading }: Subject, random: Random): Promise<Values> => ({
    tokens: visualPlaces(reading.batch.sequences[0]!).map(() => random.uniform()),
  }),
} as const;
type Method = keyof typeof methods;

async function combined(subject: Subject, options: Omit<Parameters<typeof visualAttributions>[3], 'rewrite'>): Promise<Values> {
  const { vlm, reading } = subject;
  const rewrite = reading.rewrite === undefined ? {} : { rewrite: reading.rewrite };
  return { tokens: combinedMap(await visualAttributions(vlm, reading.batch, layersIn(subject), { ...options, ...rewrite })) };
}

/** The input with some of its visual tokens taken from another one. */
function withTokens(own: Reading, other: Reading, tokens: readonly number[]): Reading {
  const places = visualPlaces(own.batch.sequences[0]!);
  const feeds = { ...own.batch.feeds };
  for (const name of Object.keys(feeds).filter((one) => one === 'visual' || /^deep/.test(one))) {
    const [mine, theirs] = [feeds[name] as Tensor<'float32'>, other.batch.feeds[name] as Tensor<'float32'>];
    if (mine.shape.join() !== theirs.shape.join())
      throw new Error('the other picture has another number of visual tokens; give one of the same size');
    const width = mine.shape.at(-1)!;
    const data = mine.data.slice();
    for (const token of tokens) {
      const row = name === 'visual' ? token : places[token]!;
      data.set(theirs.data.subarray(row * width, (row + 1) * width), row * width);
    }
    feeds[name] = f32(data, mine.shape);
  }
  return { ...own, batch: { ...own.batch, feeds } };
}

/** Area under a curve of equal steps. */
const area = (curve: readonly number[]): number =>
  curve.slice(1).reduce((sum, value, i) => sum + (value + curve[i]!) / 2, 0) / (curve.length - 1);

const byValue = (values: readonly number[]): number[] => values.map((_, i) => i).sort((a, b) => values[b]! - values[a]! || a - b);

export const check = defineTool({
  id: 'check',
  summary: 'whether maps name what the answer hangs on: patches are hidden, and the answer is measured',
  details:
    'Hides the patches that a map names, most first (deletion), or all but those (insertion), and measures the probability of the answer. A good map has a small deletion area and a large insertion area. Patches are hidden by grey, by blur, or by the visual tokens of another picture (--against-image; with --data the next record’s). The methods are norm (the default map, of all layers together), spread (the same, but with the values of visual tokens spread over the patches where they are no patches), hidden (noise before the norm), paper (ten draws), attention (raw probabilities), random.',
  compares: 'may',
  picture: true,
  options: z.object({
    methods: z.string().default('norm,hidden,paper,attention,random').describe('methods to compare, separated by commas'),
    hide: z
      .string()
      .default('grey,blur,states')
      .describe('how patches are hidden: grey, blur, states; states need another picture'),
    steps: z.int().min(2).max(100).default(6).describe('points of a curve'),
  }),
  async run(subject, { methods: given, hide, steps }, { against, seed = 0, signal, onProgress }) {
    const { vlm, reading, asked } = subject;
    const key = await keyOf(subject);
    const chosen = chosenOf(given, Object.keys(methods)) as Method[];
    const ways = chosenOf(hide, ['grey', 'blur', 'states']).filter((way) => way !== 'states' || against?.image !== undefined);
    if (ways.length === 0) throw new Error('hiding by states needs another picture');
    const images = imagesOf(asked);
    if (images.length === 0) throw new Error('there is no picture to hide');
    const other = against?.image === undefined ? undefined : await subject.read(changePicture(asked, against.image));
    const toPatches = await onPictures(vlm, reading.batch.sequences[0]!);
    const probability = async (one: Reading): Promise<number> =>
      (await nextToken(vlm, one.batch, one.rewrite)).probability(key.id);
    const found: { method: Method; way: string; deletion: number[]; insertion: number[] }[] = [];
    for (const method of chosen) {
      const values = await methods[method](subject, new Random(`${seed}/check/${method}`));
      const cells = toPatches(values.tokens);
      const tokens = byValue(values.tokens);
      const patches = byValue(values.patches ?? cells.flatMap((picture) => picture.values));
      for (const way of ways) {
        const hidden = async (share: number, most: boolean): Promise<number> => {
          signal?.throwIfAborted();
          const order = way === 'states' ? tokens : patches;
          const count = Math.round(share * order.length);
          const which = most ? order.slice(0, count) : order.slice(order.length - count);
          if (which.length === 0) return key.probability;
          if (way === 'states') return probability(withTokens(reading, other!, which));
          return probability(await subject.read(changePictures(asked, hiddenPictures(images, cells, which, way))));
        };
        const shares = Array.from({ length: steps + 1 }, (_, i) => i / steps);
        const deletion: number[] = [];
        for (const share of shares) deletion.push(await hidden(share, true));
        const insertion: number[] = [];
        for (const share of shares) insertion.push(await hidden(1 - share, false));
        found.push({ method, way, deletion, insertion });
        onProgress?.(found.length, chosen.length * ways.length);
      }
    }
    const rows = found.map(({ method, way }) => `${way}: ${method}`);
    const values = found.map(({ deletion, insertion }) => [area(deletion), area(insertion)]);
    const columns = ['deletion', 'insertion'];
    const places = Array.from({ length: steps + 1 }, (_, i) => (100 * i) / steps);
    const panels = ways.flatMap((way) =>
      (['deletion', 'insertion'] as const).map(
        (kind): FigurePanel => ({
          kind: 'line-chart',
          data: {
            title: `${kind === 'deletion' ? 'Hidden' : 'Shown'} by ${way}, most first`,
            xTitle: `Patches ${kind === 'deletion' ? 'hidden' : 'shown'} (%)`,
            ...{ yTitle: `Probability of “${key.text}”`, yRange: [0, 1] as const },
            series: found.filter((one) => one.way === way).map((one) => ({ label: one.method, x: places, y: one[kind] })),
          },
        }),
      ),
    );
    return {
      key,
      said: ['Areas of the probability: a good map has a small deletion and a large insertion area.'],
      table: {
        head: ['hidden by: map', ...columns],
        rows: values.map((row, i) => [rows[i]!, ...row.map((value) => fixed(value, 3))]),
      },
      matrix: { rows, columns, values, what: 'area under the probability of the answer' },
      data: { shares: places.map((place) => place / 100), curves: found.map((one, i) => ({ ...one, areas: values[i] })) },
      panels,
    };
  },
});

/** Pictures of which some cells are hidden, counted over all of them. */
function hiddenPictures(
  images: readonly RgbImage[],
  grids: readonly PatchValues[],
  cells: readonly number[],
  way: string,
): RgbImage[] {
  let first = 0;
  return images.map((image, n) => {
    const { values, regionOf } = grids[n]!;
    const own = cells.filter((cell) => cell >= first && cell < first + values.length).map((cell) => regionOf(cell - first));
    first += values.length;
    return hideCells(image, own, way as 'grey' | 'blur');
  });
}

/** Words of a list, each one of those there are. */
function chosenOf(given: string, known: readonly string[]): string[] {
  const words = given.split(',').map((word) => word.trim());
  const wrong = words.find((word) => !known.includes(word));
  if (wrong !== undefined) throw new Error(`'${wrong}' is not one of: ${known.join(', ')}`);
  return [...new Set(words)];
}
