/** Edits of one ledger taken into another. */

import { readFileSync } from 'node:fs';
import { writeEdit } from '../editors/files.ts';
import { type Conflict, conflictsOf, storedClaim } from './conflicts.ts';
import type { EditSet, Ledger } from './ledger.ts';

export interface Merged {
  /** ids of the new edits, in this ledger */
  readonly taken: readonly string[];
  /** ids of edits of the other ledger that are here already */
  readonly passed: readonly string[];
  readonly conflicts: readonly Conflict[];
}

/**
 * @param name of the set that they join @param force takes edits that contradict others, too
 * @throws Error when the edits are of another editor or model than those that are there
 */
export async function mergeInto(ledger: Ledger, name: string, source: Ledger, set: EditSet, force: boolean): Promise<Merged> {
  const theirs = source.active(set);
  const there = ledger.findSet(set.model, name);
  const ours = there === undefined ? [] : ledger.active(there);
  const [first] = ours;
  const foreign = first && theirs.find(({ fingerprint }) => fingerprint !== first.fingerprint);
  if (foreign !== undefined)
    throw new Error(
      `${source.folder} holds edits of another ${set.model} (${foreign.fingerprint.slice(0, 12)}) than ${ledger.folder}; make them again`,
    );
  ledger.beside(set.model, name, source.editorOf(set));
  const claims = await Promise.all(ours.map((edit) => storedClaim(ledger, edit)));
  const conflicts: Conflict[] = [];
  const passed: string[] = [];
  for (const edit of theirs) {
    const claim = await storedClaim(source, edit);
    const found = conflictsOf([...claims, claim], claim);
    conflicts.push(...found);
    if (found.some(({ kind }) => kind === 'repeats')) passed.push(edit.id);
    claims.push(claim);
  }
  const taken: string[] = [];
  if (!force && conflicts.some(({ kind }) => kind === 'contradicts')) return { taken, passed, conflicts };
  for (const edit of theirs) {
    if (passed.includes(edit.id)) continue;
    const id = ledger.newId();
    writeEdit(ledger.path(id), source.read(edit.id));
    const pictures = (kind: 'same' | 'other', count = 0): Uint8Array[] =>
      Array.from({ length: count }, (_, i) => readFileSync(source.cardPicturePath(edit.id, kind, i + 1)));
    ledger.add({ ...edit, id, set: name, measured: undefined, changed: undefined }, source.picture(edit.id), {
      same: pictures('same', edit.given?.samePictures),
      other: pictures('other', edit.given?.otherPictures),
    });
    taken.push(id);
  }
  return { taken, passed, conflicts };
}
