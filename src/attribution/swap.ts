/** States that are put in the place of a run's own, at chosen sites and positions: what activation patching does. */

import { f32, type Tensor } from '../graph/dtype.ts';
import { add, constant, gather, i64, input, mul, reshape, sub } from '../graph/index.ts';
import type { Reading } from '../models/answer.ts';
import { defineRewrite, type Rewrite } from '../models/rewrite.ts';
import type { Patch } from '../models/sites.ts';
import { under } from './tools/tool.ts';

/** One program for all sites: at which of them, and where, is an input. */
const swapping = defineRewrite(({ sites }: { sites: readonly string[] }) => ({
  patches: () =>
    new Map(
      sites.map((site, i): [string, Patch] => [
        site,
        (x) => {
          const masks = input('swap.masks', [sites.length, x.dim(1)]);
          const mask = reshape(gather(masks, constant(i64([i], [1]))), [1, x.dim(1), 1]);
          return add(x, mul(mask, sub(input('swap.states', [x.dim(0), x.dim(1), x.dim(2)]), x)));
        },
      ]),
    ),
}));

/**
 * The rewrite of a reading in which a site has other states at some positions.
 * @param sites that may be chosen: the program is one for all of them
 * @param states [1, l, d] of the chosen site, of an input whose tokens stand at the same positions
 */
export function swapStates(
  reading: Reading,
  sites: readonly string[],
  { site, states, places }: { site: string; states: Tensor<'float32'>; places: readonly number[] },
): Rewrite {
  const l = reading.batch.length;
  const masks = new Float32Array(sites.length * l);
  const at = sites.indexOf(site);
  for (const place of places) masks[at * l + place] = 1;
  return under(reading, swapping({ sites }, { 'swap.masks': f32(masks, [sites.length, l]), 'swap.states': states }));
}
