/** Messages with roles as one prompt: rendered by a chat template, then split where the pictures stand. */

import type { Picture, RgbImage } from '../segments.ts';
import { EndlessTemplate, type RenderOptions, renderTemplate, type TemplateMessage } from './jinja.ts';
import type { ChatTemplate } from './template.ts';

/** A part of a message or of a prompt. */
export type Part<P = RgbImage | Picture> = { readonly text: string } | { readonly picture: P };

/** One turn of a conversation, with texts and pictures in their order. */
export interface Message<P = RgbImage | Picture> {
  /** system, user or assistant; a template may know others */
  readonly role: string;
  readonly content: string | readonly Part<P>[];
}

export interface ChatForm {
  readonly template: ChatTemplate;
  /** what stands for a picture in the rendered text */
  readonly placeholder: string;
}

/** A message's texts and pictures. */
export const partsOf = <P>({ content }: Pick<Message<P>, 'content'>): readonly Part<P>[] =>
  typeof content === 'string' ? [{ text: content }] : content;
/** What the messages say, without what a template adds. */
export const wordsOf = <P>(messages: readonly Message<P>[]): string =>
  messages.flatMap((message) => partsOf(message).flatMap((part) => ('text' in part ? [part.text] : []))).join('\n');

const picturesOf = <P>(messages: readonly Message<P>[]): P[] =>
  messages.flatMap((message) => partsOf(message).flatMap((part) => ('picture' in part ? [part.picture] : [])));

/**
 * The prompt of a conversation, ready for the assistant's next answer.
 * @throws Error that names the message or the template's file when a picture would be lost, or a text would be read as one
 */
export function renderChat<P>(messages: readonly Message<P>[], form: ChatForm, options: RenderOptions = {}): Part<P>[] {
  if (messages.length === 0) throw new Error('the conversation has no messages; give at least one');
  const { placeholder } = form;
  for (const [m, message] of messages.entries()) {
    if (partsOf(message).some((part) => 'text' in part && part.text.includes(placeholder)))
      throw new Error(
        `message ${m + 1} (${message.role}) has ${placeholder} in its text, which stands for a picture; give the picture as a part of its own, or leave the word out`,
      );
  }
  const pictures = picturesOf(messages);
  const texts = render(messages, form, options).split(placeholder);
  if (texts.length - 1 !== pictures.length) throw new Error(mismatch(messages, form, options, texts.length - 1));
  return texts.flatMap((text, i): Part<P>[] => [
    ...(text === '' ? [] : [{ text }]),
    ...(i < pictures.length ? [{ picture: pictures[i]! }] : []),
  ]);
}

/** How a list of parts looks that a template writes as it is, since it expected a text. */
const LIST = '{"type": "text"';

/**
 * Templates differ in what they expect. One that names no image was written for texts, and the placeholder stands in them as any other word; the
 * others get lists of parts, and where that fails, texts for messages that are only text.
 */
function render<P>(messages: readonly Message<P>[], { template, placeholder }: ChatForm, options: RenderOptions): string {
  const listOf = (parts: readonly Part<P>[]): TemplateMessage['content'] =>
    parts.map((part) => ('text' in part ? { type: 'text', text: part.text } : { type: 'image' }));
  const textOf = (parts: readonly Part<P>[]): string =>
    parts.map((part) => ('text' in part ? part.text : placeholder)).join('\n');
  const shorter = (parts: readonly Part<P>[]): TemplateMessage['content'] =>
    parts.every((part) => 'text' in part) ? textOf(parts) : listOf(parts);
  const said = messages.some((message) => textOf(partsOf(message)).includes(LIST));
  let fault: unknown;
  for (const contentOf of /image/i.test(template.source) ? [listOf, shorter] : [textOf]) {
    try {
      const given = messages.map((message) => ({ role: message.role, content: contentOf(partsOf(message)) }));
      const text = renderTemplate(template, given, options);
      if (said || !text.includes(LIST)) return text;
      fault ??= new Error(`the chat template in ${template.origin} writes parts of messages as lists, not as texts`);
    } catch (error) {
      if (error instanceof EndlessTemplate) throw error;
      fault ??= error;
    }
  }
  throw fault;
}

/** Says which message's pictures the template does not write as many times as there are. */
function mismatch<P>(messages: readonly Message<P>[], form: ChatForm, options: RenderOptions, written: number): string {
  const { template, placeholder } = form;
  const count = picturesOf(messages).length;
  const first = messages.findIndex((_, m) => {
    const until = messages.slice(0, m + 1);
    try {
      return render(until, form, options).split(placeholder).length - 1 !== picturesOf(until).length;
    } catch {
      // Some templates refuse conversations that end here.
      return false;
    }
  });
  const which = first < 0 ? '' : `, and it is message ${first + 1} (${messages[first]!.role}) that differs`;
  const pictures = count === 1 ? '1 picture' : `${count} pictures`;
  return `the messages have ${pictures}, but the chat template in ${template.origin} writes ${placeholder} ${written} times${which}; give pictures only in messages for which the template has a place, such as the user's`;
}
