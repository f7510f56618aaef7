/**
 * Edits that cannot both be right: the same question about the same picture, and another target. Questions are the prompt and the wordings that were
 * given with it, white space, case, punctuation at the end and the cue for the answer aside; pictures are the same when their pixels are.
 */

import { createHash } from 'node:crypto';
import { decodeImage } from '../input/image/decode.ts';
import { answerCue } from '../input/records.ts';
import type { RgbImage } from '../input/segments.ts';
import type { StoredEdit } from './changes.ts';
import type { Ledger } from './ledger.ts';

/** What of an edit is compared. */
export interface Claim {
  readonly id: string;
  /** `pictureKey`; undefined: it came without a picture */
  readonly picture: string | undefined;
  readonly questions: readonly string[];
  readonly target: string;
}

export interface Conflict {
  /** `contradicts`: the same question, another target; `repeats`: the same target, too */
  readonly kind: 'contradicts' | 'repeats';
  readonly edits: readonly [string, string];
  readonly question: string;
  readonly targets: readonly [string, string];
}

export const pictureKey = ({ width, height, data }: RgbImage): string =>
  createHash('sha256').update(`${width}x${height}`).update(data).digest('hex');

const plain = (text: string): string => text.trim().replace(/\s+/g, ' ').toLowerCase();

/** A question as it is compared. */
const bare = (prompt: string): string =>
  plain(prompt.endsWith(answerCue) ? prompt.slice(0, -answerCue.length) : prompt).replace(/[\s?.!:]+$/, '');

export const claimOf = (
  { id, prompt, target, given }: Pick<StoredEdit, 'id' | 'prompt' | 'target' | 'given'>,
  picture: string | undefined,
): Claim => ({ id, picture, questions: [prompt, ...(given?.rephrasings ?? [])], target });

/** What a stored edit claims. */
export async function storedClaim(ledger: Ledger, edit: StoredEdit): Promise<Claim> {
  return claimOf(edit, edit.picture ? pictureKey(await decodeImage(ledger.picturePath(edit.id))) : undefined);
}

/** All pairs of claims about the same question on the same picture, each once. @param of only pairs with this one in them */
export function conflictsOf(claims: readonly Claim[], of?: Claim): Conflict[] {
  const asked = new Map<string, Claim[]>();
  const found: Conflict[] = [];
  for (const claim of claims) {
    if (claim.picture === undefined) continue;
    const met = new Set<Claim>();
    for (const question of claim.questions) {
      const key: string = `${claim.picture} ${bare(question)}`;
      const there: Claim[] = asked.get(key) ?? [];
      for (const other of there) {
        if (met.has(other) || other === claim || (of !== undefined && of !== claim && of !== other)) continue;
        met.add(other);
        const kind = plain(other.target) === plain(claim.target) ? 'repeats' : 'contradicts';
        found.push({ kind, edits: [other.id, claim.id], question, targets: [other.target, claim.target] });
      }
      if (!there.includes(claim)) asked.set(key, [...there, claim]);
    }
  }
  return found;
}
