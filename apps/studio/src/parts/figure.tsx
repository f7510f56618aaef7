/** A drawing of `visedit/figures` in the page: the same functions as the command line, in the page's colours. */
import { Skeleton, Text } from '@mantine/core';
import { type RefObject, useEffect, useRef, useState } from 'react';

/** Width of the element, in steps, so that a drawing is not made anew for every pixel. */
export function useWidth(step = 24): [RefObject<HTMLDivElement | null>, number] {
  const element = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry!.contentRect.width / step) * step));
    observer.observe(element.current!);
    return () => observer.disconnect();
  }, [step]);
  return [element, width];
}

/** The colours of paper become those of the page, in the light scheme and the dark one. */
function inPageColours(svg: string): string {
  return svg
    .replace(/<rect [^>]*fill="#ffffff"\/>/g, '')
    .replaceAll('"#1f2328"', '"var(--ink)"')
    .replaceAll('"#57606a"', '"var(--faint)"')
    .replaceAll('"#d0d7de"', '"var(--rule)"')
    .replaceAll('"#e6e9ec"', '"var(--grid)"')
    .replaceAll('"#e9edf1"', '"var(--accent-soft)"')
    .replaceAll('stroke="#ffffff"', 'stroke="var(--card)"')
    .replace('<svg ', '<svg aria-hidden="true" focusable="false" ');
}

export interface FigureProps {
  /** Draws at a width in the figures' small units. Made anew when `of` changes. */
  draw: (width: number) => Promise<string>;
  of: unknown;
  label: string;
  /** Units of the page for one of the figure: its type is made for paper. */
  zoom?: number;
  height?: number;
  onDrawn?: (element: HTMLElement) => void;
}

export function Figure({ draw, of, label, zoom = 1.35, height = 240, onDrawn }: FigureProps) {
  const [frame, width] = useWidth();
  const [drawn, setDrawn] = useState<{ svg?: string; error?: string }>({});
  const newest = useRef({ draw, onDrawn });
  newest.current = { draw, onDrawn };
  useEffect(() => {
    if (width === 0) return;
    let current = true;
    newest.current
      .draw(Math.round(width / zoom))
      .then((svg) => current && setDrawn({ svg: inPageColours(svg) }))
      .catch((error: unknown) => current && setDrawn({ error: error instanceof Error ? error.message : String(error) }));
    return () => {
      current = false;
    };
  }, [width, zoom, of]);
  useEffect(() => {
    if (drawn.svg !== undefined) newest.current.onDrawn?.(frame.current!);
  }, [drawn, frame]);
  return (
    <div ref={frame} className="figure" role="img" aria-label={label}>
      {drawn.svg !== undefined ? (
        <div dangerouslySetInnerHTML={{ __html: drawn.svg }} />
      ) : drawn.error !== undefined ? (
        <Text c="var(--bad)">{drawn.error}</Text>
      ) : (
        <Skeleton height={height} />
      )}
    </div>
  );
}
