/**
 * The history of a set of edits, as values. Every change makes a new revision with the next number, and nothing is taken back: to undo is a
 * change, too. Undoing again goes one change further back; restoring a revision by its number can be undone like any other change.
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
  /** the set after the change, in the order in which edits act */
  readonly entries: readonly Entry[];
  /** the revision that undoing goes back to; null: there is nothing to undo */
  readonly undo: number | null;
}

export type History = readonly Revision[];

/** Revisions that a set keeps; what is older cannot be gone back to. */
export const kept = 200;

export const entriesOf = (history: History): readonly Entry[] => history.at(-1)?.entries ?? [];
const numberOf = (history: History): number => history.at(-1)?.revision ?? 0;

const stateAt = (history: History, revision: number): readonly Entry[] | undefined =>
  revision === 0 && (history[0]?.revision ?? 1) === 1 ? [] : history.find((one) => one.revision === revision)?.entries;

const same = (a: readonly Entry[], b: readonly Entry[]): boolean =>
  a.length === b.length && a.every(({ id, enabled }, i) => id === b[i]!.id && enabled === b[i]!.enabled);

function append(history: History, next: Omit<Revision, 'revision'>): History {
  return [...history, { revision: numberOf(history) + 1, ...next }].slice(-kept);
}

export function added(history: History, edit: string, at: number): History {
  const entries = [...entriesOf(history), { id: edit, enabled: true }];
  return append(history, { at, action: 'add', edit, to: null, entries, undo: numberOf(history) });
}

/** The same history when the edit is on, or off, already. An edit that is not in the set at present (its addition was undone) joins it at the end. */
export function switched(history: History, edit: string, enabled: boolean, at: number): History {
  const before = entriesOf(history);
  const there = before.some(({ id }) => id === edit);
  const entries = there
    ? before.map((one) => (one.id === edit ? { id: edit, enabled } : one))
    : [...before, { id: edit, enabled }];
  if (same(before, entries) || (!there && !enabled)) return history;
  return append(history, { at, action: enabled ? 'enable' : 'disable', edit, to: null, entries, undo: numberOf(history) });
}

/** Deleting is for good: the edit leaves all revisions. */
export function deleted(history: History, edit: string, at: number): History {
  const without = history.map((one) => ({ ...one, entries: one.entries.filter(({ id }) => id !== edit) }));
  return append(without, {
    at,
    action: 'delete',
    edit,
    to: null,
    entries: entriesOf(without),
    undo: numberOf(history),
  });
}

/**
 * @param to the revision to restore; absent: the one before the last change that is not undone
 * @returns undefined when there is nothing to go back to
 */
export function reverted(history: History, to: number | undefined, at: number): History | undefined {
  const head = history.at(-1);
  if (head === undefined) return undefined;
  if (to !== undefined) {
    const entries = stateAt(history, to);
    return entries && append(history, { at, action: 'revert', edit: null, to, entries, undo: head.revision });
  }
  // Changes that deletions left without effect are passed over.
  for (let target = head.undo; target !== null; target = history.find(({ revision }) => revision === target)?.undo ?? null) {
    const entries = stateAt(history, target);
    if (entries === undefined) return undefined;
    if (same(entries, head.entries)) continue;
    const undo = history.find(({ revision }) => revision === target)?.undo ?? null;
    return append(history, { at, action: 'revert', edit: null, to: target, entries, undo });
  }
  return undefined;
}

/** A revision without its entries where they follow from the revisions before it. */
export type PackedRevision = Omit<Revision, 'entries'> & { readonly entries?: readonly Entry[] | undefined };

/** What a revision's entries are when they follow from those before it. */
function following(before: History, { action, edit, to }: Omit<Revision, 'entries'>): readonly Entry[] | undefined {
  const entries = entriesOf(before);
  if (action === 'revert') return stateAt(before, to ?? -1);
  if (action === 'add') return [...entries, { id: edit!, enabled: true }];
  if (action === 'delete') return entries.filter(({ id }) => id !== edit);
  const enabled = action === 'enable';
  if (!entries.some(({ id }) => id === edit)) return [...entries, { id: edit!, enabled }];
  return entries.map((one) => (one.id === edit ? { id: one.id, enabled } : one));
}

export function packed(history: History): PackedRevision[] {
  return history.map(({ entries, ...revision }, i) => {
    const follow = i === 0 ? undefined : following(history.slice(0, i), revision);
    return follow !== undefined && same(follow, entries) ? revision : { ...revision, entries };
  });
}

/** @throws Error when entries neither follow nor are given */
export function unpacked(revisions: readonly PackedRevision[]): History {
  return revisions.reduce<Revision[]>((before, { entries, ...revision }) => {
    const found = entries ?? following(before, revision);
    if (found === undefined) throw new Error(`revision ${revision.revision} has no entries`);
    before.push({ ...revision, entries: found });
    return before;
  }, []);
}
