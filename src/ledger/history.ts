/**
 * The history of a set of edits, as values. Every change makes a new revision with the next number, and nothing is taken back: to undo is a
 * change, too. Undoing again goes one change further back; restoring a revision by its number can be undone like any other change. Only the present
 * state is held; that of an earlier revision follows from the changes up to it.
 */

export interface Entry {
  readonly id: string;
  readonly enabled: boolean;
}

export type Action = 'add' | 'enable' | 'disable' | 'delete' | 'revert';

export interface Revision {
  readonly revision: number;
  /** seconds since 1970 */
  readonly at: number;
  readonly action: Action;
  /** the edit that was changed */
  readonly edit: string | null;
  /** of a revert: the revision whose state it restored */
  readonly to: number | null;
  /** the revision that undoing goes back to; null: there is nothing to undo */
  readonly undo: number | null;
  /** the set after the change, where an earlier visedit wrote it down; else it follows from the changes */
  readonly entries?: readonly Entry[] | undefined;
}

export interface History {
  readonly revisions: readonly Revision[];
  /** the set as it is, in the order in which edits act */
  readonly entries: readonly Entry[];
}

export const emptyHistory: History = { revisions: [], entries: [] };

/** The number of the last change; 0: there is none. */
export const revisionOf = ({ revisions }: History): number => revisions.at(-1)?.revision ?? 0;

const revisionAt = ({ revisions }: History, number: number): Revision | undefined =>
  revisions[number - (revisions[0]?.revision ?? 1)];

/** Edits in their order, and whether each is on. */
type State = Map<string, boolean>;

/** The set as it was after a revision, without edits that are deleted since; undefined: the history does not know that revision. */
export function stateAt(history: History, number: number): readonly Entry[] | undefined {
  const { revisions } = history;
  const first = revisions[0]?.revision ?? 1;
  if (number !== 0 || first !== 1) if (revisionAt(history, number) === undefined) return undefined;
  const before = revisions.slice(0, number - first + 1);
  const restored = new Set(before.map(({ to }) => to));
  const states = new Map<number, State>([[0, new Map()]]);
  let state: State = new Map();
  for (const { revision, action, edit, to, entries } of before) {
    if (entries !== undefined) state = new Map(entries.map(({ id, enabled }) => [id, enabled]));
    else if (action === 'revert') state = new Map(states.get(to!));
    else if (action === 'delete') state.delete(edit!);
    else state.set(edit!, action !== 'disable');
    if (restored.has(revision)) states.set(revision, new Map(state));
  }
  const gone = new Set(revisions.filter(({ action }) => action === 'delete').map(({ edit }) => edit));
  return [...state].filter(([id]) => !gone.has(id)).map(([id, enabled]) => ({ id, enabled }));
}

const same = (a: readonly Entry[], b: readonly Entry[]): boolean =>
  a.length === b.length && a.every(({ id, enabled }, i) => id === b[i]!.id && enabled === b[i]!.enabled);

const append = (history: History, next: Omit<Revision, 'revision'>, entries: readonly Entry[]): History => ({
  revisions: [...history.revisions, { revision: revisionOf(history) + 1, ...next }],
  entries,
});

export function added(history: History, edit: string, at: number): History {
  const entries = [...history.entries, { id: edit, enabled: true }];
  return append(history, { at, action: 'add', edit, to: null, undo: revisionOf(history) }, entries);
}

/** The same history when the edit is on, or off, already. An edit that is not in the set at present (its addition was undone) joins it at the end. */
export function switched(history: History, edit: string, enabled: boolean, at: number): History {
  const there = history.entries.find(({ id }) => id === edit);
  if (there === undefined ? !enabled : there.enabled === enabled) return history;
  const entries =
    there === undefined
      ? [...history.entries, { id: edit, enabled }]
      : history.entries.map((one) => (one === there ? { id: edit, enabled } : one));
  return append(history, { at, action: enabled ? 'enable' : 'disable', edit, to: null, undo: revisionOf(history) }, entries);
}

/** Deleting is for good: the edit leaves all revisions. */
export function deleted(history: History, edit: string, at: number): History {
  const revisions = history.revisions.map((one) =>
    one.entries === undefined ? one : { ...one, entries: one.entries.filter(({ id }) => id !== edit) },
  );
  const entries = history.entries.filter(({ id }) => id !== edit);
  return append({ revisions, entries }, { at, action: 'delete', edit, to: null, undo: revisionOf(history) }, entries);
}

/**
 * @param to the revision to restore; absent: the one before the last change that is not undone
 * @returns undefined when there is nothing to go back to
 */
export function reverted(history: History, to: number | undefined, at: number): History | undefined {
  const head = history.revisions.at(-1);
  if (head === undefined) return undefined;
  if (to !== undefined) {
    const entries = stateAt(history, to);
    return entries && append(history, { at, action: 'revert', edit: null, to, undo: head.revision }, entries);
  }
  const undoOf = (number: number): number | null => revisionAt(history, number)?.undo ?? null;
  // Changes that deletions left without effect are passed over.
  for (let target = head.undo; target !== null; target = undoOf(target)) {
    const entries = stateAt(history, target);
    if (entries === undefined) return undefined;
    if (!same(entries, history.entries))
      return append(history, { at, action: 'revert', edit: null, to: target, undo: undoOf(target) }, entries);
  }
  return undefined;
}

/** A history from the revisions that were written. @throws Error when one does not follow the one before it */
export function historyOf(revisions: readonly Revision[]): History {
  const [first] = revisions;
  revisions.forEach(({ revision }, i) => {
    if (revision !== first!.revision + i) throw new Error(`revision ${revision} does not follow the one before it`);
  });
  if (first !== undefined && first.revision > 1 && first.entries === undefined)
    throw new Error(`revision ${first.revision} has no entries`);
  const number = revisions.at(-1)?.revision ?? 0;
  return { revisions, entries: stateAt({ revisions, entries: [] }, number)! };
}
