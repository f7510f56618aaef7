/** Says which words of a text the model has no token for, on stderr and, by what it returns, in the JSON document. */
import { wordWarnings } from '../../src/input/text/unknown-words.ts';
import type { TextCodec } from '../../src/models/architecture.ts';
import type { CommandContext } from './frame/context.ts';

/** @param texts by what they are, as in `the prompt` */
export function warnOfWords(codec: TextCodec, texts: Readonly<Record<string, string>>, context: CommandContext): string[] {
  const warnings = Object.entries(texts).flatMap(([what, text]) => wordWarnings(codec, what, text));
  for (const line of warnings) context.warn(line);
  return warnings;
}
