/**
 * Maps of layers on the patches of pictures. Where visual tokens are patches, a patch has the value of its token (visual-attribution.ts). Where they are
 * not, as behind a Q-Former, a token is about many patches, and to spread its value over those that it looks at says little of what they do. There each
 * patch p is hidden, its pixels blurred, and the value is the turn of the attention module's output at the position that is looked from,
 *   C(p) = ½ (1 − cos(a_p[N], a[N])),
 * with a_p that of the input with p hidden. It is Eq. 7 with the patch taken away in the place of noise on a token, and needs no draws.
 */

import { type Asked, changePictures, imagesOf } from '../input/segments.ts';
import type { Reading } from '../models/answer.ts';
import type { Vlm } from '../models/vlm.ts';
import { hideCells } from './hide.ts';
import { onPictures, type PatchValues } from './on-pictures.ts';
import {
  combinedMap,
  noWeight,
  type VisualAttribution,
  type VisualAttributionOptions,
  visualAttributions,
} from './visual-attribution.ts';

/** `tokens`: noise on visual tokens, drawn where they are or look; `hiding`: patches are hidden. */
export type MappedBy = 'tokens' | 'hiding';

/** A question that can be asked about other pictures. */
export interface MappedInput {
  readonly asked: Asked;
  readonly reading: Reading;
  read(asked: Asked): Promise<Reading>;
}

/** A layer's map, and its values and errors on the patches of each picture. Of `hiding`, `values` and `errors` are still those of the visual tokens. */
export interface LayerMap extends VisualAttribution {
  readonly patches: readonly PatchValues[];
  readonly patchErrors: readonly PatchValues[];
}

/** Maps of several layers, and one of all together. */
export interface PatchMaps {
  readonly by: MappedBy;
  readonly layers: readonly LayerMap[];
  readonly together: readonly PatchValues[];
}

/** How a model's patches get their values when nothing else is said: the paper's protocol knows visual tokens only. */
export const mappedBy = ({ architecture }: Vlm, protocol: VisualAttributionOptions['protocol']): MappedBy =>
  architecture.patchMap !== undefined && protocol !== 'paper' ? 'hiding' : 'tokens';

/** Patches of a picture that are hidden one after the other are at most so many: those of a finer grid are hidden in squares. */
const mostHidden = 64;
const together = 8;

/** Squares of cells of a grid, each as the cells in it. */
function squaresOf([rows, columns]: readonly [number, number]): number[][] {
  let side = 1;
  while (Math.ceil(rows / side) * Math.ceil(columns / side) > mostHidden) side++;
  const squares = new Map<string, number[]>();
  for (let cell = 0; cell < rows * columns; cell++) {
    const at = `${Math.floor(cell / columns / side)},${Math.floor((cell % columns) / side)}`;
    squares.set(at, [...(squares.get(at) ?? []), cell]);
  }
  return [...squares.values()];
}

function turn(a: Float32Array, b: Float32Array): number {
  const length = (x: Float32Array): number => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0)) + 1e-12;
  const [la, lb] = [length(a), length(b)];
  return a.reduce((sum, value, i) => sum + (value / la - b[i]! / lb) ** 2, 0) / 4;
}

/** C(p) of each layer on the cells of each picture, [layers][pictures][cells]. A cell's value is its share of that of the square it is hidden with. */
async function hiddenTurns(
  vlm: Vlm,
  { asked, reading, read }: MappedInput,
  grids: readonly Pick<PatchValues, 'grid' | 'regionOf'>[],
  layers: readonly number[],
  signal: AbortSignal | undefined,
): Promise<number[][][]> {
  const names = layers.map((layer) => `layers.${layer}.attn.out`);
  const outputs = async ({ batch, rewrite }: Reading): Promise<Float32Array[]> => {
    signal?.throwIfAborted();
    const out = await vlm.run({ from: 0, to: Math.max(...layers) + 1, read: names }, batch, {}, rewrite);
    const [d, end] = [vlm.decoder.hidden, batch.sequences[0]!.promptEnd];
    return names.map((name) => (out[name]!.data as Float32Array).slice(end * d, (end + 1) * d));
  };
  const clean = await outputs(reading);
  const images = imagesOf(asked);
  const found = layers.map(() => grids.map(({ grid }) => new Array<number>(grid[0] * grid[1]).fill(0)));
  for (const [n, { grid, regionOf }] of grids.entries()) {
    const squares = squaresOf(grid);
    for (let at = 0; at < squares.length; at += together) {
      const some = squares.slice(at, at + together);
      const readings = await Promise.all(
        some.map((cells) => {
          const hidden = hideCells(images[n]!, cells.map(regionOf), 'blur');
          return read(
            changePictures(
              asked,
              images.map((image, i) => (i === n ? hidden : image)),
            ),
          );
        }),
      );
      for (const [i, cells] of some.entries()) {
        const changed = await outputs(readings[i]!);
        changed.forEach((output, l) => {
          for (const cell of cells) found[l]![n]![cell] = turn(output, clean[l]!) / cells.length;
        });
      }
    }
  }
  return found;
}

/** Maps of several layers on the patches of an input's pictures. */
export async function patchMaps(
  vlm: Vlm,
  input: MappedInput,
  layers: readonly number[],
  { by = undefined, ...options }: Omit<VisualAttributionOptions, 'rewrite' | 'end'> & { by?: MappedBy | undefined },
): Promise<PatchMaps> {
  const { batch, rewrite } = input.reading;
  const maps = await visualAttributions(vlm, batch, layers, { ...options, ...(rewrite === undefined ? {} : { rewrite }) });
  const toPatches = await onPictures(vlm, batch.sequences[0]!);
  const onPatches = maps.map((map) => ({ ...map, patches: toPatches(map.values), patchErrors: toPatches(map.errors) }));
  const chosen = by ?? mappedBy(vlm, options.protocol);
  if (chosen === 'tokens' || layers.length === 0)
    return { by: chosen, layers: onPatches, together: toPatches(combinedMap(maps)) };
  const pictures = onPatches[0]!.patches;
  const turns = await hiddenTurns(vlm, input, pictures, layers, options.signal);
  const hidden = onPatches.map((map, l) => {
    const values = turns[l]!;
    const total = values.flat().reduce((a, b) => a + b, 0);
    return {
      ...map,
      ...{ carriesWeight: total >= noWeight, converged: true, error: 0 },
      patches: pictures.map((picture, n) => ({ ...picture, values: values[n]! })),
      patchErrors: pictures.map((picture) => ({ ...picture, values: picture.values.map(() => 0) })),
    };
  });
  const all = combinedMap(
    hidden.map(({ patches, carriesWeight }) => ({ values: patches.flatMap(({ values }) => values), carriesWeight })),
  );
  let at = 0;
  const combined = pictures.map((picture) => {
    const values = all.slice(at, at + picture.values.length);
    at += picture.values.length;
    return { ...picture, values };
  });
  return { by: chosen, layers: hidden, together: combined };
}
