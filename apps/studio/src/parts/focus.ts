/**
 * What the pointer is on: a patch of the picture, a layer, a token of the answer. Views that show the same thing in other ways listen
 * and mark it themselves, without a render of React: a large model has 576 patches in 32 layers.
 */
import { useEffect, useLayoutEffect, useRef } from 'react';
import { createStore } from 'zustand/vanilla';

export interface Focus {
  /** Row-major from the top left. */
  cell: number | undefined;
  /** Cells of the grid that it is one of: maps of other grids do not mark it. */
  cells?: number;
  layer: number | undefined;
  /** Position in the answer. */
  token: number | undefined;
}

export const focus = createStore<Focus>(() => ({ cell: undefined, layer: undefined, token: undefined }));

export const clearFocus = (): void => focus.setState({ cell: undefined, layer: undefined, token: undefined });

/** Calls `mark` at once and whenever the focus changes; always the newest `mark`. */
export function useFocusMark(mark: (now: Focus) => void): void {
  const newest = useRef(mark);
  newest.current = mark;
  // No list of dependencies: after every render the marks are set again on what was drawn anew.
  useEffect(() => newest.current(focus.getState()));
  // Undone before the elements go, which is earlier than where effects are undone.
  useLayoutEffect(() => focus.subscribe((now) => newest.current(now)), []);
}
