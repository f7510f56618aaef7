/** A part of a picture, marked by dragging over it with a mouse, a pen or a finger, or by the arrow keys. */
import { type KeyboardEvent, type PointerEvent, useRef, useState } from 'react';
import type { Picture, Region } from '../api/pictures.ts';
import { shapeOf } from './heat-map.tsx';

interface RegionPickerProps {
  picture: Picture;
  region: Region | undefined;
  /** Called when the drag ends, and at each key. */
  onRegion: (region: Region | undefined) => void;
  label: string;
}

const step = 0.05;
const inside = (value: number, high = 1): number => Math.min(high, Math.max(0, value));
/** Short numbers: they stand in the address. */
const rounded = (region: Region): Region => region.map((value) => Number(value.toFixed(3))) as unknown as Region;

const inWords = ([left, top, width, height]: Region): string => {
  const [l, t, w, h] = [left, top, width, height].map((value) => `${Math.round(100 * value)}%`);
  return `from the left ${l}, from the top ${t}, ${w} wide, ${h} high`;
};

export function RegionPicker({ picture, region, onRegion, label }: RegionPickerProps) {
  const from = useRef<readonly [number, number]>(undefined);
  const [drawn, draw] = useState<Region>();
  const at = ({ currentTarget, clientX, clientY }: PointerEvent): [number, number] => {
    const box = currentTarget.getBoundingClientRect();
    return [inside((clientX - box.left) / box.width), inside((clientY - box.top) / box.height)];
  };
  const down = (event: PointerEvent) => {
    if (event.button !== 0) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    from.current = at(event);
    draw(undefined);
  };
  const move = (event: PointerEvent) => {
    if (from.current === undefined) return;
    const [[x, y], [u, v]] = [from.current, at(event)];
    draw([Math.min(x, u), Math.min(y, v), Math.abs(x - u), Math.abs(y - v)]);
  };
  const up = () => {
    from.current = undefined;
    if (drawn === undefined) return;
    // A click without a drag marks nothing.
    onRegion(drawn[2] < 0.01 || drawn[3] < 0.01 ? undefined : rounded(drawn));
    draw(undefined);
  };
  const steer = (event: KeyboardEvent) => {
    if (event.key === 'Escape') return onRegion(undefined);
    const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key] ?? [];
    if (dx === undefined || dy === undefined) return;
    event.preventDefault();
    const [left, top, width, height] = region ?? ([0.375, 0.375, 0.25, 0.25] as const);
    if (region === undefined) return onRegion([left, top, width, height]);
    if (event.shiftKey)
      return onRegion(
        rounded([left, top, Math.max(step, inside(width + dx, 1 - left)), Math.max(step, inside(height + dy, 1 - top))]),
      );
    onRegion(rounded([inside(left + dx, 1 - width), inside(top + dy, 1 - height), width, height]));
  };
  const shown = drawn ?? region;
  return (
    <div
      className="pick"
      role="group"
      aria-label={`${label}. Drag over a part; or arrow keys move the part, with Shift they change its size, Escape takes it away.`}
      tabIndex={0}
      onPointerDown={down}
      onPointerMove={move}
      onPointerUp={up}
      onPointerCancel={() => {
        from.current = undefined;
        draw(undefined);
      }}
      onKeyDown={steer}
      style={shapeOf(picture)}
    >
      <img src={picture.url} alt="" data-coarse={picture.width < 160} draggable={false} />
      {shown && (
        <div
          className="picked"
          style={{
            left: `${100 * shown[0]}%`,
            top: `${100 * shown[1]}%`,
            width: `${100 * shown[2]}%`,
            height: `${100 * shown[3]}%`,
          }}
        />
      )}
      <span className="unseen" role="status">
        {region === undefined ? 'No part is marked.' : `Marked: ${inWords(region)}.`}
      </span>
    </div>
  );
}
