/**
 * Visual tokens packed out of those of tiles (`pack_image_features` and `unpad_image` of LLaVA-OneVision, transformers 5.24): the tokens of the whole
 * picture, then the tiles' put together, without margins, shrunk where there are too many, with a token after each row.
 */

import { f32, i64, type Tensor } from '../../graph/dtype.ts';
import type { AnyRes } from './grids.ts';

/** Each packed token is a sum of some tokens of the tiles with shares; one behind the tiles' last stands for the end of a row. */
export interface Packing {
  /** int64 [v, c], places among the tiles' tokens */
  readonly tokens: Tensor<'int64'>;
  /** [v, c] */
  readonly shares: Tensor<'float32'>;
}

/** One of several pictures of a prompt: its tokens, and the end of a row. @param side tokens along a tile */
export function packedAlone(side: number): Packing {
  const count = side ** 2 + 1;
  return {
    tokens: i64(
      Array.from({ length: count }, (_, i) => i),
      [count, 1],
    ),
    shares: f32(new Float32Array(count).fill(1), [count, 1]),
  };
}

/** @param side tokens along a tile */
export function packed({ tiles, unpadded, packed: [rows, columns], count }: AnyRes, side: number): Packing {
  const [base, width] = [side ** 2, tiles[1] * side];
  const rowEnd = base * (tiles[0] * tiles[1] + 1);
  const [top, left] = [(tiles[0] * side - unpadded[0]) / 2, (width - unpadded[1]) / 2];
  /** a token of the tiles by its place among those without margins */
  const at = (row: number, column: number): number => {
    const [y, x] = [top + row, left + column];
    const tile = 1 + Math.floor(y / side) * tiles[1] + Math.floor(x / side);
    return tile * base + (y % side) * side + (x % side);
  };
  const shrinks = rows !== unpadded[0] || columns !== unpadded[1];
  const corners = shrinks ? 4 : 1;
  const tokens = new BigInt64Array(count * corners).fill(BigInt(rowEnd));
  const shares = new Float32Array(count * corners);
  const put = (token: number, corner: number, from: number, share: number): void => {
    tokens[token * corners + corner] = BigInt(from);
    shares[token * corners + corner] = share;
  };
  for (let token = 0; token < base; token++) put(token, 0, token, 1);
  const [down, across] = [betweenRows(unpadded[0], rows), betweenRows(unpadded[1], columns)];
  let token = base;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, token++) {
      if (!shrinks) {
        put(token, 0, at(row, column), 1);
        continue;
      }
      const [y, x] = [down[row]!, across[column]!];
      put(token, 0, at(y.first, x.first), (1 - y.share) * (1 - x.share));
      put(token, 1, at(y.first, x.second), (1 - y.share) * x.share);
      put(token, 2, at(y.second, x.first), y.share * (1 - x.share));
      put(token, 3, at(y.second, x.second), y.share * x.share);
    }
    put(token++, 0, rowEnd, 1);
  }
  return { tokens: i64(tokens, [count, corners]), shares: f32(shares, [count, corners]) };
}

/** torch's bilinear interpolation on one axis, corners not aligned, without antialiasing: two neighbours, and the share of the second. */
function betweenRows(from: number, to: number): { first: number; second: number; share: number }[] {
  return Array.from({ length: to }, (_, i) => {
    const place = Math.max(0, ((i + 0.5) * from) / to - 0.5);
    const first = Math.floor(place);
    return { first, second: Math.min(first + 1, from - 1), share: place - first };
  });
}
