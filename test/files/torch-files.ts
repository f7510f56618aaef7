/** Writes the files that tests of the torch reader need: pickles operation by operation, zip archives, and what torch.save makes of tensors. */

const u8 = (n: number): Buffer => Buffer.from([n]);
const u16 = (n: number): Buffer => {
  const b = Buffer.alloc(2);
  b.writeUInt16LE(n);
  return b;
};
const u32 = (n: number): Buffer => {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(n);
  return b;
};
const u64 = (n: number): Buffer => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(BigInt(n));
  return b;
};

/** Pickle operations by pickletools' names. */
export const op = {
  proto: (n = 2) => Buffer.from([0x80, n]),
  stop: Buffer.from('.'),
  mark: Buffer.from('('),
  none: Buffer.from('N'),
  false: u8(0x89),
  int: (n: number) => Buffer.concat([Buffer.from('J'), u32(n)]),
  text: (s: string) => Buffer.concat([Buffer.from('X'), u32(Buffer.byteLength(s)), Buffer.from(s)]),
  shortText: (s: string) => Buffer.concat([u8(0x8c), u8(Buffer.byteLength(s)), Buffer.from(s)]),
  global: (module: string, name: string) => Buffer.from(`c${module}\n${name}\n`),
  stackGlobal: (module: string, name: string) => Buffer.concat([op.shortText(module), op.shortText(name), u8(0x93)]),
  emptyTuple: Buffer.from(')'),
  tuple: (...items: Buffer[]) => Buffer.concat([op.mark, ...items, Buffer.from('t')]),
  emptyList: Buffer.from(']'),
  append: Buffer.from('a'),
  emptyDict: Buffer.from('}'),
  dict: (entries: Record<string, Buffer>) =>
    Buffer.concat([op.emptyDict, op.mark, ...Object.entries(entries).flatMap(([k, v]) => [op.text(k), v]), Buffer.from('u')]),
  reduce: Buffer.from('R'),
  build: Buffer.from('b'),
  put: (n: number) => Buffer.concat([Buffer.from('r'), u32(n)]),
  get: (n: number) => Buffer.concat([Buffer.from('j'), u32(n)]),
  persistent: Buffer.from('Q'),
};

export const pickle = (...parts: Buffer[]): Buffer => Buffer.concat([op.proto(), ...parts, op.stop]);

export interface TensorSpec {
  /** torch's storage: `HalfStorage` and so on */
  storage?: string;
  /** name of the data entry */
  key: string;
  /** elements of the storage */
  count: number;
  shape: readonly number[];
  strides?: readonly number[];
  offset?: number;
  parameter?: boolean;
}

/** A tensor as torch.save writes it. */
export function tensorOp({
  storage = 'FloatStorage',
  key,
  count,
  shape,
  strides,
  offset = 0,
  parameter = false,
}: TensorSpec): Buffer {
  const rowMajor = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  const numbers = (list: readonly number[]): Buffer => op.tuple(...list.map(op.int));
  const reference = Buffer.concat([
    op.tuple(op.text('storage'), op.global('torch', storage), op.text(key), op.text('cpu'), op.int(count)),
    op.persistent,
  ]);
  const hooks = Buffer.concat([op.global('collections', 'OrderedDict'), op.emptyTuple, op.reduce]);
  const tensor = Buffer.concat([
    op.global('torch._utils', '_rebuild_tensor_v2'),
    op.tuple(reference, op.int(offset), numbers(shape), numbers(strides ?? rowMajor), op.false, hooks),
    op.reduce,
  ]);
  if (!parameter) return tensor;
  return Buffer.concat([op.global('torch._utils', '_rebuild_parameter'), op.tuple(tensor, op.false, hooks), op.reduce]);
}

export interface ZipSpec {
  name: string;
  data: Buffer;
  /** what the table of contents says instead of the truth */
  method?: number;
  flags?: number;
  size?: number;
  localName?: string;
  /** offset of the header in the file */
  header?: number;
}

/** A zip archive of stored entries, data at multiples of 64 bytes, as torch writes it. */
export function zipOf(entries: readonly ZipSpec[]): Buffer {
  const parts: Buffer[] = [];
  const central: Buffer[] = [];
  let at = 0;
  for (const e of entries) {
    const local = Buffer.from(e.localName ?? e.name);
    const padding = (64 - ((at + 30 + local.length + 4) % 64)) % 64;
    const extra = Buffer.concat([Buffer.from('FB'), u16(padding), Buffer.alloc(padding, 'Z')]);
    const header = [
      u32(0x04034b50),
      u16(0),
      u16(0),
      u16(0),
      u32(0),
      u32(0),
      u32(e.data.length),
      u32(e.data.length),
      u16(local.length),
      u16(extra.length),
    ];
    parts.push(...header, local, extra, e.data);
    const name = Buffer.from(e.name);
    const fields = [
      u32(0x02014b50),
      u16(0),
      u16(0),
      u16(e.flags ?? 0),
      u16(e.method ?? 0),
      u32(0),
      u32(0),
      u32(e.size ?? e.data.length),
      u32(e.size ?? e.data.length),
    ];
    central.push(...fields, u16(name.length), u16(0), u16(0), u16(0), u16(0), u32(0), u32(e.header ?? at), name);
    at = parts.reduce((n, p) => n + p.length, 0);
  }
  const directory = Buffer.concat(central);
  const end = [u32(0x06054b50), u16(0), u16(0), u16(entries.length), u16(entries.length), u32(directory.length), u32(at), u16(0)];
  return Buffer.concat([...parts, directory, ...end]);
}

/** The end of an archive with zip64 records, for a table of contents at an offset beyond 4 GB. */
export function zip64End(entries: readonly { name: string; header: number; bytes: number }[], at: number): Buffer {
  const directory = Buffer.concat(
    entries.flatMap(({ name, header, bytes }) => {
      const extra = Buffer.concat([u16(1), u16(24), u64(bytes), u64(bytes), u64(header)]);
      const full = u32(0xffffffff);
      const fields = [u32(0x02014b50), u16(0), u16(0), u16(0), u16(0), u32(0), u32(0), full, full];
      return [...fields, u16(name.length), u16(extra.length), u16(0), u16(0), u16(0), u32(0), full, Buffer.from(name), extra];
    }),
  );
  const n = u64(entries.length);
  const record = [u32(0x06064b50), u64(44), u16(0), u16(0), u32(0), u32(0), n, n, u64(directory.length), u64(at)];
  const locator = [u32(0x07064b50), u32(0), u64(at + directory.length), u32(1)];
  const end = [u32(0x06054b50), u16(0), u16(0), u16(0xffff), u16(0xffff), u32(0xffffffff), u32(0xffffffff), u16(0)];
  return Buffer.concat([directory, ...record, ...locator, ...end]);
}

/** A local header of a stored entry without padding. */
export const localHeader = (name: string): Buffer =>
  Buffer.concat([u32(0x04034b50), Buffer.alloc(22), u16(name.length), u16(0), Buffer.from(name)]);

export interface StoredTensor {
  storage: string;
  shape: readonly number[];
  data: Uint8Array;
  count: number;
}

/** A torch file of contiguous tensors, below `under` when given. */
export function torchFile(tensors: Readonly<Record<string, StoredTensor>>, under?: string): Buffer {
  const list = Object.entries(tensors);
  const dict = op.dict(Object.fromEntries(list.map(([name, t], i) => [name, tensorOp({ ...t, key: String(i) })])));
  return archive(
    pickle(under === undefined ? dict : op.dict({ [under]: dict, epoch: op.int(3) })),
    Object.fromEntries(list.map(([, t], i) => [String(i), Buffer.from(t.data)])),
  );
}

/** A torch file around any pickle and data entries. */
export function archive(dataPkl: Buffer, data: Readonly<Record<string, Buffer>> = {}, more: readonly ZipSpec[] = []): Buffer {
  return zipOf([
    { name: 'archive/data.pkl', data: dataPkl },
    ...Object.entries(data).map(([key, bytes]) => ({ name: `archive/data/${key}`, data: bytes })),
    { name: 'archive/version', data: Buffer.from('3\n') },
    ...more,
  ]);
}

export const floats = (...values: number[]): Buffer => Buffer.from(Float32Array.from(values).buffer);
