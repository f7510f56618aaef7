/** Tokens of answers with their probabilities, as they are generated. */

import type { GenerateOptions } from '../../../src/models/generate.ts';
import { logProbabilities, rankedTokens } from '../../../src/models/ranked-tokens.ts';
import type { Vlm } from '../../../src/models/vlm.ts';
import type { NamedToken, SaidToken } from './tasks.ts';
import { TextStream } from './text-stream.ts';

/** The text that a token adds behind another one, including its leading space. */
export function tokenText(vlm: Vlm, id: number): string {
  const { codec } = vlm;
  const alone = codec.decode([id], { skipSpecial: false });
  const twice = codec.decode([id, id], { skipSpecial: false });
  return twice.startsWith(alone) ? twice.slice(alone.length) : alone;
}

export function named(vlm: Vlm, id: number, logProb: number): NamedToken {
  const text = tokenText(vlm, id);
  return { id, text, bytes: vlm.codec.bytesOf?.(id) ?? Buffer.from(text), logProb };
}

export interface Listener {
  readonly onToken: NonNullable<GenerateOptions['onToken']>;
  /** by query */
  readonly said: readonly SaidToken[][];
  /** texts of the answers, once they are finished */
  texts(): string[];
  readonly streams: readonly TextStream[];
}

/** Listens to the answers of some queries. @param top most probable tokens to tell beside each */
export function listen(
  vlm: Vlm,
  count: number,
  { top, stop = [], tell }: { top: number; stop?: readonly string[]; tell?: (token: SaidToken) => void },
): Listener {
  const said: SaidToken[][] = Array.from({ length: count }, () => []);
  const streams = said.map(() => new TextStream((ids) => vlm.codec.decode(ids), stop));
  const texts = said.map(() => '');
  return {
    said,
    streams,
    onToken: (index, id, logits) => {
      const stream = streams[index]!;
      const added = stream.push(id);
      texts[index] += added;
      const token: SaidToken = {
        ...named(vlm, id, logProbabilities(logits)(id)),
        added,
        top: rankedTokens(logits, top).map((one) => named(vlm, one.id, one.logProb)),
      };
      said[index]!.push(token);
      tell?.(token);
      return stream.ended;
    },
    texts: () => streams.map((stream, i) => texts[i]! + stream.finish()),
  };
}
