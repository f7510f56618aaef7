/** Values of visual tokens as values of the picture's patches, which a heat map is drawn from. */

import { drawOnPatches, patchMap } from '../models/patch-map.ts';
import type { RgbImage, Vlm } from '../models/vlm.ts';

export interface PatchValues {
  /** rows and columns */
  grid: readonly [number, number];
  /** row by row from the top left */
  values: number[];
}

/**
 * Maps from [v] values to the patch grid: as they are where the tokens are the patches (a class token before them is left out), through
 * the Q-Former's cross-attention otherwise. The picture is looked at once for any number of maps.
 */
export async function onPicture(vlm: Vlm, image: RgbImage): Promise<(values: readonly number[]) => PatchValues> {
  const { patchGrid: grid, visualTokens } = vlm.architecture;
  const map = await patchMap(vlm, vlm.processor(image));
  const patches = grid[0] * grid[1];
  return (values) => {
    if (map !== undefined) return { grid, values: drawOnPatches(values, map) };
    return { grid, values: values.slice(visualTokens - patches) };
  };
}
