/**
 * Scope cards of a set: every edit's own question, and the questions around it, asked under the whole set. What the unedited model says is asked
 * once and read from the card from then on.
 */

import { editedModel } from '../editors/apply.ts';
import type { Edit, EditRequest } from '../editors/editor.ts';
import { type GivenProbes, type Probe, probesInChat, probesOf } from '../evaluation/probes.ts';
import { askCard, type CardAnswers, type CheckOptions, cardOf, type EditCheck } from '../evaluation/scope-card.ts';
import { decodeImage } from '../input/image/decode.ts';
import { type RgbImage, textOf } from '../input/segments.ts';
import { type AnsweringModel, unedited } from '../models/answer.ts';
import { barePrompt, conversation } from '../models/chat.ts';
import type { Vlm } from '../models/vlm.ts';
import type { StoredEdit } from './changes.ts';
import type { CardPictures, Ledger } from './ledger.ts';

/** Wordings, copies and other questions that templates make where none are given. */
const each = 2;

/** What a card asks of an edit. */
export interface CardQuestions {
  readonly request: EditRequest;
  readonly probes: readonly Probe[];
}

/** @param form how the prompt is put: as it is, or by the model's chat template */
export function cardQuestions(
  vlm: Vlm,
  { form, prompt, target, picture }: { form?: StoredEdit['form']; prompt: string; target: string; picture: RgbImage },
  given: GivenProbes = {},
): CardQuestions {
  const around = { each, ...given };
  if (form === 'chat') {
    const messages = [{ role: 'user' as const, content: [{ picture }, { text: prompt }] }];
    return { request: { ...conversation(vlm, messages), target }, probes: probesInChat(vlm, messages, around) };
  }
  const request = { ...barePrompt(vlm, prompt, [picture]), target };
  return { request, probes: probesOf(request, vlm.codec, around) };
}

/** What the card of a stored edit asks; undefined for one that came without a picture. */
export async function storedQuestions(vlm: Vlm, ledger: CardPictures, edit: StoredEdit): Promise<CardQuestions | undefined> {
  if (!edit.picture) return undefined;
  const { rephrasings = [], samePictures = 0, otherPictures = 0 } = edit.given ?? {};
  const pictures = (kind: 'same' | 'other', count: number): Promise<RgbImage[]> =>
    Promise.all(Array.from({ length: count }, (_, i) => decodeImage(ledger.cardPicturePath(edit.id, kind, i + 1))));
  const picture = await decodeImage(ledger.picturePath(edit.id));
  return cardQuestions(
    vlm,
    { ...edit, picture },
    { rephrasings, samePictures: await pictures('same', samePictures), otherPictures: await pictures('other', otherPictures) },
  );
}

/** What the unedited model says to a card's questions, from a card that asked the same. */
function knownBefore(
  check: EditCheck | null | undefined,
  { request, probes }: CardQuestions,
): Omit<CardAnswers, 'forced'> | undefined {
  const rows = check?.card ?? [];
  const asked = [{ kind: 'reliability', prompt: request.prompt, picture: 'own' }, ...probes];
  const same =
    rows.length === asked.length &&
    asked.every(({ kind, prompt, picture }, i) => {
      const row = rows[i]!;
      return row.kind === kind && row.prompt === textOf(prompt) && row.picture === picture;
    });
  return same ? { state: check!.before, answers: rows.map(({ before }) => before) } : undefined;
}

export interface MeasureOptions extends CheckOptions {
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/**
 * The scope cards of edits under a model with the whole set.
 * @returns by id; edits without a picture have none
 */
export async function measureCards(
  vlm: Vlm,
  ledger: CardPictures,
  stored: readonly StoredEdit[],
  under: AnsweringModel,
  { onProgress, ...options }: MeasureOptions = {},
): Promise<Map<string, EditCheck>> {
  const cards = new Map<string, EditCheck>();
  const before = unedited(vlm);
  for (const [i, edit] of stored.entries()) {
    onProgress?.(i, stored.length);
    options.signal?.throwIfAborted();
    const questions = await storedQuestions(vlm, ledger, edit);
    if (questions === undefined) continue;
    const { request, probes } = questions;
    const then = knownBefore(edit.measured?.check ?? edit.check, questions) ?? (await askCard(before, request, probes, options));
    cards.set(edit.id, cardOf(request, probes, then, await askCard(under, request, probes, options)));
  }
  onProgress?.(stored.length, stored.length);
  return cards;
}

/** The scope cards of all edits of a set that are on, asked now. @param edits of the set, where they are read already */
export async function measureSet(
  vlm: Vlm,
  ledger: Ledger,
  set: string,
  options: MeasureOptions & { readonly edits?: readonly Edit[] } = {},
): Promise<Map<string, EditCheck>> {
  const active = ledger.active(ledger.set(set));
  const edits = options.edits ?? active.map(({ id }) => ledger.read(id));
  return measureCards(vlm, ledger, active, await editedModel(vlm, edits), options);
}
