/**
 * How the server puts questions. A folder's own chat template writes them. Without one, a single question is asked bare, as edits and their data
 * are, and a conversation has the form of the family's authors.
 */

import { basename } from 'node:path';
import { type Message, partsOf } from '../../../src/input/chat/chat.ts';
import type { Asked, RgbImage } from '../../../src/input/segments.ts';
import { barePrompt, conversation } from '../../../src/models/chat.ts';
import type { Vlm } from '../../../src/models/vlm.ts';
import type { Question } from './tasks.ts';

export interface Put {
  readonly asked: Asked;
  /** what the template wrote it from; absent: a bare prompt */
  readonly messages?: readonly Message[];
  /** texts that end the answer */
  readonly stop: readonly string[];
}

/** @throws Error when a picture has no place, or the template fails */
export function putMessages(vlm: Vlm, messages: readonly Message<RgbImage>[]): Put {
  const [first] = messages;
  if (messages.length === 1 && first!.role === 'user' && !writesItself(vlm)) {
    const parts = partsOf(first!);
    const texts = parts.flatMap((part) => ('text' in part && part.text !== '' ? [part.text] : []));
    const pictures = parts.flatMap((part) => ('picture' in part ? [part.picture] : []));
    return { asked: barePrompt(vlm, texts.join('\n'), pictures), stop: [] };
  }
  return { asked: withoutFolder(vlm, () => conversation(vlm, messages)), messages, stop: vlm.chat?.stop ?? [] };
}

/** @throws Error when the template fails */
export function putQuestion(vlm: Vlm, { prompt, image }: Question): Put {
  const content = [...(image === undefined ? [] : [{ picture: image }]), { text: prompt }];
  return putMessages(vlm, [{ role: 'user', content }]);
}

const writesItself = (vlm: Vlm): boolean => withoutFolder(vlm, () => vlm.chat?.own === true);

/** Clients see the name of the template's file, not where it lies. */
function withoutFolder<T>(vlm: Vlm, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const { message } = error as Error;
    throw new Error(
      message.replace(/\S*[\\/](\S+\.(?:jinja|json))/g, (path: string) => `${vlm.name}/${basename(path)}`),
      {
        cause: error,
      },
    );
  }
}
