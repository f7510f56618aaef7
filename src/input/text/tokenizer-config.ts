/** What the small JSON files beside a tokenizer say: special tokens, added tokens, which of them frame a text. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { anyObject, parseConfig, readJsonAs } from '../../files/schema.ts';

const token = z
  .union([z.string(), z.looseObject({ content: z.string() })])
  .nullish()
  .transform((value) => (typeof value === 'string' ? value : value?.content) || undefined);

const addedToken = z.looseObject({
  content: z.string(),
  special: z.boolean().default(false),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
  single_word: z.boolean().default(false),
  normalized: z.boolean().optional(),
});

const schema = z.looseObject({
  tokenizer_class: z.string().nullish(),
  bos_token: token,
  eos_token: token,
  pad_token: token,
  unk_token: token,
  additional_special_tokens: z.array(token).nullish(),
  add_bos_token: z.boolean().nullish(),
  add_eos_token: z.boolean().nullish(),
  /** to transformers a missing value is true, and null is false */
  add_prefix_space: z.boolean().nullish(),
  /** transformers treats a missing value as true */
  legacy: z.boolean().nullish(),
  clean_up_tokenization_spaces: z.boolean().nullish(),
  added_tokens_decoder: z.record(z.string(), addedToken).default({}),
});

export type TokenizerConfig = z.output<typeof schema>;

/** tokenizer_config.json, completed from special_tokens_map.json; both may be missing. */
export function readTokenizerConfig(dir: string): TokenizerConfig {
  const path = join(dir, 'tokenizer_config.json');
  const map = join(dir, 'special_tokens_map.json');
  const fallback = existsSync(map) ? readJsonAs(map, anyObject) : {};
  const own = existsSync(path) ? readJsonAs(path, anyObject) : {};
  return parseConfig(existsSync(path) ? path : map, schema, {
    ...fallback,
    ...withoutNull(own),
    add_prefix_space: own.add_prefix_space,
  });
}

const withoutNull = (object: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== null));
