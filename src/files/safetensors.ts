/**
 * The safetensors format (https://github.com/huggingface/safetensors): an 8-byte header length, a JSON header
 * of names, element types, shapes and offsets, then the data. Headers are checked by the reference library's rules
 * before anything is allocated; data is read only when asked for.
 */
import { closeSync, fstatSync, openSync, readSync, type Stats } from 'node:fs';
import { bytesPerElement, type DType, sizeOf, type Tensor } from '../graph/dtype.ts';
import { writeFileAtomic } from './atomic.ts';
import { assertUnchanged, type FileState } from './changed.ts';
import { fromBfloat16, fromFloat16 } from './half.ts';
import { type StrictJson, strictJson } from './strict-json.ts';

export { assertFinite, toFloat16 } from './half.ts';

const MAX_HEADER = 100_000_000;
const METADATA = '__metadata__';
const CHUNK = 1024 * 1024 * 1024;

/** Bits per element of every element type a file may hold; those of `readable` become tensors. */
const bits = {
  F64: 64,
  F32: 32,
  F16: 16,
  BF16: 16,
  F8_E4M3: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2: 8,
  F8_E5M2FNUZ: 8,
  F8_E8M0: 8,
  F6_E2M3: 6,
  F6_E3M2: 6,
  F4: 4,
  C64: 64,
  I64: 64,
  I32: 32,
  I16: 16,
  I8: 8,
  U64: 64,
  U32: 32,
  U16: 16,
  U8: 8,
  BOOL: 8,
} as const;

export type FileDType = keyof typeof bits;

const readable: Partial<Record<FileDType, DType>> = {
  F32: 'float32',
  F16: 'float16',
  I64: 'int64',
  I32: 'int32',
  I8: 'int8',
  U8: 'uint8',
  BOOL: 'bool',
};

const writable: Record<DType, FileDType> = {
  float32: 'F32',
  float16: 'F16',
  int64: 'I64',
  int32: 'I32',
  int8: 'I8',
  uint8: 'U8',
  bool: 'BOOL',
};

/** Where one tensor lies: `begin` is the absolute offset in the file. */
export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: FileDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly bytes: number;
}

export interface ReadOptions {
  /** float32 converts every type; without it F16 stays half precision. BF16 and F64 always become float32. */
  as?: 'float32';
}

/** An opened file: its checked header, and reading by range. No file handle stays open. */
export class SafetensorsFile {
  constructor(
    readonly path: string,
    readonly size: number,
    readonly metadata: Readonly<Record<string, string>>,
    readonly entries: ReadonlyMap<string, SafetensorsEntry>,
    private readonly stats: FileState,
  ) {}

  /** For whoever maps the file, whose bytes may change under it. @throws FileChanged */
  readonly check = (): void => assertUnchanged(this.path, this.stats);

  names(): string[] {
    return [...this.entries.keys()];
  }

  has(name: string): boolean {
    return this.entries.has(name);
  }

  entry(name: string): SafetensorsEntry {
    const entry = this.entries.get(name);
    if (!entry) throw new Error(`${this.path} has no tensor ${name}; it has ${listed(this.names())}`);
    return entry;
  }

  /** The tensor's bytes as they lie in the file, or a part of them. */
  readBytes(entry: SafetensorsEntry, from = 0, length = entry.bytes - from): Uint8Array<ArrayBuffer> {
    if (from < 0 || length < 0 || from + length > entry.bytes)
      throw new Error(`${this.path}: ${entry.name}: range ${from}..${from + length} is outside its ${entry.bytes} bytes`);
    return withFile(this.path, (fd, stats) => {
      assertUnchanged(this.path, this.stats, stats);
      const bytes = new Uint8Array(length);
      readFully(fd, bytes, entry.begin + from, this.path);
      return bytes;
    });
  }

  readTensor(entry: SafetensorsEntry | string, options: ReadOptions & { as: 'float32' }): Tensor<'float32'>;
  readTensor(entry: SafetensorsEntry | string, options?: ReadOptions): Tensor;
  readTensor(which: SafetensorsEntry | string, options: ReadOptions = {}): Tensor {
    const entry = typeof which === 'string' ? this.entry(which) : which;
    const { buffer } = this.readBytes(entry);
    const { shape } = entry;
    const float = (data: Float32Array): Tensor<'float32'> => ({ dtype: 'float32', shape, data });
    if (entry.dtype === 'BF16') return float(fromBfloat16(new Uint16Array(buffer)));
    if (entry.dtype === 'F64') return float(Float32Array.from(new Float64Array(buffer)));
    const dtype = readable[entry.dtype];
    if (!dtype) {
      throw new Error(
        `${this.path}: ${entry.name} has element type ${entry.dtype}, which cannot be read here; convert it to one of ${Object.keys(readable).join(', ')}, BF16, F64`,
      );
    }
    const data = viewOf(dtype, buffer);
    if (options.as === 'float32' && dtype !== 'float32') {
      if (dtype === 'float16') return float(fromFloat16(data as Uint16Array));
      return float(data instanceof BigInt64Array ? Float32Array.from(data, Number) : Float32Array.from(data));
    }
    return { dtype, shape, data };
  }
}

/**
 * Opens a file and checks its whole header; data are read when they are asked for.
 * @throws Error that names the file when it is missing, cut off, or its header does not describe its bytes
 */
export function openSafetensors(path: string): SafetensorsFile {
  return withFile(path, (fd, stats) => {
    if (stats.size < 8)
      throw new Error(`${path} is not a safetensors file: it has ${stats.size} bytes, the header length alone takes 8`);
    const prefix = new Uint8Array(8);
    readFully(fd, prefix, 0, path);
    const length = new DataView(prefix.buffer).getBigUint64(0, true);
    if (length > MAX_HEADER)
      throw new Error(`${path} is not a safetensors file: header of ${length} bytes, at most ${MAX_HEADER} allowed`);
    const dataStart = 8 + Number(length);
    if (dataStart > stats.size)
      throw new Error(`${path} is cut off: header of ${length} bytes at offset 8, but the file ends at ${stats.size}`);
    const header = new Uint8Array(Number(length));
    readFully(fd, header, 8, path);
    const { metadata, entries } = parseHeader(path, header, dataStart, stats.size);
    return new SafetensorsFile(path, stats.size, metadata, entries, stats);
  });
}

function parseHeader(path: string, header: Uint8Array, dataStart: number, size: number) {
  const fail = (what: string): never => {
    throw new Error(`${path}: damaged header: ${what}`);
  };
  const parsed = parseStrict(header, fail);
  if (!(parsed instanceof Map)) return fail('an object of tensors is needed');
  const entries: SafetensorsEntry[] = [];
  for (const [name, value] of parsed) if (name !== METADATA) entries.push(parseEntry(name, value, dataStart, fail));
  // equal offsets only for empty tensors: sorting by end too keeps an empty tensor before the one that starts there
  entries.sort((a, b) => a.begin - b.begin || a.bytes - b.bytes);
  let end = dataStart;
  for (const entry of entries) {
    if (entry.begin !== end) {
      const problem = entry.begin < end ? 'overlaps the tensor before it' : 'leaves a hole before it';
      fail(`tensor ${entry.name} at offset ${entry.begin - dataStart} ${problem}, which ends at ${end - dataStart}`);
    }
    end += entry.bytes;
  }
  if (end > size) {
    const last = entries.at(-1)!;
    throw new Error(`${path} is cut off: it should have ${end} bytes (tensor ${last.name} is the last), but has ${size}`);
  }
  if (end < size) throw new Error(`${path}: damaged: ${size - end} bytes after the last tensor belong to none`);
  return {
    metadata: checkedMetadata(parsed.get(METADATA), fail),
    entries: new Map(entries.map((entry) => [entry.name, entry])),
  };
}

type Fail = (what: string) => never;

function parseStrict(header: Uint8Array, fail: Fail): StrictJson {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(header);
  } catch {
    return fail('it is not UTF-8 text');
  }
  try {
    return strictJson(text);
  } catch (error) {
    return fail(`it is not JSON as this format needs it: ${(error as Error).message}`);
  }
}

function checkedMetadata(value: StrictJson | undefined, fail: Fail): Record<string, string> {
  if (value === undefined || value === null) return {};
  if (!(value instanceof Map)) return fail(`${METADATA} must be an object of texts`);
  for (const [key, item] of value) if (typeof item !== 'string') fail(`${METADATA} ${JSON.stringify(key)} must be a text`);
  return Object.fromEntries(value as Map<string, string>);
}

/** As the reference's reader takes it: the three fields by name, or in this order as a list. */
const fields = ['dtype', 'shape', 'data_offsets'] as const;

function parseEntry(name: string, value: StrictJson, dataStart: number, fail: Fail): SafetensorsEntry {
  const given = Array.isArray(value) && value.length === 3 ? new Map(value.map((item, i) => [fields[i]!, item])) : value;
  if (!(given instanceof Map)) return fail(`tensor ${name}: an object with dtype, shape and data_offsets is needed`);
  const [named, shape, offsets] = fields.map((field) => given.get(field));
  const dtype = unitOf(named);
  if (typeof dtype !== 'string' || !Object.hasOwn(bits, dtype)) return fail(`tensor ${name}: unknown dtype ${shown(dtype)}`);
  if (!Array.isArray(shape) || !shape.every(isCount))
    return fail(`tensor ${name}: shape ${shown(shape)} must list whole numbers`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount))
    return fail(`tensor ${name}: data_offsets ${shown(offsets)} must be two whole numbers`);
  const [start, end] = offsets as [bigint, bigint];
  if (start > end) return fail(`tensor ${name}: it starts at offset ${start}, after its end ${end}`);
  const size = product([...shape, BigInt(bits[dtype as FileDType])]);
  if (size === undefined) return fail(`tensor ${name}: shape [${shape.join(', ')}] is too large`);
  if (size % 8n !== 0n) return fail(`tensor ${name}: shape [${shape.join(', ')}] of ${dtype} does not end with a whole byte`);
  if (size / 8n !== end - start)
    return fail(
      `tensor ${name}: shape [${shape.join(', ')}] of ${dtype} takes ${size / 8n} bytes, but offsets ${start}..${end} hold ${end - start}`,
    );
  return {
    name,
    dtype: dtype as FileDType,
    shape: shape.map(Number),
    begin: dataStart + Number(start),
    bytes: Number(end - start),
  };
}

/** A name may also be written `{"F32": null}`. */
function unitOf(value: StrictJson | undefined): StrictJson | undefined {
  if (!(value instanceof Map) || value.size !== 1) return value;
  const [[name, nothing]] = [...value] as [[string, StrictJson]];
  return nothing === null ? name : value;
}

/** The product, or undefined when a partial product does not fit 64 bits. */
function product(factors: readonly bigint[]): bigint | undefined {
  let result = 1n;
  for (const factor of factors) {
    result *= factor;
    if (result >= 2n ** 64n) return undefined;
  }
  return result;
}

const isCount = (value: StrictJson | undefined): value is bigint => typeof value === 'bigint' && value >= 0n;

/** A value of the header for a message. */
function shown(value: StrictJson | undefined): string {
  if (value instanceof Map) return 'an object';
  if (Array.isArray(value)) return `[${value.slice(0, 8).map(shown).join(', ')}${value.length > 8 ? ', ...' : ''}]`;
  return typeof value === 'bigint' ? String(value) : (JSON.stringify(value) ?? 'none');
}

/** A short list of names for a message. */
function listed(names: readonly string[]): string {
  const shown = names.slice(0, 5).join(', ');
  return names.length > 5 ? `${shown} and ${names.length - 5} more` : shown || 'none';
}

function viewOf(dtype: DType, buffer: ArrayBuffer): Tensor['data'] {
  switch (dtype) {
    case 'float32':
      return new Float32Array(buffer);
    case 'float16':
      return new Uint16Array(buffer);
    case 'int64':
      return new BigInt64Array(buffer);
    case 'int32':
      return new Int32Array(buffer);
    case 'int8':
      return new Int8Array(buffer);
    default:
      return new Uint8Array(buffer);
  }
}

function withFile<T>(path: string, use: (fd: number, stats: Stats) => T): T {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new Error(missing ? `${path} does not exist` : `cannot open ${path}: ${(error as Error).message}`, { cause: error });
  }
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile()) throw new Error(`${path} is not a file`);
    return use(fd, stats);
  } finally {
    closeSync(fd);
  }
}

function readFully(fd: number, into: Uint8Array, position: number, path: string): void {
  for (let done = 0; done < into.length; ) {
    const read = readSync(fd, into, done, Math.min(CHUNK, into.length - done), position + done);
    if (read === 0) throw new Error(`${path} ended at offset ${position + done} while it was being read`);
    done += read;
  }
}

/**
 * Writes a file in one atomic step. Tensors are ordered by element width, then name: aligned, and equal content gives equal bytes.
 * @throws Error when a tensor's shape and data do not agree
 */
export function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, Tensor> | Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>> = {},
): void {
  const list: [string, Tensor][] = tensors instanceof Map ? [...tensors] : Object.entries(tensors as Record<string, Tensor>);
  list.sort(([a, s], [b, t]) => bytesPerElement[t.dtype] - bytesPerElement[s.dtype] || (a < b ? -1 : 1));
  const header: [string, unknown][] = [];
  const kept = Object.entries(metadata).sort(([a], [b]) => (a < b ? -1 : 1));
  if (kept.length > 0) header.push(['__metadata__', Object.fromEntries(kept)]);
  let offset = 0;
  for (const [name, tensor] of list) {
    if (name === METADATA) throw new Error(`${path}: a tensor cannot be named ${METADATA}`);
    if (tensor.data.length !== sizeOf(tensor.shape))
      throw new Error(`${path}: ${name} has ${tensor.data.length} elements, but its shape is [${tensor.shape.join(', ')}]`);
    const end = offset + tensor.data.byteLength;
    header.push([name, { dtype: writable[tensor.dtype], shape: tensor.shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)), 'utf8');
  const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, ' ');
  padded.writeBigUInt64LE(BigInt(padded.length - 8), 0);
  json.copy(padded, 8);
  const data = list.map(([, { data }]) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  writeFileAtomic(path, [padded, ...data]);
}
