/**
 * How many visual tokens a picture has, and how they lie, from its size alone: the choices of the published processors (transformers 5.24).
 * Sizes are [height, width].
 */

export type Size = readonly [number, number];

/** Python's round: halves go to the even number. */
function roundHalfEven(value: number): number {
  const down = Math.floor(value);
  const rest = value - down;
  if (rest !== 0.5) return Math.round(value);
  return down % 2 === 0 ? down : down + 1;
}

/** Python's round(value, 7), cut to a whole number, as processors do against errors in the last digit. */
const truncated = (value: number): number => Math.trunc(Number(value.toFixed(7)));

/** Python's `//`: the quotient is not rounded before it is cut. */
const floorDivided = (a: number, b: number): number => Math.round((a - (a % b)) / b);

/**
 * Qwen's `smart_resize` (`image_processing_qwen2_vl.py`): both sides multiples of `factor`, the area within limits, the shape kept as well as
 * can be.
 * @throws Error when a side is more than 200 times the other
 */
export function smartSize([height, width]: Size, factor: number, minPixels: number, maxPixels: number): [number, number] {
  if (Math.max(height, width) / Math.min(height, width) > 200)
    throw new Error(`the picture is ${width} by ${height} pixels; at most 200 to 1 is allowed`);
  const size: [number, number] = [roundHalfEven(height / factor) * factor, roundHalfEven(width / factor) * factor];
  const area = size[0] * size[1];
  if (area > maxPixels) {
    const beta = Math.sqrt((height * width) / maxPixels);
    const fit = (side: number): number => Math.max(factor, Math.floor(side / beta / factor) * factor);
    return [fit(height), fit(width)];
  }
  if (area < minPixels) {
    const beta = Math.sqrt(minPixels / (height * width));
    const fit = (side: number): number => Math.ceil((side * beta) / factor) * factor;
    return [fit(height), fit(width)];
  }
  return size;
}

/** Of several sizes the one that keeps most pixels of the picture, and then wastes the fewest (`select_best_resolution`). */
export function bestResolution([height, width]: Size, resolutions: readonly Size[]): Size {
  let best: Size | undefined;
  let [kept, wasted] = [0, Number.POSITIVE_INFINITY];
  for (const resolution of resolutions) {
    const [h, w] = resolution;
    const scale = Math.min(w / width, h / height);
    const effective = Math.min(Math.trunc(width * scale) * Math.trunc(height * scale), width * height);
    const waste = w * h - effective;
    if (effective > kept || (effective === kept && waste < wasted)) [best, kept, wasted] = [resolution, effective, waste];
  }
  if (best === undefined) throw new Error(`no resolution fits a picture of ${width} by ${height} pixels`);
  return best;
}

/** How LLaVA-OneVision lays a picture out: a base tile, then the tiles of the best resolution without their padding, a newline after each row. */
export interface AnyRes {
  readonly resolution: Size;
  /** tiles of the resolution, rows and columns */
  readonly tiles: readonly [number, number];
  /** rows and columns of visual tokens without the padding */
  readonly unpadded: readonly [number, number];
  /** the same, shrunk where there are too many */
  readonly packed: readonly [number, number];
  readonly count: number;
}

/**
 * `pack_image_features` and `_get_number_of_features` of LLaVA-OneVision.
 * @param side visual tokens along a tile
 * @param most tiles' worth of visual tokens that are kept: 9 of `anyres_max_9`
 */
export function anyRes(
  [height, width]: Size,
  { resolutions, tile, side, most }: { resolutions: readonly Size[]; tile: number; side: number; most: number },
): AnyRes {
  const resolution = bestResolution([height, width], resolutions);
  const tiles: [number, number] = [Math.floor(resolution[0] / tile), Math.floor(resolution[1] / tile)];
  let [rows, columns] = [tiles[0] * side, tiles[1] * side];
  if (width / height > columns / rows) rows -= 2 * Math.floor((rows - truncated(height * (columns / width))) / 2);
  else columns -= 2 * Math.floor((columns - truncated(width * (rows / height))) / 2);
  const ratio = Math.sqrt((rows * columns) / (most * side ** 2));
  const packed: [number, number] = ratio > 1.1 ? [floorDivided(rows, ratio), floorDivided(columns, ratio)] : [rows, columns];
  return { resolution, tiles, unpadded: [rows, columns], packed, count: side ** 2 + packed[0] * (packed[1] + 1) };
}

/**
 * InternVL's canvas (`get_optimal_tiled_canvas` of GOT-OCR2): rows and columns of tiles whose shape is closest to the picture's; of equally
 * close ones the larger, where the picture fills more than half of it.
 */
export function tiledCanvas([height, width]: Size, tile: number, minTiles: number, maxTiles: number): [number, number] {
  const canvases: [number, number][] = [];
  for (let columns = 1; columns <= maxTiles; columns++)
    for (let rows = 1; rows <= maxTiles; rows++)
      if (rows * columns >= minTiles && rows * columns <= maxTiles) canvases.push([rows, columns]);
  canvases.sort((a, b) => a[0] * a[1] - b[0] * b[1]);
  let best: [number, number] = [1, 1];
  let closest = Number.POSITIVE_INFINITY;
  for (const [rows, columns] of canvases) {
    const difference = Math.abs(width / height - columns / rows);
    const larger = difference === closest && height * width > 0.5 * tile ** 2 * rows * columns;
    if (difference < closest || larger) [best, closest] = [[rows, columns], difference];
  }
  return best;
}

/** SmolVLM's largest picture before tiles are made. */
const SMOL_MOST = 4096;

/**
 * SmolVLM (`image_processing_pil_smolvlm.py`): the picture is scaled to its longest side, then to multiples of the tile, then cut. 0 rows and 0
 * columns: it is not cut.
 * @param longest pixels of the longest side
 */
export function smolTiles(
  [height, width]: Size,
  longest: number,
  tile: number,
): { scaled: Size; cut: Size; tiles: readonly [number, number] } {
  const wide = width >= height;
  // The short side is rounded up to an even number in the first step only.
  const first = Math.trunc(wide ? longest / (width / height) : longest * (width / height));
  let [long, short] = [longest, Math.max(1, first + (first % 2))];
  if (long > SMOL_MOST) {
    const ratio = wide ? long / short : short / long;
    [long, short] = [SMOL_MOST, Math.max(1, Math.trunc(wide ? SMOL_MOST / ratio : SMOL_MOST * ratio))];
  }
  const scaled: Size = wide ? [short, long] : [long, short];
  const ratio = scaled[1] / scaled[0];
  const multiple = (side: number): number => Math.ceil(side / tile) * tile;
  const side = multiple(long);
  const other = multiple(Math.trunc(wide ? side / ratio : side * ratio));
  const cut: Size = wide ? [other, side] : [side, other];
  const split = cut[0] > tile || cut[1] > tile;
  return { scaled, cut, tiles: split ? [Math.floor(cut[0] / tile), Math.floor(cut[1] / tile)] : [0, 0] };
}
