/** Ledgers that commands name, opened. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Edit } from '../editors/editor.ts';
import type { Vlm } from '../models/vlm.ts';
import { type EditSet, Ledger, setId } from './ledger.ts';
import type { LedgerReference } from './reference-text.ts';

const unbounded = { edits: 1e6, editsPerSet: 1e6 };
/** The set that edits go to when none is named. */
export const defaultSet = 'default';

export const isLedger = (folder: string): boolean =>
  ['changes.jsonl', 'index.json'].some((name) => existsSync(join(folder, name)));

/**
 * @param how `read` looks only, beside whoever changes it; `change` is the only one who does; `make` makes the folder, too
 * @throws Error when there is none
 */
export function openLedger({ folder }: LedgerReference, how: 'read' | 'change' | 'make'): Ledger {
  if (how !== 'make' && !isLedger(folder))
    throw new Error(`${folder} holds no edits; \`visedit edits add ${folder}\` puts one there`);
  return new Ledger(folder, unbounded, { readOnly: how === 'read' });
}

/**
 * The set that a reference means.
 * @param model only sets of this model: its name, or its fingerprint
 * @throws Error that names the sets there are
 */
export function findSet(ledger: Ledger, { folder, name }: LedgerReference, model?: Pick<Vlm, 'name' | 'fingerprint'>): EditSet {
  const fits = ({ members }: EditSet): boolean =>
    model === undefined || [...members].every((id) => ledger.edit(id).fingerprint === model.fingerprint);
  const sets = ledger.sets.filter((one) => (name === undefined || one.name === name) && one.members.size > 0);
  const found = sets.filter(fits);
  const [set] = found.length > 1 ? found.filter((one) => one.name === defaultSet) : found;
  if (set !== undefined && (found.length === 1 || found.filter((one) => one.name === defaultSet).length === 1)) return set;
  const there = ledger.sets.map((one) => setId(one)).join(', ') || 'none';
  if (sets.length === 0)
    throw new Error(`${folder} has no set${name === undefined ? '' : ` ${name}`} with edits in it; sets: ${there}`);
  if (found.length === 0)
    throw new Error(
      `${folder} holds edits of ${[...new Set(sets.map((one) => one.model))].join(', ')}, and none of ${model!.name}`,
    );
  throw new Error(`${folder} has several sets (${there}); name one as ${folder}#${found[0]!.name}, and its model with --model`);
}

/** The edits of a ledger that are on, in their order, for a model. */
export function activeEdits(vlm: Vlm, reference: LedgerReference): Edit[] {
  const ledger = openLedger(reference, 'read');
  return ledger.active(findSet(ledger, reference, vlm)).map(({ id }) => ledger.read(id));
}

/**
 * The edit of a set that a person means: its place in the set, from 1, or its id, or how the id begins.
 * @throws Error that says what there is
 */
export function findEdit({ history, members }: EditSet, text: string): string {
  if (/^\d{1,6}$/.test(text)) {
    const entry = history.entries[Number(text) - 1];
    if (entry !== undefined) return entry.id;
  }
  const found = [...members].filter((id) => id === text || id.startsWith(text) || id.startsWith(`edit_${text}`));
  if (found.length === 1) return found[0]!;
  throw new Error(
    found.length === 0
      ? `the set has no edit ${JSON.stringify(text)}; give its number, from 1 to ${history.entries.length}, or its id as \`visedit edits list\` shows it`
      : `several edits begin with ${JSON.stringify(text)}: ${found.slice(0, 5).join(', ')}; give more of the id`,
  );
}
