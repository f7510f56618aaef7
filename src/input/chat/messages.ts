/**
 * Conversations in JSON: a list of `{role, content}`, or that list under `messages`. Content is a text or a list of parts: `{type: "text",
 * text}`; `{type: "image"}` with the picture's file (or data URL) as `image`, `path` or `url`, or without, for a picture that is given
 * beside the file; `{type: "image_url", image_url: {url}}`.
 */

import { isAbsolute, join } from 'node:path';
import { z } from 'zod';
import { parseConfig } from '../../files/config.ts';
import { decodeImage } from '../image/decode.ts';
import type { RgbImage } from '../segments.ts';
import type { Message, Part } from './chat.ts';

const place = z.string('expected the name of a file').min(1, 'expected the name of a file').nullish();
const part = z.discriminatedUnion(
  'type',
  [
    z.looseObject({ type: z.literal('text'), text: z.string('expected a text') }),
    z.looseObject({ type: z.literal('image'), image: place, path: place, url: place }),
    z.looseObject({ type: z.literal('image_url'), image_url: z.union([z.looseObject({ url: z.string() }), z.string()]) }),
  ],
  'expected a part of type text, image or image_url',
);
const message = z.looseObject({
  role: z.string('expected system, user or assistant').min(1, 'expected system, user or assistant'),
  content: z.union([z.string(), z.array(part)], 'expected a text, or a list of parts of type text, image or image_url'),
});
const messages = z.array(message, 'expected a list of messages').min(1, 'expected at least one message');
/**
 * @param origin the file, for messages
 * @param folder names of picture files are read from there
 * @param given pictures for the parts that name no file, in their order
 * @throws Error that names the field, the message or the picture that does not fit
 */
export async function parseMessages(
  json: unknown,
  { origin, folder, given = [] }: { origin: string; folder: string; given?: readonly RgbImage[] },
): Promise<Message<RgbImage>[]> {
  let used = 0;
  const conversation: Message<RgbImage>[] = [];
  for (const [m, { role, content }] of parseConfig(origin, messages, listOf(json)).entries()) {
    if (typeof content === 'string') {
      conversation.push({ role, content });
      continue;
    }
    const parts: Part<RgbImage>[] = [];
    for (const one of content) {
      if (one.type === 'text') {
        parts.push({ text: one.text });
        continue;
      }
      const source = one.type === 'image' ? (one.image ?? one.path ?? one.url) : urlOf(one.image_url);
      const picture = source == null ? given[used++] : await readPicture(source, folder, `${origin}: message ${m + 1}`);
      if (picture === undefined)
        throw new Error(
          `${origin}: message ${m + 1} has picture ${used} of those that name no file, but ${given.length} are given beside the messages`,
        );
      parts.push({ picture });
    }
    conversation.push({ role, content: parts });
  }
  if (used < given.length)
    throw new Error(
      `${given.length} pictures are given beside the messages, but ${origin} has ${used} parts {"type": "image"} that name no file; add one where each picture belongs`,
    );
  return conversation;
}

const listOf = (json: unknown): unknown =>
  typeof json === 'object' && json !== null && 'messages' in json ? json.messages : json;

const urlOf = (given: string | { url: string }): string => (typeof given === 'string' ? given : given.url);

async function readPicture(source: string, folder: string, where: string): Promise<RgbImage> {
  try {
    if (/^data:/i.test(source)) return await decodeImage(new Uint8Array(await (await fetch(source)).arrayBuffer()));
    if (/^[a-z][a-z0-9+.-]+:\/\//i.test(source))
      throw new Error(`${source.slice(0, 200)} is an address; save the picture and name its file`);
    return await decodeImage(isAbsolute(source) ? source : join(folder, source));
  } catch (error) {
    const cause = error as Error;
    const message = cause.message === 'fetch failed' ? 'the data URL cannot be read' : cause.message;
    throw new Error(`${where}: ${message}`, { cause });
  }
}
