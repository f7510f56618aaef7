/** Scope cards of some edits of a set, asked under the whole set. */

import { CardPictures } from '../../../src/ledger/ledger.ts';
import { measureCards } from '../../../src/ledger/scope.ts';
import type { Models } from './models.ts';
import type { CardsOrder, Tasks } from './tasks.ts';
import type { Work } from './worker.ts';

export async function cards(
  models: Models,
  { under, folder, edits }: CardsOrder,
  { signal }: Work<never>,
): Promise<Tasks['cards']['result']> {
  const { vlm, asked } = await models.under(under);
  return [...(await measureCards(vlm, new CardPictures(folder), edits, asked, { signal }))];
}
