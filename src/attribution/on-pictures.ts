/** Values of visual tokens as values of the pictures' patches, which heat maps are drawn from. */

import type { HeatMapRow } from '../figures/drawings.ts';
import { finestView } from '../input/image/views.ts';
import type { RgbImage, VisualGrid } from '../input/segments.ts';
import { drawOnPatches, patchMap } from '../models/patch-map.ts';
import type { Sequence } from '../models/sequence.ts';
import type { Vlm } from '../models/vlm.ts';
import type { Box } from './map-measures.ts';

export interface PatchValues extends VisualGrid {
  /** of every cell of the grid, row by row from the top left */
  values: number[];
}

/** Rows of heat maps, one for each picture: each map has a value for every visual token. */
export async function mapsOnPictures(
  vlm: Vlm,
  sequence: Sequence,
  images: readonly RgbImage[],
  maps: readonly { readonly label: string; readonly values: readonly number[] }[],
): Promise<HeatMapRow[]> {
  if (sequence.pictures.length === 0) return [];
  const toPatches = await onPictures(vlm, sequence);
  const drawn = maps.map(({ label, values }) => ({ label, pictures: toPatches(values) }));
  return images.map((image, n) => {
    const own = drawn[0]!.pictures[n]!;
    return {
      ...{ image, grid: own.grid, seen: seenPart(own, image) },
      ...(images.length === 1 ? {} : { label: `Picture ${n + 1}` }),
      maps: drawn.map(({ label, pictures }) => ({ label, values: pictures[n]!.values })),
    };
  });
}

/** The part of a picture that its grid covers: left, top, width, height as fractions of the picture, beyond which it may reach. */
export function seenPart(
  { grid: [rows, columns], regionOf }: VisualGrid,
  { width, height }: Pick<RgbImage, 'width' | 'height'>,
): Box {
  const { left, top, width: across, height: down } = regionOf(0);
  return [left / width, top / height, (across * columns) / width, (down * rows) / height];
}

/**
 * Maps from values of an input's visual tokens to the cells of each of its pictures: as they are where the tokens are the patches (a class token before
 * them is left out), through the Q-Former's cross-attention otherwise. The pictures are looked at once for any number of maps.
 * @throws Error when only the visual tokens of a picture are known
 */
export async function onPictures(vlm: Vlm, { pictures }: Sequence): Promise<(values: readonly number[]) => PatchValues[]> {
  const grids = await Promise.all(
    pictures.map(async ({ count, prepared }) => {
      if (prepared === undefined) throw new Error('a picture of which only the visual tokens are known cannot be drawn on');
      return { count, prepared, map: await patchMap(vlm, prepared) };
    }),
  );
  return (values) => {
    let at = 0;
    return grids.map(({ count, prepared, map }) => {
      const own = values.slice(at, at + count);
      at += count;
      const { grid, regionOf } = prepared;
      const cells = grid[0] * grid[1];
      if (map !== undefined) return { grid, regionOf, values: drawOnPatches(own, map) };
      const { views } = prepared;
      const drawn = views === undefined ? own.slice(count - cells) : finestView(views).tokens.map((token) => own[token]!);
      return { grid, regionOf, values: drawn };
    });
  };
}
