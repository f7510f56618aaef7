/**
 * Text to token ids and back, as transformers 4.43 does it: `loadTokenizer` reads tokenizer.json (a "fast" tokenizer)
 * or tokenizer.model (LLaMA's "slow" one, which MiniGPT-4 uses), and honours tokenizer_config.json.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Recent } from '../../recent.ts';
import { fastTokenizer } from './fast.ts';
import { slowLlamaTokenizer } from './slow-llama.ts';
import { readTokenizerConfig } from './tokenizer-config.ts';

export interface Tokenizer {
  /** `special: false` leaves out the tokens that frame a text, such as the beginning-of-text token. */
  encode(text: string, options?: { special?: boolean }): number[];
  /** Special tokens are left out unless `skipSpecial` is false; ids outside the vocabulary give no text. */
  decode(ids: readonly number[], options?: { skipSpecial?: boolean }): string;
  idOf(token: string): number | undefined;
  tokenOf(id: number): string | undefined;
  /** UTF-8 bytes of a token of bytes, which may be a part of a character; undefined: `decode` says its whole text. */
  bytesOf(id: number): Uint8Array | undefined;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly padId: number | undefined;
  readonly unkId: number | undefined;
  readonly specialIds: ReadonlySet<number>;
  /** where it was read from, for messages */
  readonly dir: string;
}

/**
 * `slow` demands tokenizer.model: the reference implementation of MiniGPT-4 reads it with the slow tokenizer, which puts
 * a space before every piece of text. Without it tokenizer.json is taken, or tokenizer.model when that is missing.
 */
export function loadTokenizer(dir: string, { slow = false } = {}): Tokenizer {
  if (!existsSync(dir)) throw new Error(`${dir} does not exist; a folder with tokenizer.json or tokenizer.model is needed`);
  const fast = join(dir, 'tokenizer.json');
  const model = join(dir, 'tokenizer.model');
  const config = readTokenizerConfig(dir);
  if (!slow && existsSync(fast)) return remembering(fastTokenizer(dir, fast, config));
  if (existsSync(model)) return remembering(slowLlamaTokenizer(dir, model, config));
  const needed = slow ? 'tokenizer.model (the SentencePiece model)' : "tokenizer.json (or LLaMA's tokenizer.model)";
  throw new Error(`${dir} has no ${needed}; copy that file from the place where the model was published`);
}

/** Bytes of ids kept. */
const idBudget = 8e6;

/** A tokenizer that keeps the ids of the latest texts: a prompt is read alone and with each of its targets, before and after an edit. */
function remembering(tokenizer: Tokenizer): Tokenizer {
  const known = new Recent<readonly number[]>(idBudget, (ids) => 8 * ids.length);
  return {
    ...tokenizer,
    encode(text, { special = true } = {}) {
      const key = `${special ? 1 : 0}${text}`;
      let ids = known.get(key);
      if (ids === undefined) {
        ids = tokenizer.encode(text, { special });
        known.put(key, ids);
      }
      return [...ids];
    },
  };
}

/** The id of a token that a model cannot do without, such as the image placeholder. */
export function requireToken(tokenizer: Tokenizer, token: string): number {
  const id = tokenizer.idOf(token);
  if (id !== undefined) return id;
  throw new Error(
    `the tokenizer in ${tokenizer.dir} has no token ${token}, which the model needs; use the tokenizer files that were published with this model`,
  );
}
