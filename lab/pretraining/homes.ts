/**
 * Where on the picture a visual token is at home. Patches are where they are; a Q-Former's query tokens, which have no place of their own,
 * get one in a square grid. The word loss of stage 2 asks each token for what stands at its home.
 */

import { f32, type Tensor } from '../../src/graph/dtype.ts';
import type { Architecture, FixedPictures } from '../../src/models/architecture.ts';
import { Sites } from '../../src/models/sites.ts';
import { Weights } from '../../src/nn/weights.ts';
import { compile } from '../../src/runtime/node.ts';
import type { Atlas } from '../world/atlas.ts';
import { lessonScene } from '../world/lessons.ts';
import { pixelValues } from './pixels.ts';

/** Size and visual tokens of the pictures of a mini. @throws Error when they are not all alike */
export function fixedOf({ name, fixed }: Architecture): FixedPictures {
  if (fixed === undefined) throw new Error(`the stages of pretraining need pictures of one size; those of ${name} have several`);
  return fixed;
}

function gridSide(architecture: Architecture): number {
  const { count } = fixedOf(architecture);
  const side = Math.sqrt(count);
  if (!Number.isInteger(side)) throw new Error(`${count} visual tokens do not fill a square grid; choose 16, 25 or 36`);
  return side;
}

/** Cell of the scene (2 x 2, reading order) that each place of a grid lies in. */
export function cellsOf([rows, columns]: readonly [number, number]): number[] {
  return Array.from(
    { length: rows * columns },
    (_, i) => 2 * Math.floor((2 * Math.floor(i / columns)) / rows) + Math.floor((2 * (i % columns)) / columns),
  );
}

/** Cell of the scene that each visual token is at home in, where pictures have one size. */
export function homeCells(architecture: Architecture): number[] {
  const side = gridSide(architecture);
  return cellsOf([side, side]);
}

/** Share of each patch in each visual token's home, [v, patches]: the overlap of the token's grid cell with the patch. */
export function homeShares(architecture: Architecture): number[][] {
  const side = gridSide(architecture);
  const [rows, columns] = fixedOf(architecture).grid;
  const overlap = (i: number, n: number, j: number, m: number): number =>
    Math.max(0, Math.min((i + 1) / n, (j + 1) / m) - Math.max(i / n, j / m));
  return Array.from({ length: side * side }, (_, t) =>
    Array.from(
      { length: rows * columns },
      (_, p) =>
        overlap(Math.floor(t / side), side, Math.floor(p / columns), rows) *
        overlap(t % side, side, p % columns, columns) *
        side *
        side,
    ),
  );
}

/**
 * Starting query tokens [1, v, d]: the mean feature at each token's home over many scenes, less the mean over all places, with a root mean
 * square of 1. What the scenes show averages out; what is left says the place.
 */
export async function homeFeatures(
  architecture: Architecture,
  tower: ReadonlyMap<string, Tensor<'float32'>>,
  atlas: Atlas,
  seed: string | number,
  threads: number | undefined,
): Promise<Tensor<'float32'>> {
  const sites = new Sites();
  architecture.vision(architecture.pixels(), new Weights(), sites);
  const program = await compile({ features: sites.get('vision.features') }, { weights: (name) => tower.get(name), threads });
  const scenes = Array.from({ length: 128 }, (_, i) => lessonScene(atlas, `${seed}/homes`, i, { perScene: 0, facts: 0 }));
  const { features } = await program.run({
    pixels: pixelValues(
      scenes.map((s) => s.image),
      fixedOf(architecture).size[0],
    ),
  });
  await program.release();
  const [count, tokens, d] = features!.shape as [number, number, number];
  const shares = homeShares(architecture);
  const patches = shares[0]!.length;
  const values = features!.data as Float32Array;
  const out = new Float32Array(shares.length * d);
  const mean = (patch: number, c: number): number => {
    let sum = 0;
    for (let n = 0; n < count; n++) sum += values[(n * tokens + tokens - patches + patch) * d + c]!;
    return sum / count;
  };
  for (let c = 0; c < d; c++) {
    const means = Array.from({ length: patches }, (_, p) => mean(p, c));
    const all = means.reduce((a, b) => a + b, 0) / patches;
    for (const [t, row] of shares.entries()) out[t * d + c] = row.reduce((sum, share, p) => sum + share * (means[p]! - all), 0);
  }
  for (let t = 0; t < shares.length; t++) {
    const row = out.subarray(t * d, (t + 1) * d);
    const scale = Math.sqrt(row.reduce((sum, x) => sum + x * x, 0) / d) || 1;
    for (let c = 0; c < d; c++) row[c] = row[c]! / scale;
  }
  return f32(out, [1, shares.length, d]);
}
