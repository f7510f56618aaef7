/** tokenizer.json through @huggingface/tokenizers, framed and cleaned up as transformers' fast tokenizers do it. */
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { z } from 'zod';
import { parseConfig, readJsonAs } from '../../files/schema.ts';
import { bytesToText } from './sentencepiece.ts';
import type { Tokenizer } from './tokenizer.ts';
import type { TokenizerConfig } from './tokenizer-config.ts';

const tokenId = z.int('expected a token id').nonnegative('expected a token id');
const added = z.looseObject({ id: tokenId, content: z.string(), special: z.boolean().default(false) });
const step: z.ZodType<Step> = z.looseObject({
  type: z.string(),
  decoders: z.lazy(() => z.array(step)).optional(),
  processors: z.lazy(() => z.array(step)).optional(),
});
interface Step {
  type: string;
  decoders?: Step[] | undefined;
  processors?: Step[] | undefined;
  [key: string]: unknown;
}
const schema = z.looseObject({
  added_tokens: z.array(added).default([]),
  model: z.looseObject({ type: z.string().optional() }),
  normalizer: z.unknown().optional(),
  pre_tokenizer: z.unknown().optional(),
  post_processor: step.nullish(),
  decoder: step.nullish(),
});

export function fastTokenizer(dir: string, path: string, config: TokenizerConfig): Tokenizer {
  const file = readJsonAs(path, schema);
  // a token that only tokenizer_config.json lists is added, as transformers does
  for (const [id, token] of Object.entries(config.added_tokens_decoder)) {
    if (!file.added_tokens.some((known) => known.id === Number(id))) file.added_tokens.push({ ...token, id: Number(id) });
  }
  // The library checks little of what it is given, and finds out late.
  const usable = <T>(work: () => T): T => {
    try {
      return work();
    } catch (error) {
      throw new Error(`${path} cannot be used: ${(error as Error).message}`, { cause: error });
    }
  };
  const complete = { normalizer: null, pre_tokenizer: null, ...file, post_processor: null, decoder: file.decoder ?? null };
  const library = usable(() => new Library(complete, { ...config, additional_special_tokens: [] }));
  const idOf = (token: string | undefined) => (token === undefined ? undefined : library.token_to_id(token));
  const specials = [
    config.bos_token,
    config.eos_token,
    config.pad_token,
    config.unk_token,
    ...(config.additional_special_tokens ?? []),
  ];
  const specialIds = new Set(specials.map(idOf).filter((id) => id !== undefined));
  for (const token of file.added_tokens) if (token.special) specialIds.add(token.id);

  const [before, after] = frame(path, file.post_processor ?? undefined, config, idOf);
  const byteFallback = hasDecoder(file.decoder ?? undefined, 'ByteFallback');
  const byteLevel = hasDecoder(file.decoder ?? undefined, 'ByteLevel');
  const addedIds = new Set(file.added_tokens.map(({ id }) => id));
  const cleanUp = config.clean_up_tokenization_spaces ?? true;

  return {
    dir,
    specialIds,
    bosId: idOf(config.bos_token),
    eosId: idOf(config.eos_token),
    padId: idOf(config.pad_token),
    unkId: idOf(config.unk_token),
    idOf,
    tokenOf: (id) => library.id_to_token(id),
    bytesOf(id) {
      const token = addedIds.has(id) ? undefined : library.id_to_token(id);
      if (token === undefined) return undefined;
      if (byteLevel) return bytesOfLetters(token);
      const byte = byteFallback ? byteOf(token) : undefined;
      return byte === undefined ? undefined : Uint8Array.of(byte);
    },
    encode(text, { special = true } = {}) {
      const { ids, tokens } = usable(() => library.encode(text, { add_special_tokens: false }));
      const unknown = ids.findIndex((id: number) => !Number.isInteger(id));
      if (unknown >= 0)
        throw new Error(
          `${path} has no token for ${JSON.stringify(tokens[unknown])}: its unk_token is not in its vocabulary; use the file that was published with the model`,
        );
      return special ? [...before, ...ids, ...after] : ids;
    },
    decode(ids, { skipSpecial = true } = {}) {
      const kept = skipSpecial ? ids.filter((id) => !specialIds.has(id)) : ids;
      const tokens = kept.map((id) => library.id_to_token(id)).filter((token) => token !== undefined);
      if (tokens.length === 0) return '';
      const pieces = byteFallback ? fuseBytes(tokens) : tokens;
      const text = usable(() => (library.decoder ? library.decoder(pieces) : pieces.join(' ')));
      return cleanUp ? cleanUpSpaces(text) : text;
    },
  };
}

/**
 * The ids before and after a text. tokenizer.json's post-processor says so; LLaMA's fast tokenizer rebuilds it from
 * add_bos_token and add_eos_token, and a byte-level tokenizer without a template takes add_bos_token from its slow form.
 */
function frame(
  path: string,
  post: Step | undefined,
  config: TokenizerConfig,
  idOf: (token: string | undefined) => number | undefined,
): [number[], number[]] {
  const one = (token: string | undefined): number[] => [idOf(token)].filter((id) => id !== undefined);
  if (/^(Llama|CodeLlama)/.test(config.tokenizer_class ?? '')) {
    return [(config.add_bos_token ?? true) ? one(config.bos_token) : [], config.add_eos_token ? one(config.eos_token) : []];
  }
  for (const step of post?.type === 'Sequence' ? (post.processors ?? []) : post ? [post] : []) {
    if (step.type === 'TemplateProcessing') return templateFrame(path, step);
    if (step.type === 'BertProcessing' || step.type === 'RobertaProcessing') {
      const { cls, sep } = parseConfig(`${path} (post_processor)`, ends, step);
      return [cls ? [cls[1]] : [], sep ? [sep[1]] : []];
    }
  }
  return [config.add_bos_token ? one(config.bos_token) : [], config.add_eos_token ? one(config.eos_token) : []];
}

const ends = z.looseObject({ cls: z.tuple([z.string(), tokenId]).nullish(), sep: z.tuple([z.string(), tokenId]).nullish() });
const template = z.looseObject({
  single: z.array(z.union([z.object({ SpecialToken: z.looseObject({ id: z.string() }) }), z.object({ Sequence: z.unknown() })])),
  special_tokens: z.record(z.string(), z.looseObject({ ids: z.array(tokenId) })),
});

function templateFrame(path: string, step: Step): [number[], number[]] {
  const { single, special_tokens } = parseConfig(`${path} (post_processor)`, template, step);
  const ids: [number[], number[]] = [[], []];
  let side: 0 | 1 = 0;
  for (const part of single) {
    if ('Sequence' in part) side = 1;
    else ids[side].push(...(special_tokens[part.SpecialToken.id]?.ids ?? []));
  }
  return ids;
}

const hasDecoder = (decoder: Step | undefined, type: string): boolean =>
  decoder?.type === type || (decoder?.decoders ?? []).some((inner) => hasDecoder(inner, type));

/** Byte-level vocabularies write each byte as one letter: visible ones of Latin-1 as themselves, the others as U+0100 and on, in their order. */
const byteOfLetter = new Map<string, number>();
for (let byte = 0, hidden = 0; byte < 256; byte++) {
  const visible = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
  byteOfLetter.set(String.fromCharCode(visible ? byte : 0x100 + hidden++), byte);
}

function bytesOfLetters(token: string): Uint8Array | undefined {
  const bytes = [...token].map((letter) => byteOfLetter.get(letter));
  return bytes.includes(undefined) ? undefined : Uint8Array.from(bytes as number[]);
}

/** The byte of a token `<0x0A>`. */
function byteOf(token: string): number | undefined {
  const hex = /^<0x([0-9A-F]{2})>$/.exec(token)?.[1];
  return hex === undefined ? undefined : Number.parseInt(hex, 16);
}

/**
 * Runs of byte tokens as text. The Rust library turns a run that is not UTF-8 into one replacement character per byte;
 * the JavaScript one decodes it leniently, so this is done here, before its decoder sees the tokens.
 */
function fuseBytes(tokens: readonly string[]): string[] {
  const out: string[] = [];
  let bytes: number[] = [];
  const flush = (): void => {
    if (bytes.length === 0) return;
    const text = bytesToText(bytes);
    out.push(text.includes('\ufffd') ? '\ufffd'.repeat(bytes.length) : text);
    bytes = [];
  };
  for (const token of tokens) {
    const byte = byteOf(token);
    if (byte !== undefined) bytes.push(byte);
    else {
      flush();
      out.push(token);
    }
  }
  flush();
  return out;
}

/** transformers' clean_up_tokenization */
export function cleanUpSpaces(text: string): string {
  return text
    .replaceAll(' .', '.')
    .replaceAll(' ?', '?')
    .replaceAll(' !', '!')
    .replaceAll(' ,', ',')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}
