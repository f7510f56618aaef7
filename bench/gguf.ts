/** A GGUF file of a LLaMA with random Q4_0 matrices (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), for bench/llama.ts. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { toFloat16 } from '../src/files/half.ts';
import { Random } from '../src/random.ts';

export interface LlamaSizes {
  readonly hidden: number;
  readonly mlp: number;
  readonly layers: number;
  readonly heads: number;
  readonly vocabulary: number;
  readonly positions: number;
}

type Value =
  | number
  | string
  | { readonly float: number }
  | { readonly list: readonly (number | string)[]; readonly of: 5 | 6 | 8 };

/** Numbers of the format's types. */
const U32 = 4;
const F32 = 6;
const TEXT = 8;
const LIST = 9;
const FLOAT_TENSOR = 0;
const Q4_TENSOR = 2;
const ALIGNMENT = 32;

class Bytes {
  readonly #parts: Buffer[] = [];

  number(type: number, x: number): this {
    const part = Buffer.alloc(4);
    if (type === F32) part.writeFloatLE(x);
    else part.writeInt32LE(x);
    this.#parts.push(part);
    return this;
  }
  count(x: number): this {
    const part = Buffer.alloc(8);
    part.writeBigUInt64LE(BigInt(x));
    this.#parts.push(part);
    return this;
  }
  text(x: string): this {
    this.count(Buffer.byteLength(x));
    this.#parts.push(Buffer.from(x));
    return this;
  }
  entry(key: string, value: Value): this {
    this.text(key);
    if (typeof value === 'string') return this.number(U32, TEXT).text(value);
    if (typeof value === 'number') return this.number(U32, U32).number(U32, value);
    if ('float' in value) return this.number(U32, F32).number(F32, value.float);
    this.number(U32, LIST).number(U32, value.of).count(value.list.length);
    for (const x of value.list) typeof x === 'string' ? this.text(x) : this.number(value.of, x);
    return this;
  }
  get all(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

/** Blocks of 32 numbers: a scale in half precision, and 16 bytes. */
function randomBlocks(random: Random, count: number, scale: number): Buffer {
  const out = Buffer.alloc((count / 32) * 18);
  for (let i = 0; i + 4 <= out.length; i += 4) out.writeUInt32LE(random.int(2 ** 32), i);
  const [half] = toFloat16(Float32Array.of(scale));
  for (let block = 0; block < out.length; block += 18) out.writeUInt16LE(half!, block);
  return out;
}

export function writeRandomGguf(path: string, sizes: LlamaSizes): void {
  const { hidden, mlp, layers, heads, vocabulary, positions } = sizes;
  const tensors: [name: string, rows: number, columns: number][] = [
    ['token_embd.weight', vocabulary, hidden],
    ['output.weight', vocabulary, hidden],
    ['output_norm.weight', 1, hidden],
  ];
  for (let i = 0; i < layers; i++) {
    for (const name of ['attn_q', 'attn_k', 'attn_v', 'attn_output']) tensors.push([`blk.${i}.${name}.weight`, hidden, hidden]);
    tensors.push([`blk.${i}.ffn_gate.weight`, mlp, hidden], [`blk.${i}.ffn_up.weight`, mlp, hidden]);
    tensors.push([`blk.${i}.ffn_down.weight`, hidden, mlp]);
    tensors.push([`blk.${i}.attn_norm.weight`, 1, hidden], [`blk.${i}.ffn_norm.weight`, 1, hidden]);
  }
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`);
  const special = ['<unk>', '<s>', '</s>', ...bytes];
  const words = Array.from({ length: vocabulary }, (_, i) => special[i] ?? `▁word${i}`);
  const kinds = words.map((_, i) => (i === 0 ? 2 : i < 3 ? 3 : i < special.length ? 6 : 1));
  const about: Record<string, Value> = {
    'general.architecture': 'llama',
    'general.file_type': 2,
    'llama.block_count': layers,
    'llama.context_length': positions,
    'llama.embedding_length': hidden,
    'llama.feed_forward_length': mlp,
    'llama.attention.head_count': heads,
    'llama.attention.head_count_kv': heads,
    'llama.rope.dimension_count': hidden / heads,
    'llama.vocab_size': vocabulary,
    'llama.attention.layer_norm_rms_epsilon': { float: 1e-5 },
    'tokenizer.ggml.model': 'llama',
    'tokenizer.ggml.tokens': { list: words, of: 8 },
    'tokenizer.ggml.scores': { list: words.map((_, i) => -i), of: 6 },
    'tokenizer.ggml.token_type': { list: kinds, of: 5 },
    'tokenizer.ggml.bos_token_id': 1,
    'tokenizer.ggml.eos_token_id': 2,
  };
  const head = new Bytes().number(U32, 0x46554747).number(U32, 3).count(tensors.length).count(Object.keys(about).length);
  for (const [key, value] of Object.entries(about)) head.entry(key, value);
  let at = 0;
  const sizeOf = (rows: number, columns: number): number => (rows === 1 ? 4 * columns : ((rows * columns) / 32) * 18);
  const aligned = (x: number): number => Math.ceil(x / ALIGNMENT) * ALIGNMENT;
  for (const [name, rows, columns] of tensors) {
    head
      .text(name)
      .number(U32, rows === 1 ? 1 : 2)
      .count(columns);
    if (rows > 1) head.count(rows);
    head.number(U32, rows === 1 ? FLOAT_TENSOR : Q4_TENSOR).count(at);
    at = aligned(at + sizeOf(rows, columns));
  }
  const file = openSync(path, 'w');
  const put = (part: Buffer): void => {
    for (let done = 0; done < part.length; ) done += writeSync(file, part, done);
    writeSync(file, Buffer.alloc(aligned(part.length) - part.length));
  };
  const random = new Random('gguf');
  put(head.all);
  for (const [, rows, columns] of tensors)
    put(
      rows === 1
        ? Buffer.from(new Float32Array(columns).fill(1).buffer)
        : randomBlocks(random, rows * columns, columns ** -0.5 / 4.6),
    );
  closeSync(file);
}
