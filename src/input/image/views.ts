/** What visual tokens show: parts of the picture that they fill in rows and columns. */

import type { Region, View } from '../segments.ts';

/** Cell i, row by row, of a grid over a region. */
export function cellOf(region: Region, [rows, columns]: readonly [number, number], cell: number): Region {
  const [width, height] = [region.width / columns, region.height / rows];
  const row = Math.floor(cell / columns);
  return { left: region.left + (cell - row * columns) * width, top: region.top + row * height, width, height };
}

/** Where a visual token lies. */
export interface TokenPlace {
  readonly view: View;
  /** its cell of the view's grid, counted row by row */
  readonly cell: number;
  /** row and column of its tile, where the view is of tiles with a grid that they divide */
  readonly tile?: readonly [number, number];
  /** its rectangle in the original picture, in pixels */
  readonly region: Region;
}

/** The place of each visual token, in their order; undefined: it lies on no part of the picture, such as one that ends a row. */
export function tokenPlaces(views: readonly View[], count: number): (TokenPlace | undefined)[] {
  const places = new Array<TokenPlace | undefined>(count).fill(undefined);
  for (const view of views)
    view.tokens.forEach((token, cell) => {
      places[token] = { view, cell, ...tileOf(view, cell), region: cellOf(view.region, view.grid, cell) };
    });
  return places;
}

function tileOf({ grid: [rows, columns], tiles }: View, cell: number): { tile?: readonly [number, number] } {
  if (tiles === undefined || rows % tiles[0] !== 0 || columns % tiles[1] !== 0) return {};
  const [row, column] = [Math.floor(cell / columns), cell % columns];
  return { tile: [Math.floor(row / (rows / tiles[0])), Math.floor(column / (columns / tiles[1]))] };
}

/** The view that shows most: of the tiles where there are some. */
export const finestView = (views: readonly View[]): View => views.find(({ of }) => of === 'tiles') ?? views[0]!;

/** @param first its first token; the others follow row by row, with `gap` tokens after each row */
export function rowView(of: View['of'], region: Region, grid: readonly [number, number], first = 0, gap = 0): View {
  const [rows, columns] = grid;
  const tokens = Array.from({ length: rows * columns }, (_, i) => first + i + Math.floor(i / columns) * gap);
  return { of, region, grid, tokens };
}

/** Tiles of `side` x `side` tokens each that follow each other row by row, from token 0 on. */
export function tileView(region: Region, tiles: readonly [number, number], side: number): View {
  const grid: [number, number] = [tiles[0] * side, tiles[1] * side];
  const tokens = Array.from({ length: grid[0] * grid[1] }, (_, cell) => {
    const [row, column] = [Math.floor(cell / grid[1]), cell % grid[1]];
    const tile = Math.floor(row / side) * tiles[1] + Math.floor(column / side);
    return tile * side ** 2 + (row % side) * side + (column % side);
  });
  return { of: 'tiles', region, grid, tokens, tiles };
}
