/** The address is the state: every view is drawn from the path and the parameters, so that a link shows what its maker saw. */
import { useSyncExternalStore } from 'react';

export interface Place {
  /** First part of the path: `ask`, `why`, ... */
  page: string;
  /** What follows it: an id, a number. */
  rest: readonly string[];
  params: URLSearchParams;
}

export type Params = Record<string, string | number | undefined>;

function read(): Place {
  const [page = '', ...rest] = window.location.pathname.split('/').filter(Boolean).map(decodeURIComponent);
  return { page: page === '' ? 'ask' : page, rest, params: new URLSearchParams(window.location.search) };
}

let current = read();
const listeners = new Set<() => void>();

function changed(): void {
  current = read();
  for (const listener of listeners) listener();
}
window.addEventListener('popstate', changed);

export function usePlace(): Place {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => current,
  );
}

/** Parameters that belong to the question asked and go along from view to view. */
const carried = ['model', 'set', 'picture', 'prompt'];

/** The address of a view; the question asked goes along unless `params` says otherwise (undefined takes one away). */
export function address(path: string, params: Params = {}): string {
  const all = new URLSearchParams();
  for (const name of carried) {
    const value = current.params.get(name);
    if (value !== null && !(name in params)) all.set(name, value);
  }
  for (const [name, value] of Object.entries(params)) if (value !== undefined && value !== '') all.set(name, String(value));
  const query = all.toString().replaceAll('%2F', '/').replaceAll('%3A', ':').replaceAll('%2C', ',');
  return query === '' ? path : `${path}?${query}`;
}

/** @param replace the view stays the same one to the back button: a slider moved, say */
export function go(to: string, { replace = false } = {}): void {
  if (to === window.location.pathname + window.location.search + window.location.hash) return;
  const page = current.page;
  window.history[replace ? 'replaceState' : 'pushState'](null, '', to);
  changed();
  if (current.page !== page) window.scrollTo(0, 0);
}

/** Changes some parameters of this view and keeps the others. */
export function alter(changes: Params, options = { replace: true }): void {
  const all = new URLSearchParams(window.location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined || value === '') all.delete(name);
    else all.set(name, String(value));
  }
  const query = all.toString().replaceAll('%2F', '/').replaceAll('%3A', ':').replaceAll('%2C', ',');
  go(window.location.pathname + (query === '' ? '' : `?${query}`) + window.location.hash, options);
}
