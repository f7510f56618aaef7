/** All layers at once: small heat maps, and one patch through all of them. Marks follow the pointer without a render of React. */
import { useEffect, useMemo, useRef } from 'react';
import type { VisualMaps } from '../../api/types.ts';
import { useFocusMark } from '../../parts/focus.ts';
import { endsOf, paint, place } from '../../parts/heat-map.tsx';
import { shortNumber } from '../../parts/words.ts';

interface FilmProps {
  visual: VisualMaps;
  selected: number;
  /** The same ends for all; each map its own when absent. */
  ends?: readonly [number, number] | undefined;
  onSelect: (layer: number) => void;
}

export function Film({ visual: { grid, layers }, selected, ends, onSelect }: FilmProps) {
  const canvases = useRef<(HTMLCanvasElement | null)[]>([]);
  const marks = useRef<(HTMLSpanElement | null)[]>([]);
  useEffect(() => {
    layers.forEach(({ patches, carries_weight }, i) => {
      // A layer without weight is dark: its rounding errors are not stretched to the colours.
      paint(canvases.current[i]!, grid, patches, carries_weight ? (ends ?? endsOf(patches)) : [0, Number.MAX_VALUE], 'viridis');
    });
  }, [grid, layers, ends]);
  useFocusMark(({ cell }) => {
    for (const mark of marks.current) if (mark) place(mark, cell, grid);
  });
  return (
    <div className="film">
      {layers.map(({ layer }, i) => (
        <button
          key={layer}
          type="button"
          aria-pressed={layer === selected}
          aria-label={`Layer ${layer}`}
          onClick={() => onSelect(layer)}
        >
          <span className="frame">
            <canvas
              ref={(element) => {
                canvases.current[i] = element;
              }}
              width={grid[1]}
              height={grid[0]}
            />
            <span
              className="cell-mark"
              hidden
              ref={(element) => {
                marks.current[i] = element;
              }}
            />
          </span>
          <small>{layer}</small>
        </button>
      ))}
    </div>
  );
}

export function Profile({ visual, rows, columns }: { visual: VisualMaps; rows: number; columns: number }) {
  const bars = useRef<(HTMLSpanElement | null)[]>([]);
  const words = useRef<HTMLParagraphElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const sums = useMemo(() => visual.layers.map(({ patches }) => patches.reduce((sum, value) => sum + value, 0)), [visual]);
  const high = useMemo(() => {
    const shares = visual.layers.map(({ patches }, i) => patches.map((value) => (sums[i]! > 0 ? value / sums[i]! : 0)));
    return endsOf(...shares)[1];
  }, [visual, sums]);
  useFocusMark(({ cell }) => {
    const known = cell !== undefined && cell < rows * columns;
    frame.current!.dataset.known = String(known);
    let best = 0;
    visual.layers.forEach(({ patches }, i) => {
      const share = known && sums[i]! > 0 ? patches[cell]! / sums[i]! : 0;
      if (known && patches[cell]! > visual.layers[best]!.patches[cell]!) best = i;
      const bar = bars.current[i];
      if (bar) bar.style.transform = `scaleY(${high > 0 ? Math.max(0, share / high) : 0})`;
    });
    words.current!.textContent = known
      ? `Patch in row ${Math.floor(cell / columns) + 1}, column ${(cell % columns) + 1}: it matters most in layer ${visual.layers[best]!.layer} (${shortNumber(visual.layers[best]!.patches[cell]!)}).`
      : 'Point at a patch: its share of each layer’s weight stands here.';
  });
  return (
    <div className="profile" ref={frame} data-patch-profile>
      <p ref={words} className="reading" />
      <div className="profile-bars" aria-hidden="true">
        {visual.layers.map(({ layer }, i) => (
          <span key={layer}>
            <span
              ref={(element) => {
                bars.current[i] = element;
              }}
            />
          </span>
        ))}
      </div>
    </div>
  );
}
