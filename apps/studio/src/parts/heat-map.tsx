/** A heat map over a picture, cell by cell under the pointer or the arrow keys; the picture lies below in grey, as in the figures. */
import { type KeyboardEvent, type PointerEvent, useEffect, useRef } from 'react';
import { type ScaleName, scaleColour } from 'visedit/figures';
import type { Picture } from '../api/pictures.ts';
import { focus, useFocusMark } from './focus.ts';
import { shortNumber } from './words.ts';

export interface HeatMapProps {
  picture: Picture;
  /** Rows and columns. */
  grid: readonly [number, number];
  /** Row by row; absent: the picture as it is. */
  values?: ArrayLike<number> | undefined;
  /** Values at the two ends of the colours. */
  ends?: readonly [number, number] | undefined;
  /** The part of the picture that the grid covers: left, top, width, height as fractions of it; the rest is pale. */
  seen?: readonly [number, number, number, number] | undefined;
  /** How much the colour of the largest value covers the picture. */
  opacity?: number;
  colours?: ScaleName;
  label: string;
}

const whole = [0, 0, 1, 1] as const;

/** As wide as there is room, and never much taller than the window. */
export const shapeOf = ({ width, height }: Picture) => ({
  aspectRatio: `${width} / ${height}`,
  maxWidth: `calc(80vh * ${(width / height).toFixed(4)})`,
});

export function HeatMap({ picture, grid, values, ends, seen = whole, opacity = 0.85, colours = 'viridis', label }: HeatMapProps) {
  const [rows, columns] = grid;
  const canvas = useRef<HTMLCanvasElement>(null);
  const mark = useRef<HTMLDivElement>(null);
  const status = useRef<HTMLSpanElement>(null);

  useEffect(() => {
    if (values !== undefined) paint(canvas.current!, grid, values, ends ?? endsOf(values), colours, opacity);
  }, [grid, values, ends, colours, opacity]);

  useFocusMark(({ cell, cells }) => place(mark.current!, cells === rows * columns ? cell : undefined, grid));

  const move = (event: PointerEvent<HTMLDivElement>) => {
    const box = event.currentTarget.getBoundingClientRect();
    const at = (where: number, from: number, size: number, count: number): number =>
      Math.min(count - 1, Math.max(0, Math.floor(((where - from) / size) * count)));
    const column = at((event.clientX - box.left) / box.width, seen[0], seen[2], columns);
    const row = at((event.clientY - box.top) / box.height, seen[1], seen[3], rows);
    const cell = row * columns + column;
    if (cell !== focus.getState().cell) focus.setState({ cell, cells: rows * columns });
  };

  const steer = (event: KeyboardEvent) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (event.key === 'Escape') focus.setState({ cell: undefined });
    if (step === undefined) return;
    event.preventDefault();
    const now = focus.getState().cell;
    const next = now === undefined ? Math.floor(rows / 2) * columns + Math.floor(columns / 2) : now + step;
    if (next < 0 || next >= rows * columns) return;
    focus.setState({ cell: next, cells: rows * columns });
    const value = values === undefined ? '' : `: ${values[next]!.toPrecision(3)}`;
    status.current!.textContent = `row ${Math.floor(next / columns) + 1}, column ${(next % columns) + 1}${value}`;
  };

  return (
    <div
      className="heat"
      role="group"
      aria-label={`${label}. Arrow keys move from patch to patch.`}
      tabIndex={0}
      onPointerMove={move}
      onPointerDown={move}
      onPointerLeave={() => focus.setState({ cell: undefined })}
      onKeyDown={steer}
      style={shapeOf(picture)}
    >
      <img
        src={picture.url}
        alt=""
        data-coarse={picture.width < 160}
        className={values === undefined ? 'plain' : 'grey'}
        draggable={false}
      />
      <div className="seen" data-part={seen.some((edge, i) => Math.abs(edge - whole[i]!) > 1e-3)} style={placed(seen)}>
        <canvas ref={canvas} width={columns} height={rows} className="cells" hidden={values === undefined} />
        <div ref={mark} className="cell-mark" hidden />
      </div>
      <span ref={status} className="unseen" aria-live="polite" />
    </div>
  );
}

const placed = ([left, top, width, height]: readonly [number, number, number, number]) => ({
  left: `${100 * left}%`,
  top: `${100 * top}%`,
  width: `${100 * width}%`,
  height: `${100 * height}%`,
});

/** Moves a frame over a cell of a grid that fills its parent; hides it where there is none. */
export function place(mark: HTMLElement, cell: number | undefined, [rows, columns]: readonly [number, number]): void {
  if (cell === undefined || cell >= rows * columns) {
    mark.hidden = true;
    return;
  }
  mark.hidden = false;
  mark.style.width = `${100 / columns}%`;
  mark.style.height = `${100 / rows}%`;
  // In units of its own size; a move that is no layout.
  mark.style.transform = `translate(${100 * (cell % columns)}%, ${100 * Math.floor(cell / columns)}%)`;
}

export function paint(
  canvas: HTMLCanvasElement,
  [rows, columns]: readonly [number, number],
  values: ArrayLike<number>,
  [low, high]: readonly [number, number],
  colours: ScaleName,
  opacity = 1,
): void {
  const cells = new ImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) {
    const at = high > low ? (values[i]! - low) / (high - low) : 0;
    // As in the figures: where there is little weight the picture shows through.
    const covers = opacity === 1 || colours === 'red-blue' ? opacity : opacity * (0.1 + 0.9 * Math.min(1, Math.max(0, at)));
    cells.data.set([...scaleColour(colours, at), Math.round(255 * covers)], 4 * i);
  }
  canvas.getContext('2d')!.putImageData(cells, 0, 0);
}

/** From nothing to the largest value, so that a weak map looks weak. */
export function endsOf(...maps: readonly ArrayLike<number>[]): [number, number] {
  let high = 0;
  for (const values of maps) for (let i = 0; i < values.length; i++) high = Math.max(high, values[i]!);
  return [0, high];
}

/** The same distance to both sides of nothing, for differences. */
export function evenEnds(...maps: readonly ArrayLike<number>[]): [number, number] {
  let far = 0;
  for (const values of maps) for (let i = 0; i < values.length; i++) far = Math.max(far, Math.abs(values[i]!));
  return [-far, far];
}

export function ColourScale({
  ends,
  colours = 'viridis',
  title,
}: {
  ends: readonly [number, number];
  colours?: ScaleName;
  title: string;
}) {
  const stops = Array.from({ length: 9 }, (_, i) => `rgb(${scaleColour(colours, i / 8).join(' ')})`).join(', ');
  return (
    <div className="scale">
      <span>{title}</span>
      <div className="scale-bar" style={{ background: `linear-gradient(to right, ${stops})` }} />
      <div className="scale-ends">
        <span>{shortNumber(ends[0])}</span>
        <span>{shortNumber(ends[1])}</span>
      </div>
    </div>
  );
}
