/** Positions with three axes (M-RoPE; Qwen2.5-VL and Qwen3-VL, `get_rope_index` of transformers 5.24): time, row, column. */

/** A picture's visual tokens: where they begin, and the rows and columns that they fill row by row. */
export interface GridSpan {
  readonly start: number;
  readonly grid: readonly [number, number];
}

export interface GridPositions {
  /** [3][length] */
  readonly positions: readonly (readonly number[])[];
  /** how far the next position is ahead of the number of tokens; not above 0 */
  readonly positionDelta: number;
}

/**
 * Text has one position on all axes. A picture has one time; its rows and columns count on from there, and text goes on behind the larger side.
 * @param pictures in their order; they do not overlap
 */
export function gridPositions(length: number, pictures: readonly GridSpan[]): GridPositions {
  const axes: [number[], number[], number[]] = [[], [], []];
  let next = 0;
  const writeText = (until: number): void => {
    while (axes[0].length < until) {
      for (const axis of axes) axis.push(next);
      next++;
    }
  };
  for (const { start, grid } of pictures) {
    writeText(start);
    const [rows, columns] = grid;
    for (let i = 0; i < rows * columns; i++) {
      axes[0].push(next);
      axes[1].push(next + Math.floor(i / columns));
      axes[2].push(next + (i % columns));
    }
    next += Math.max(rows, columns);
  }
  writeText(length);
  if (axes[0].length !== length)
    throw new Error(`the pictures' grids reach to token ${axes[0].length} of an input of ${length} tokens`);
  return { positions: axes, positionDelta: next - length };
}
