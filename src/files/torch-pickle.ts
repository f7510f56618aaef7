/**
 * Files that torch.save writes (torch 1.6 and later: a zip archive with `data.pkl` and one entry per storage). Tensors come out, nothing
 * else, and nothing is executed. Data stays where it lies: a contiguous tensor is a range of the file, as in a safetensors file, so
 * that its weights are bound without copying; a transposed or sliced one is gathered when it is read.
 */
import type { Stats } from 'node:fs';
import { sizeOf } from '../graph/dtype.ts';
import { type Allowed, isKind, MAX_PICKLE, type PickleDict, type Pickled, unpickle } from './pickle.ts';
import { type FileDType, type SafetensorsEntry, SafetensorsFile } from './safetensors.ts';
import { openZip, storedEntry, withRanges, type ZipFile } from './zip.ts';

const MAX_RANK = 16;

/** Element types by torch's storages. */
const storages: ReadonlyMap<string, readonly [FileDType, number]> = new Map([
  ['torch.DoubleStorage', ['F64', 8]],
  ['torch.FloatStorage', ['F32', 4]],
  ['torch.HalfStorage', ['F16', 2]],
  ['torch.BFloat16Storage', ['BF16', 2]],
  ['torch.LongStorage', ['I64', 8]],
  ['torch.IntStorage', ['I32', 4]],
  ['torch.ShortStorage', ['I16', 2]],
  ['torch.CharStorage', ['I8', 1]],
  ['torch.ByteStorage', ['U8', 1]],
  ['torch.BoolStorage', ['BOOL', 1]],
]);

const REBUILD_TENSOR = 'torch._utils._rebuild_tensor_v2';
const REBUILD_PARAMETER = 'torch._utils._rebuild_parameter';
const allowed: Allowed = {
  types: new Set(storages.keys()),
  calls: new Set([REBUILD_TENSOR, REBUILD_PARAMETER]),
  dicts: new Set(['collections.OrderedDict']),
};

/** A tensor of a torch file; `strides` (in elements) where its elements do not lie one after the other. */
export interface TorchEntry extends SafetensorsEntry {
  readonly strides?: readonly number[];
  /** bytes per element */
  readonly width: number;
}

/** The tensors of one dictionary of a torch file, read like those of a safetensors file. */
export class TorchFile extends SafetensorsFile {
  constructor(
    path: string,
    stats: Stats,
    readonly torchEntries: ReadonlyMap<string, TorchEntry>,
  ) {
    super(path, stats.size, {}, torchEntries, stats);
  }

  override readBytes(entry: SafetensorsEntry, from = 0, length = entry.bytes - from): Uint8Array<ArrayBuffer> {
    const { strides, width } = entry as TorchEntry;
    if (strides === undefined) return super.readBytes(entry, from, length);
    const last = entry.shape.reduce((sum, n, i) => sum + (n - 1) * strides[i]!, 0);
    const span = super.readBytes({ ...entry, bytes: (last + 1) * width }, 0);
    return gathered(span, entry.shape, strides, width).slice(from, from + length);
  }
}

/** Whether the elements lie in the file one after the other, in order. */
export function isContiguous(entry: SafetensorsEntry): boolean {
  return (entry as Partial<TorchEntry>).strides === undefined;
}

/**
 * Opens a torch file and checks every tensor of one dictionary.
 * @param under key of the dictionary at the top of the file; without it the top itself
 */
export function openTorch(path: string, under?: string): TorchFile {
  refuseOtherFormats(path);
  const zip = openZip(path);
  const pickles = [...zip.entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickles.length !== 1)
    throw new Error(`${path} is a zip archive, but not a torch file: ${pickles.length} entries are named */data.pkl`);
  const pickle = pickles[0]!;
  const root = pickle.slice(0, -'data.pkl'.length);
  if (zip.entries.has(`${root}constants.pkl`))
    throw new Error(`${path} is a TorchScript program, not a file of tensors; save its state_dict instead`);
  const text = (name: string): Buffer => {
    const { begin, bytes } = storedEntry(zip, name)!;
    if (bytes > MAX_PICKLE) throw new Error(`${path}: ${name} has ${bytes} bytes, at most ${MAX_PICKLE} are allowed`);
    return withRanges(path, (file) => file.read(begin, bytes, name));
  };
  const byteOrder = `${root}byteorder`;
  if (zip.entries.has(byteOrder) && text(byteOrder).toString('latin1') !== 'little')
    throw new Error(`${path} was written on a big-endian machine; save it again on another one`);
  const top = unpickle(text(pickle), `${path}: ${pickle}`, allowed);
  return new TorchFile(path, zip.stats, tensorsOf(dictionary(top, path, under), zip, `${root}data/`));
}

function dictionary(top: Pickled, path: string, under: string | undefined): PickleDict {
  if (!isKind(top, 'dict')) throw new Error(`${path} does not hold a dictionary of tensors`);
  const chosen = under === undefined ? top : top.entries.get(under);
  const keys = [...top.entries.keys()].slice(0, 5).map((key) => JSON.stringify(typeof key === 'string' ? key.slice(0, 60) : '?'));
  if (!isKind(chosen, 'dict'))
    throw new Error(`${path} has no dictionary of tensors under ${JSON.stringify(under)}; at its top are ${keys.join(', ')}`);
  if (![...chosen.entries.values()].some((value) => isKind(value, 'call'))) {
    throw new Error(
      `${path} has no tensors ${under === undefined ? 'at its top' : `under ${JSON.stringify(under)}`}; at its top are ${keys.join(', ')}`,
    );
  }
  return chosen;
}

/** The tensors of a dictionary; what else it holds is left out. */
function tensorsOf(dict: PickleDict, zip: ZipFile, folder: string): Map<string, TorchEntry> {
  const entries = new Map<string, TorchEntry>();
  for (const [name, value] of dict.entries) {
    if (typeof name !== 'string' || !isKind(value, 'call')) continue;
    // A parameter is its tensor.
    const inner = value.name === REBUILD_PARAMETER ? value.args[0] : value;
    if (!isKind(inner, 'call') || inner.name !== REBUILD_TENSOR)
      throw new Error(`${zip.path}: ${JSON.stringify(name)} is not a tensor`);
    entries.set(name, tensor(name, inner.args, zip, folder));
  }
  return entries;
}

function tensor(name: string, args: readonly Pickled[], zip: ZipFile, folder: string): TorchEntry {
  const fail = (what: string): never => {
    throw new Error(`${zip.path}: tensor ${JSON.stringify(name.slice(0, 200))}: ${what}`);
  };
  const [storage, offset, size, stride] = args;
  if (!isKind(storage, 'reference') || !isKind(size, 'tuple') || !isKind(stride, 'tuple'))
    return fail('it is not described as torch does');
  const [tag, type, key, , count] = storage.items;
  const kind = isKind(type, 'global') ? storages.get(type.name) : undefined;
  if (tag !== 'storage' || kind === undefined || typeof key !== 'string' || !isCount(count))
    return fail('its storage is not described as torch does');
  const [dtype, width] = kind;
  const shape = size.items;
  const strides = stride.items;
  if (
    !isCount(offset) ||
    shape.length > MAX_RANK ||
    shape.length !== strides.length ||
    !shape.every(isCount) ||
    !strides.every(isCount)
  )
    return fail('its offset, shape and strides must be whole numbers');
  const elements = sizeOf(shape);
  // Also refuses tensors that show one element many times: they would grow without bound.
  if (elements > count) return fail(`[${shape.join(', ')}] has more elements than its storage (${count})`);
  const last = elements === 0 ? -1 : shape.reduce((sum, n, i) => sum + (n - 1) * strides[i]!, 0);
  if (offset + last >= count && elements > 0) return fail(`it reaches element ${offset + last}, its storage has ${count}`);
  const entry = storedEntry(zip, folder + key);
  if (entry === undefined) return fail(`its data ${JSON.stringify(folder + key)} is missing`);
  if (entry.bytes !== count * width)
    return fail(`${count} elements of ${dtype} take ${count * width} bytes, its data has ${entry.bytes}`);
  const place = { name, dtype, shape, begin: entry.begin + offset * width, bytes: elements * width, width };
  return elements === 0 || inOrder(shape, strides) ? place : { ...place, strides };
}

/** Row-major without gaps; an axis of one element may have any stride. */
function inOrder(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expected) return false;
    expected *= shape[i]!;
  }
  return true;
}

/** Elements of a strided view, in order. */
function gathered(
  data: Uint8Array,
  shape: readonly number[],
  strides: readonly number[],
  width: number,
): Uint8Array<ArrayBuffer> {
  const total = sizeOf(shape);
  const out = new Uint8Array(total * width);
  const index = shape.map(() => 0);
  let from = 0;
  for (let n = 0; n < total; n++) {
    for (let b = 0; b < width; b++) out[n * width + b] = data[from * width + b]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      from -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}

const isCount = (value: Pickled | undefined): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** Says what a file is that does not begin as a zip archive. */
function refuseOtherFormats(path: string): void {
  const head = withRanges(path, (file) => file.read(0, Math.min(64, file.size), 'its beginning'));
  if (head.length >= 4 && head.readUInt32LE(0) === 0x04034b50) return;
  const resave = 'open it in Python with torch.load and write it with torch.save (torch 1.6 or later)';
  // torch's old format: a pickled magic number first.
  if (head.length > 14 && head.subarray(0, 14).equals(Buffer.from('80028a0a6cfc9c46f9206aa85019', 'hex')))
    throw new Error(`${path} is in torch's legacy format (before torch 1.6), which is not read; ${resave}`);
  const start = head.toString('latin1');
  if (head.length === 0) throw new Error(`${path} is empty`);
  if (start.startsWith('version https://git-lfs'))
    throw new Error(`${path} is a Git LFS pointer, not the file itself; fetch it with git lfs pull`);
  if (/^\s*<(!doctype|html|\?xml)/i.test(start)) throw new Error(`${path} is a web page, not a torch file; download it again`);
  if (head[0] === 0x80 && head[1]! <= 5)
    throw new Error(`${path} is a bare Python pickle, not a torch file, and is not read; ${resave}`);
  throw new Error(`${path} is not a torch file: it does not begin as a zip archive`);
}
