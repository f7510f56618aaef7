/** One answer, token by token. */

import { wordsOf } from '../../../src/input/chat/chat.ts';
import { wordWarnings } from '../../../src/input/text/unknown-words.ts';
import { Random } from '../../../src/random.ts';
import { clientsFault } from '../errors.ts';
import { layoutOf, type Models } from './models.ts';
import { putMessages } from './question.ts';
import { listen } from './said.ts';
import type { ChatOrder, Said, SaidToken } from './tasks.ts';
import type { Work } from './worker.ts';

export async function chat(models: Models, order: ChatOrder, { signal, tell }: Work<SaidToken>): Promise<Said> {
  const { under, messages, maxTokens, top, temperature, topP, seed } = order;
  const { vlm, asked } = await models.under(under);
  const put = await clientsFault('invalid_prompt', 'messages', () => putMessages(vlm, messages));
  const sequence = await layoutOf(vlm, 'messages', put.asked);
  const listener = listen(vlm, 1, { top, stop: [...order.stop, ...put.stop], tell });
  const sampling = temperature === 0 ? {} : { temperature, topP, random: new Random(`${seed}/chat`) };
  const [answer] = await asked.generate([put.asked], {
    maxNewTokens: maxTokens,
    ...sampling,
    signal,
    onToken: listener.onToken,
  });
  const tokens = listener.said[0]!;
  const full = sequence.ids.length + answer!.tokenIds.length > vlm.decoder.maxPositions;
  const cut = !listener.streams[0]!.ended && (answer!.tokenIds.length >= maxTokens || full);
  return {
    text: listener.texts()[0]!,
    tokens,
    promptTokens: sequence.ids.length,
    finish: cut ? 'length' : 'stop',
    warnings: wordWarnings(vlm.codec, 'the prompt', wordsOf(messages)),
  };
}
