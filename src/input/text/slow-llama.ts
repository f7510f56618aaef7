/**
 * LLaMA's slow tokenizer (transformers 4.43, tokenization_llama.py): SentencePiece on every stretch of text between
 * added tokens. In the legacy form each stretch gets the leading space; in the other one only the start of the text.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { readJsonAs } from '../../files/schema.ts';
import { cleanUpSpaces } from './fast.ts';
import { openSentencePiece, SPACE } from './sentencepiece.ts';
import type { Tokenizer } from './tokenizer.ts';
import type { TokenizerConfig } from './tokenizer-config.ts';

export function slowLlamaTokenizer(dir: string, path: string, config: TokenizerConfig): Tokenizer {
  const model = openSentencePiece(path);
  const bos = config.bos_token ?? '<s>';
  const eos = config.eos_token ?? '</s>';
  const unk = config.unk_token ?? '<unk>';
  const legacy = config.legacy ?? true;
  const prefixSpace = config.add_prefix_space === undefined || config.add_prefix_space === true;

  const added = addedTokens(dir, config);
  for (const token of [unk, bos, eos]) {
    const id = model.idOf(token);
    if (id !== undefined && !added.has(token)) added.set(token, id);
  }
  const tokens = new Map([...added].map(([token, id]) => [id, token]));
  const idOf = (token: string) => added.get(token) ?? model.idOf(token);
  const tokenOf = (id: number) => tokens.get(id) ?? model.pieceOf(id);

  const named = [bos, eos, unk, config.pad_token, ...(config.additional_special_tokens ?? [])].filter(
    (token) => token !== undefined,
  );
  const special = new Set(named);
  for (const token of Object.values(config.added_tokens_decoder)) if (token.special) special.add(token.content);
  const specialIds = new Set([...special].map(idOf).filter((id) => id !== undefined));
  const before = (config.add_bos_token ?? true) ? [idOf(bos)].filter((id) => id !== undefined) : [];
  const after = config.add_eos_token ? [idOf(eos)].filter((id) => id !== undefined) : [];
  const splitter =
    added.size > 0
      ? new RegExp(
          `(${[...added.keys()]
            .sort((a, b) => b.length - a.length)
            .map(quoted)
            .join('|')})`,
        )
      : undefined;

  return {
    dir,
    specialIds,
    bosId: idOf(bos),
    eosId: idOf(eos),
    padId: config.pad_token === undefined ? undefined : idOf(config.pad_token),
    unkId: idOf(unk),
    idOf,
    tokenOf,
    bytesOf(id) {
      const byte = tokens.has(id) ? undefined : model.byteOf(id);
      return byte === undefined ? undefined : Uint8Array.of(byte);
    },
    encode(text, { special: framed = true } = {}) {
      const parts = splitter ? text.split(splitter) : [text];
      const ids = parts.flatMap((part, i) => {
        const id = i % 2 === 1 ? added.get(part) : undefined;
        return id === undefined ? model.encode(part, { dummyPrefix: legacy ? true : prefixSpace && i === 0 }) : [id];
      });
      return framed ? [...before, ...ids, ...after] : ids;
    },
    decode(ids, { skipSpecial = true } = {}) {
      const kept = skipSpecial ? ids.filter((id) => !specialIds.has(id)) : ids;
      const text = toText(kept.map(tokenOf).filter((token) => token !== undefined));
      return (config.clean_up_tokenization_spaces ?? false) ? cleanUpSpaces(text) : text;
    },
  };

  /** LlamaTokenizer.convert_tokens_to_string, with added tokens that are not special kept as they are */
  function toText(all: string[]): string {
    let out = '';
    let run: string[] = [];
    let afterSpecial = false;
    const flush = (): void => {
      out += model.decode(run);
      run = [];
    };
    all.forEach((token, i) => {
      if (special.has(token) || added.has(token)) {
        // The reference puts this space before the text that the token ends, not between the two.
        if (special.has(token) && !afterSpecial && i !== 0 && legacy) out += ' ';
        flush();
        out += token;
        afterSpecial = true;
      } else {
        if (afterSpecial && i === 1 && prefixSpace && !token.startsWith(SPACE)) out += ' ';
        run.push(i === 0 && prefixSpace && token.startsWith(SPACE) ? token.slice(1) : token);
        afterSpecial = false;
      }
    });
    flush();
    return out;
  }
}

/** Tokens beyond the SentencePiece model: added_tokens_decoder, or added_tokens.json in older folders. */
function addedTokens(dir: string, config: TokenizerConfig): Map<string, number> {
  const added = new Map<string, number>();
  const path = join(dir, 'added_tokens.json');
  if (existsSync(path)) {
    for (const [token, id] of Object.entries(readJsonAs(path, vocabulary))) added.set(token, id);
  }
  for (const [id, token] of Object.entries(config.added_tokens_decoder)) added.set(token.content, Number(id));
  return added;
}

const vocabulary = z.record(z.string(), z.int('expected a token id').nonnegative('expected a token id'));

const quoted = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
