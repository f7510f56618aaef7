/** Conversations for a model: written by the chat template of its folder, or by its family's where the folder has none. */

import { type ChatForm, type Message, type Part, renderChat } from '../input/chat/chat.ts';
import type { RenderOptions } from '../input/chat/jinja.ts';
import { readChatTemplate, specialTokens } from '../input/chat/template.ts';
import type { Asked, Prompt, RgbImage, Segment } from '../input/segments.ts';
import type { Architecture, TextCodec } from './architecture.ts';
import type { GenerateOptions } from './generate.ts';
import type { Vlm } from './vlm.ts';

/** How a model chats. */
export interface Chat extends ChatForm {
  /** the template is the folder's own */
  readonly own: boolean;
  /** texts that end an answer */
  readonly stop: readonly string[];
}

/** @returns undefined where neither the folder nor the family has a template */
export function chatOf(architecture: Architecture, codec: TextCodec, dir: string, tokenizerDir: string): Chat | undefined {
  const own = readChatTemplate(dir, tokenizerDir);
  const family = architecture.chat;
  const placeholder = family?.placeholder ?? architecture.placeholder?.(codec);
  if (placeholder === undefined) return undefined;
  const stop = family?.stop ?? [];
  if (own !== undefined) return { template: own, placeholder, own: true, stop };
  if (family?.template === undefined) return undefined;
  const template = { source: family.template, origin: `the family ${architecture.name}`, tokens: specialTokens(tokenizerDir) };
  return { template, placeholder, own: false, stop };
}

/**
 * What is asked when the assistant answers next.
 * @throws Error when there is no template, the template fails, or a picture has no place in it
 */
export function conversation(vlm: Vlm, messages: readonly Message[], options: RenderOptions = {}): Asked {
  const { chat } = vlm;
  if (chat === undefined)
    throw new Error(
      `${vlm.name} has no chat template; ask with a bare prompt, or write the template that was published with the model to chat_template.jinja in its folder`,
    );
  return { prompt: withoutBegin(renderChat(messages, chat, options), chat, vlm.codec) };
}

/** A tokenizer that begins every text with a token does not need it from the template, too. */
function withoutBegin(parts: readonly Part[], { template }: Chat, codec: TextCodec): readonly Part[] {
  const begin = template.tokens.bos_token;
  const [first, ...rest] = parts;
  if (begin === undefined || first === undefined || !('text' in first) || !first.text.startsWith(begin)) return parts;
  if (codec.encode('')[0] !== codec.encode(begin, { special: false })[0]) return parts;
  const text = first.text.slice(begin.length);
  return text === '' ? rest : [{ text }, ...rest];
}

/**
 * A bare prompt with any number of pictures: where the prompt's placeholders stand, or before it.
 * @throws Error when there are placeholders for another number of pictures
 */
export function barePrompt({ architecture, codec }: Vlm, prompt: string, images: readonly RgbImage[]): Asked {
  if (images.length < 2) return { prompt, image: images[0] };
  const placeholder = architecture.placeholder?.(codec);
  const texts = placeholder === undefined ? [prompt] : prompt.split(placeholder);
  const { afterPicture } = architecture;
  if (texts.length === 1) {
    const before = images.flatMap((picture, i): Segment[] => [
      { picture },
      { text: afterPicture + (i === images.length - 1 ? prompt : '') },
    ]);
    return { prompt: filled(before) };
  }
  if (texts.length - 1 !== images.length)
    throw new Error(
      `the prompt has ${placeholder} ${texts.length - 1} times and ${images.length} pictures; give one picture for each`,
    );
  return {
    prompt: filled(texts.flatMap((text, i): Segment[] => [{ text }, ...(i < images.length ? [{ picture: images[i]! }] : [])])),
  };
}

const filled = (prompt: readonly Segment[]): Prompt => prompt.filter((segment) => !('text' in segment) || segment.text !== '');

/** Ends answers at one of some texts, such as the mark of the next turn: for `generate`, and to cut what it gives. */
export function stopAt(
  { codec }: Pick<Vlm, 'codec'>,
  stop: readonly string[],
): {
  onToken?: GenerateOptions['onToken'];
  cut(text: string): string;
} {
  if (stop.length === 0) return { cut: (text) => text };
  const found = (text: string): number[] => stop.map((word) => text.indexOf(word)).filter((at) => at >= 0);
  const answers = new Map<number, number[]>();
  return {
    onToken: (index, id) => {
      const ids = [...(answers.get(index) ?? []), id];
      answers.set(index, ids);
      return found(codec.decode(ids)).length > 0;
    },
    cut: (text) => text.slice(0, Math.min(text.length, ...found(text))).trimEnd(),
  };
}
