/** The image encoder at work: pictures to visual tokens, sites on the way, and the part that leads from features to tokens by itself. */

import type { Dim } from '../graph/dim.ts';
import { input, type Node, type Tensor } from '../graph/index.ts';
import type { PreparedPicture } from '../input/segments.ts';
import { Weights } from '../nn/weights.ts';
import type { Feeds } from '../runtime/program.ts';
import { joined, stack } from './batch.ts';
import { Sites } from './sites.ts';
import type { Vlm } from './vlm.ts';

function visionProgram({ architecture }: Vlm): Record<string, Node> {
  return { visual: architecture.vision(architecture.pixels(), new Weights(), new Sites()) };
}

/** What the image encoder reads of pictures of one shape, [b, ...] each. */
export const stackInputs = (pictures: readonly Readonly<Record<string, Tensor>>[]): Record<string, Tensor> =>
  Object.fromEntries(
    Object.keys(pictures[0]!).map((name) => [name, stack(pictures.map((pixels) => pixels[name] as Tensor<'float32' | 'int64'>))]),
  );

/** Sites of the picture's part of a model. */
export function visionSites({ architecture }: Vlm, names: readonly string[]): Record<string, Node> {
  const sites = new Sites();
  architecture.vision(architecture.pixels(), new Weights(), sites);
  return Object.fromEntries(names.map((name) => [name, sites.get(name)]));
}

/** Sites of the picture's part for one picture, with a first axis of 1. */
export async function readVision(vlm: Vlm, picture: PreparedPicture, names: readonly string[]): Promise<Record<string, Tensor>> {
  return (await vlm.program(visionSites, names)).run(stackInputs([picture.pixels()]));
}

/**
 * Picture features [b, n, e] of the frozen image encoder -> visual tokens [b, v, d], by weights of one's own. Inputs: `features`, and what of the
 * image encoder's own says how visual tokens are laid out.
 */
export function connector({ architecture }: Vlm, weights: Weights): Node {
  // What stands before the replaced site is no part of the program, and no number of tiles or patches is known from it.
  const count = (dim: Dim): Dim => (typeof dim === 'number' ? dim : 'n');
  const features = (x: Node): Node => input('features', [x.dim(0), count(x.dim(1)), x.dim(2)]);
  return architecture.vision(architecture.pixels(), weights, new Sites(new Map([['vision.features', features]])));
}

const connectorProgram = (vlm: Vlm): Record<string, Node> => ({ visual: connector(vlm, new Weights()) });

/** What the connector reads of a picture: `features` [1, n, e] of the image encoder, and the encoder's own inputs. */
export async function connectorInputs(vlm: Vlm, picture: PreparedPicture): Promise<Feeds> {
  const own = stackInputs([picture.pixels()]);
  const program = await vlm.program(visionSites, ['vision.features']);
  const parts: Tensor<'float32'>[] = [];
  for (const some of tileRuns(vlm, own)) {
    const seen = (await program.run({ ...own, ...some }))['vision.features'] as Tensor<'float32'>;
    parts.push({ ...seen, shape: seen.shape.slice(1) });
  }
  const features = joined(parts);
  return { ...own, features: { ...features, shape: [1, ...features.shape] } };
}

/** Pixel values that one run reads of pictures of tiles: a larger one has no faster products, and takes more memory. */
const PIXELS_OF_RUN = 2 ** 20;

/** How many tiles `pixels` [1, tiles, 3, s, s] of a picture have in one run. */
const tilesOfRun = ({ shape }: Tensor): number =>
  Math.max(1, Math.floor((PIXELS_OF_RUN * shape[1]!) / shape.reduce((a, b) => a * b, 1)));

/** The encoder's inputs that differ between the runs in which a picture is looked at: none where it is looked at in one. */
function tileRuns({ architecture }: Vlm, { pixels }: Feeds): Feeds[] {
  if (architecture.tiled !== true || pixels === undefined) return [{}];
  const most = tilesOfRun(pixels);
  const [, tiles, ...rest] = pixels.shape as [number, number, ...number[]];
  if (tiles <= most) return [{}];
  const data = pixels.data as Float32Array;
  const size = data.length / tiles;
  return Array.from({ length: Math.ceil(tiles / most) }, (_, i) => {
    const some = data.subarray(i * most * size, (i + 1) * most * size);
    return { pixels: { dtype: 'float32', data: some, shape: [1, some.length / size, ...rest] } };
  });
}

/**
 * Visual tokens [count, width] of each picture, computed together where their pixels have one shape; pictures of many large tiles alone, some tiles at
 * a time.
 */
export async function seePictures(vlm: Vlm, pictures: readonly PreparedPicture[]): Promise<Tensor<'float32'>[]> {
  const out = new Array<Tensor<'float32'>>(pictures.length);
  const groups = new Map<string, { rows: number[]; inputs: Readonly<Record<string, Tensor>>[] }>();
  for (const [row, picture] of pictures.entries()) {
    const inputs = picture.pixels();
    if (vlm.architecture.tiled === true && tileRuns(vlm, stackInputs([inputs])).length > 1) {
      const program = await vlm.program(connectorProgram);
      const seen = (await program.run(await connectorInputs(vlm, { ...picture, pixels: () => inputs })))
        .visual as Tensor<'float32'>;
      out[row] = { ...seen, shape: seen.shape.slice(1) };
      continue;
    }
    const key = JSON.stringify(Object.values(inputs).map(({ shape }) => shape));
    const group = groups.get(key) ?? { rows: [], inputs: [] };
    group.rows.push(row);
    group.inputs.push(inputs);
    groups.set(key, group);
  }
  if (groups.size === 0) return out;
  const program = await vlm.program(visionProgram);
  for (const { rows, inputs } of groups.values()) {
    const { data, shape } = (await program.run(stackInputs(inputs))).visual as Tensor<'float32'>;
    const size = data.length / rows.length;
    rows.forEach((row, n) => {
      out[row] = { dtype: 'float32', data: data.slice(n * size, (n + 1) * size), shape: shape.slice(1) };
    });
  }
  return out;
}
