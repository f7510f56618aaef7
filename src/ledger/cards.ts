/** What is read from scope cards that were asked: the last one of an edit, what changed since, and how many questions are as they must be. */

import type { EditCheck } from '../evaluation/scope-card.ts';
import type { ChangedEdit, StoredEdit } from './changes.ts';

/** The last card of an edit: under the set where it was measured, else as it was made. */
export const lastCard = ({ measured, check }: StoredEdit): EditCheck | null => measured?.check ?? check;

/** A row of a card in words that name it, as long as the card asks the same. */
const rowName = ({ kind, prompt, picture }: EditCheck['card'][number], n: number): string => `${n} ${kind} ${picture} ${prompt}`;

/** What cards asked now say of edits that were there: questions that are no longer right, and that became right. */
export function changedEdits(stored: readonly StoredEdit[], now: ReadonlyMap<string, EditCheck>): ChangedEdit[] {
  return stored.flatMap((edit) => {
    const [before, after] = [lastCard(edit)?.card, now.get(edit.id)?.card];
    if (before === undefined || after === undefined) return [];
    const was = new Map(before.map((row, n) => [rowName(row, n), row.ok]));
    const changed = (ok: boolean): string[] =>
      after.flatMap((row, n) => (row.ok === ok && was.get(rowName(row, n)) === !ok ? [`${row.kind}: ${row.prompt}`] : []));
    const [lost, gained] = [changed(false), changed(true)];
    return lost.length + gained.length === 0 ? [] : [{ id: edit.id, lost, gained }];
  });
}

/** A card in numbers: of each kind, how many of its questions are as they must be. */
export interface Scope {
  readonly free: boolean;
  readonly forced: boolean;
  readonly rephrasings: Share;
  readonly pictures: Share;
  /** questions whose answer changed though it must not */
  readonly leaks: Readonly<Record<'sameImage' | 'sameQuestion' | 'otherPictures' | 'textOnly', Share>>;
}
/** how many, of how many */
export type Share = readonly [count: number, of: number];

export function scopeOf({ took, forced, card }: EditCheck): Scope {
  const share = (kind: EditCheck['card'][number]['kind'], ok: boolean): Share => {
    const rows = card.filter((row) => row.kind === kind);
    return [rows.filter((row) => row.ok === ok).length, rows.length];
  };
  return {
    free: took,
    forced,
    rephrasings: share('textGenerality', true),
    pictures: share('modalGenerality', true),
    leaks: {
      sameImage: share('sameImage', false),
      sameQuestion: share('sameQuestion', false),
      otherPictures: share('modalLocality', false),
      textOnly: share('textLocality', false),
    },
  };
}
