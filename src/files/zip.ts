/**
 * The table of contents of a zip archive (PKWARE APPNOTE 6.3.9, with zip64). torch stores its entries without compression, so nothing is
 * unpacked: a stored entry is a range of the file, and a compressed one is refused when it is asked for.
 */
import { closeSync, fstatSync, openSync, readSync, type Stats } from 'node:fs';

const MAX_ENTRIES = 200_000;
const MAX_DIRECTORY = 64 * 1024 * 1024;
const END = 0x06054b50;
const END_BYTES = 22;
const MAX_COMMENT = 0xffff;
const END64 = 0x06064b50;
const END64_BYTES = 56;
const LOCATOR64 = 0x07064b50;
const LOCATOR64_BYTES = 20;
const CENTRAL = 0x02014b50;
const CENTRAL_BYTES = 46;
const LOCAL = 0x04034b50;
const LOCAL_BYTES = 30;
const ZIP64_EXTRA = 1;
const ENCRYPTED = 1;

/** An entry: the absolute range of its bytes in the file, packed when `method` is not 0. */
export interface ZipEntry {
  readonly name: string;
  readonly begin: number;
  readonly bytes: number;
  readonly method: number;
}

export interface ZipFile {
  readonly path: string;
  readonly stats: Stats;
  readonly entries: ReadonlyMap<string, ZipEntry>;
}

/** Reads ranges of one open file; every range is checked against its size. */
class Ranges {
  constructor(
    private readonly fd: number,
    readonly path: string,
    readonly size: number,
  ) {}

  read(offset: number, length: number, what: string): Buffer {
    if (offset < 0 || length < 0 || offset + length > this.size)
      throw new Error(
        `${this.path} is damaged or cut off: ${what} at offset ${offset} takes ${length} bytes, the file has ${this.size}`,
      );
    const into = Buffer.alloc(length);
    for (let done = 0; done < length; ) {
      const n = readSync(this.fd, into, done, length - done, offset + done);
      if (n === 0) throw new Error(`${this.path} ended at offset ${offset + done} while it was being read`);
      done += n;
    }
    return into;
  }
}

/** Runs `use` on an open file. */
export function withRanges<T>(path: string, use: (file: Ranges, stats: Stats) => T): T {
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
    return use(new Ranges(fd, path, stats.size), stats);
  } finally {
    closeSync(fd);
  }
}

/** A stored entry, or undefined when there is none of that name. */
export function storedEntry(zip: ZipFile, name: string): ZipEntry | undefined {
  const entry = zip.entries.get(name);
  if (entry === undefined || entry.method === 0) return entry;
  throw new Error(
    `${zip.path}: ${shown(name)} is compressed (method ${entry.method}); torch stores tensors as they are: write the file again with torch.save`,
  );
}

/** Reads and checks the whole table of contents; no two entries may share bytes. */
export function openZip(path: string): ZipFile {
  return withRanges(path, (file, stats) => {
    const { offset, bytes, count } = findDirectory(file);
    if (count > MAX_ENTRIES) throw new Error(`${path}: ${count} entries, at most ${MAX_ENTRIES} are allowed`);
    if (bytes > MAX_DIRECTORY)
      throw new Error(`${path}: a table of contents of ${bytes} bytes, at most ${MAX_DIRECTORY} are allowed`);
    const directory = file.read(offset, bytes, 'the table of contents');
    const entries = new Map<string, ZipEntry>();
    let at = 0;
    for (let i = 0; i < count; i++) {
      const { entry, next } = readEntry(file, directory, at, offset);
      if (entries.has(entry.name)) throw new Error(`${path}: the entry ${shown(entry.name)} occurs twice`);
      entries.set(entry.name, entry);
      at = next;
    }
    if (at !== bytes) throw new Error(`${path} is damaged: ${bytes - at} bytes of its table of contents belong to no entry`);
    refuseOverlap(path, [...entries.values()]);
    return { path, stats, entries };
  });
}

/** Where the table of contents lies, by the record at the end of the file. */
function findDirectory(file: Ranges): { offset: number; bytes: number; count: number } {
  const start = Math.max(0, file.size - END_BYTES - MAX_COMMENT);
  const tail = file.read(start, file.size - start, 'the end of the archive');
  let at = tail.length - END_BYTES;
  // The comment's length must lead exactly to the end of the file.
  while (at >= 0 && !(tail.readUInt32LE(at) === END && at + END_BYTES + tail.readUInt16LE(at + 20) === tail.length)) at--;
  if (at < 0)
    throw new Error(
      `${file.path} is damaged or cut off: it begins as a zip archive, but the record at its end is missing; copy it again`,
    );
  const end = start + at;
  let directory = { offset: tail.readUInt32LE(at + 16), bytes: tail.readUInt32LE(at + 12), count: tail.readUInt16LE(at + 10) };
  let after = end;
  const locator = end >= LOCATOR64_BYTES ? file.read(end - LOCATOR64_BYTES, LOCATOR64_BYTES, 'the zip64 locator') : undefined;
  // torch writes the zip64 record into small files too.
  if (locator?.readUInt32LE(0) === LOCATOR64) {
    after = whole(locator, 8, file.path);
    const record = file.read(after, END64_BYTES, 'the zip64 record');
    if (record.readUInt32LE(0) !== END64) throw new Error(`${file.path} is damaged: the zip64 record is missing`);
    directory = {
      offset: whole(record, 48, file.path),
      bytes: whole(record, 40, file.path),
      count: whole(record, 32, file.path),
    };
  }
  if (directory.offset + directory.bytes !== after)
    throw new Error(`${file.path} is damaged: its table of contents does not end where its end record begins`);
  return directory;
}

function readEntry(file: Ranges, directory: Buffer, at: number, limit: number): { entry: ZipEntry; next: number } {
  const { path } = file;
  if (at + CENTRAL_BYTES > directory.length || directory.readUInt32LE(at) !== CENTRAL)
    throw new Error(`${path} is damaged: no entry at offset ${at} of its table of contents`);
  const nameLength = directory.readUInt16LE(at + 28);
  const extraLength = directory.readUInt16LE(at + 30);
  const next = at + CENTRAL_BYTES + nameLength + extraLength + directory.readUInt16LE(at + 32);
  if (next > directory.length) throw new Error(`${path} is damaged: the table of contents is cut off at offset ${at}`);
  const rawName = directory.subarray(at + CENTRAL_BYTES, at + CENTRAL_BYTES + nameLength);
  const name = rawName.toString('utf8');
  const extra = directory.subarray(at + CENTRAL_BYTES + nameLength, at + CENTRAL_BYTES + nameLength + extraLength);
  let size = directory.readUInt32LE(at + 24);
  let packed = directory.readUInt32LE(at + 20);
  let header = directory.readUInt32LE(at + 42);
  const wide = zip64Extra(extra);
  let field = 0;
  const widen = (value: number): number => {
    if (value !== 0xffffffff) return value;
    if (wide === undefined || field + 8 > wide.length) throw new Error(`${path}: ${shown(name)} lacks its zip64 sizes`);
    field += 8;
    return whole(wide, field - 8, path);
  };
  size = widen(size);
  packed = widen(packed);
  header = widen(header);
  if (directory.readUInt16LE(at + 8) & ENCRYPTED) throw new Error(`${path}: ${shown(name)} is encrypted`);
  const method = directory.readUInt16LE(at + 10);
  if (method === 0 && packed !== size)
    throw new Error(`${path} is damaged: ${shown(name)} is stored, but has ${packed} bytes for ${size}`);
  const local = file.read(header, LOCAL_BYTES, `the header of ${shown(name)}`);
  if (local.readUInt32LE(0) !== LOCAL) throw new Error(`${path} is damaged: ${shown(name)} has no header at offset ${header}`);
  const localName = file.read(header + LOCAL_BYTES, local.readUInt16LE(26), `the name of ${shown(name)}`);
  if (!localName.equals(rawName))
    throw new Error(`${path} is damaged: ${shown(name)} is called ${shown(localName.toString('utf8'))} in its header`);
  const begin = header + LOCAL_BYTES + local.readUInt16LE(26) + local.readUInt16LE(28);
  if (begin + packed > limit)
    throw new Error(
      `${path} is damaged: ${shown(name)} ends at offset ${begin + packed}, after the ${limit} bytes before the table of contents`,
    );
  return { entry: { name, begin, bytes: packed, method }, next };
}

/** The zip64 field among an entry's extra fields. */
function zip64Extra(extra: Buffer): Buffer | undefined {
  for (let at = 0; at + 4 <= extra.length; ) {
    const length = extra.readUInt16LE(at + 2);
    if (extra.readUInt16LE(at) === ZIP64_EXTRA) return extra.subarray(at + 4, at + 4 + length);
    at += 4 + length;
  }
  return undefined;
}

/** Entries that share bytes are how small files pretend to be large ones. */
function refuseOverlap(path: string, entries: ZipEntry[]): void {
  entries.sort((a, b) => a.begin - b.begin || a.bytes - b.bytes);
  for (const [i, entry] of entries.entries()) {
    const before = entries[i - 1];
    if (before !== undefined && entry.begin < before.begin + before.bytes)
      throw new Error(`${path} is damaged: the entries ${shown(before.name)} and ${shown(entry.name)} share bytes`);
  }
}

function whole(buffer: Buffer, at: number, path: string): number {
  const value = buffer.readBigUInt64LE(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new Error(`${path} is damaged: a size of ${value} bytes`);
  return Number(value);
}

/** A name from a file, fit for a message. */
const shown = (name: string): string => JSON.stringify(name.length > 100 ? `${name.slice(0, 97)}...` : name);
