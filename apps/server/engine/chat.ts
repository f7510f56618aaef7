/** One answer, token by token. */

import { wordWarnings } from '../../../src/input/text/unknown-words.ts';
import { Random } from '../../../src/random.ts';
import { layoutOf, type Models } from './models.ts';
import { listen } from './said.ts';
import type { ChatOrder, Said, SaidToken } from './tasks.ts';
import type { Work } from './worker.ts';

export async function chat(models: Models, order: ChatOrder, { signal, tell }: Work<SaidToken>): Promise<Said> {
  const { under, prompt, image, maxTokens, stop, top, temperature, topP, seed } = order;
  const { vlm, asked } = await models.under(under);
  const sequence = await layoutOf(vlm, 'messages', { prompt, image });
  const listener = listen(vlm, 1, { top, stop, tell });
  const sampling = temperature === 0 ? {} : { temperature, topP, random: new Random(`${seed}/chat`) };
  const [answer] = await asked.generate([{ prompt, image }], {
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
    warnings: wordWarnings(vlm.codec, 'the prompt', prompt),
  };
}
