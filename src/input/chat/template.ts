/**
 * A model folder's chat template, wherever transformers 4.43 to 5.24 writes it. The processor's places come before the tokenizer's, and
 * within each the order is that of transformers: processor_config.json, chat_template.json, chat_template.jinja, tokenizer_config.json.
 */

import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { parseConfig } from '../../files/config.ts';
import { type Json, readJson } from '../../files/json.ts';
import { anyObject, readJsonAs } from '../../files/schema.ts';
import { readText } from '../../files/text.ts';

/** A template in Jinja, and the variables that it may use beside the messages. */
export interface ChatTemplate {
  readonly source: string;
  /** the file that it was read from, or the family that it belongs to, for messages */
  readonly origin: string;
  /** special tokens by their names in tokenizer_config.json, such as `bos_token` */
  readonly tokens: Readonly<Record<string, string>>;
}

/** Published templates have a few thousand characters. */
const MAX_TEMPLATE = 2 ** 20;
const EXTRA = 'additional_chat_templates';

const named = z.array(z.looseObject({ name: z.string(), template: z.string() }), 'expected a template, or a list of named ones');
const templates = z.union([z.string(), named, z.record(z.string(), z.string())], 'expected a template, or named ones').nullish();
const withTemplate = z.looseObject({ chat_template: templates });
type Templates = z.output<typeof templates>;

/**
 * @param tokenizerDir where the tokenizer lies, if not there
 * @throws Error when the folder has templates and none of them is the default one
 */
export function readChatTemplate(dir: string, tokenizerDir = dir): ChatTemplate | undefined {
  for (const read of [
    inJson('processor_config.json'),
    inJson('chat_template.json'),
    jinjaFile,
    inJson('tokenizer_config.json'),
  ]) {
    const found = read(dir);
    if (found === undefined) continue;
    const { origin, given } = found;
    const source = defaultOf(given, origin);
    if (source.length > MAX_TEMPLATE)
      throw new Error(`${origin}: the chat template has ${source.length} characters; at most ${MAX_TEMPLATE} are read`);
    return { source, origin, tokens: specialTokens(tokenizerDir) };
  }
  return undefined;
}

interface Found {
  origin: string;
  given: NonNullable<Templates>;
}

const inJson =
  (name: string) =>
  (dir: string): Found | undefined => {
    const origin = join(dir, name);
    if (!existsSync(origin)) return undefined;
    const given = parseConfig(origin, withTemplate, readJson(origin)).chat_template;
    return given == null ? undefined : { origin, given };
  };

/** chat_template.jinja is the default template; the others have files of their own. */
function jinjaFile(dir: string): Found | undefined {
  const origin = join(dir, 'chat_template.jinja');
  if (existsSync(origin)) return { origin, given: readText(origin, 4 * MAX_TEMPLATE) };
  const folder = join(dir, EXTRA);
  if (!existsSync(folder)) return undefined;
  const files = readdirSync(folder).filter((name) => name.endsWith('.jinja'));
  return files.length === 0
    ? undefined
    : { origin: folder, given: files.map((name) => ({ name: basename(name, '.jinja'), template: '' })) };
}

function defaultOf(given: NonNullable<Templates>, origin: string): string {
  if (typeof given === 'string') return given;
  const all = new Map(Array.isArray(given) ? given.map(({ name, template }) => [name, template]) : Object.entries(given));
  const source = all.get('default');
  if (source !== undefined) return source;
  const names = [...all.keys()].join(', ');
  throw new Error(
    `${origin} has chat templates named ${names}, and none named default; write the one to use to chat_template.jinja in this folder`,
  );
}

/** The special tokens that the tokenizer names, as the template's variables. */
export function specialTokens(dir: string): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const name of ['special_tokens_map.json', 'tokenizer_config.json']) {
    const path = join(dir, name);
    if (!existsSync(path)) continue;
    for (const [key, value] of Object.entries(readJsonAs(path, anyObject) as { [key: string]: Json })) {
      const text = typeof value === 'object' && value !== null && !Array.isArray(value) ? value.content : value;
      if (key.endsWith('_token') && typeof text === 'string') tokens[key] = text;
    }
  }
  return tokens;
}
