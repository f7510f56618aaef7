/**
 * Where on the picture a visual token looks. Tokens that are patches stand where they are; the Q-Former's tokens are drawn through its
 * cross-attention, the mean over heads and layers.
 */

import { f32, type Tensor } from '../graph/index.ts';
import type { PreparedPicture } from '../input/segments.ts';
import { readVision } from './vision.ts';
import type { Vlm } from './vlm.ts';

/** Attention of each visual token to each patch [v, patches]; undefined where the tokens are patches. */
export async function patchMap(vlm: Vlm, picture: PreparedPicture): Promise<Tensor<'float32'> | undefined> {
  const { patchMap: site } = vlm.architecture;
  if (site === undefined) return undefined;
  const map = (await readVision(vlm, picture, [site]))[site]!;
  return f32(map.data as Float32Array, map.shape.slice(1));
}

/** Values of visual tokens [v] as values of patches: each token's value is spread over the patches it looks at; the sum stays. */
export function drawOnPatches(values: readonly number[], map: Tensor<'float32'>): number[] {
  const [tokens, patches] = map.shape as [number, number];
  if (values.length !== tokens) throw new Error(`${values.length} values, but the map is of ${tokens} visual tokens`);
  const out = new Array<number>(patches).fill(0);
  values.forEach((value, t) => {
    const row = map.data.subarray(t * patches, (t + 1) * patches);
    const total = row.reduce((a, b) => a + b, 0);
    if (total > 0) for (let p = 0; p < patches; p++) out[p]! += (value * row[p]!) / total;
  });
  return out;
}
