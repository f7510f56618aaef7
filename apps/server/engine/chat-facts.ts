/** What a model's conversations may hold, found by writing short ones with its template. */

import { textOf } from '../../../src/input/segments.ts';
import { conversation } from '../../../src/models/chat.ts';
import type { Vlm } from '../../../src/models/vlm.ts';
import type { ChatFacts } from './tasks.ts';

type Messages = Parameters<typeof conversation>[1];

/** @returns null where neither the folder nor the family has a template that works */
export function chatFacts(vlm: Vlm): ChatFacts | null {
  const written = (messages: Messages): string | undefined => {
    try {
      return textOf(conversation(vlm, messages).prompt);
    } catch {
      return undefined;
    }
  };
  const user = { role: 'user', content: 'Question' };
  if (written([user]) === undefined) return null;
  const has = (role: string, messages: Messages): boolean =>
    written(messages.map((one) => (one.role === role ? { role, content: 'Mark' } : one)))?.includes('Mark') === true;
  const picture = { width: 1, height: 1, data: new Uint8Array(3) };
  const shown = { role: 'user', content: [{ picture }, { text: 'Question' }] };
  const answer = { role: 'assistant', content: '' };
  return {
    system: has('system', [{ role: 'system', content: '' }, user]),
    turns: has('assistant', [user, answer, user]),
    pictures: written([shown, answer, shown]) !== undefined,
  };
}
