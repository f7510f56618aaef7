/**
 * How much memory a model takes, and by that how it is run. Private memory is what the process itself holds; weights that are mapped from disk are
 * read through the system's file cache, which gives way to others when memory gets short. The factors are measured (docs/benchmarks.md).
 */

/** Numbers of weights by how they are kept. */
export interface PartSize {
  /** in half precision or float32 on disk, mapped or widened */
  readonly floats: number;
  /** in blocks of whole numbers */
  readonly int8: number;
  readonly int4: number;
  /** bytes on disk of all of them */
  readonly bytes: number;
}

export const numbersOf = ({ floats, int8, int4 }: PartSize): number => floats + int8 + int4;

export interface ModelSize {
  readonly vision: PartSize;
  /** embeddings, layers and head */
  readonly decoder: PartSize;
  readonly layers: number;
  readonly hidden: number;
  /** width of the feed-forward part */
  readonly mlp: number;
  readonly heads: number;
  readonly keyWidth: number;
  readonly vocabulary: number;
  /** tokens of a usual input: the picture and a question */
  readonly tokens: number;
  /** numbers of the largest matrix that is kept as floats */
  readonly largest: number;
}

/**
 * whole: programs of all layers, weights widened to float32 or packed in each (fastest for small models);
 * layered: one program per layer that everything shares, whole numbers packed once, floats mapped from disk;
 * mapped: layered, and whole numbers stay on disk too (slowest)
 */
export const residencies = ['whole', 'layered', 'mapped'] as const;
export type Residency = (typeof residencies)[number];

export interface MemoryEstimate {
  readonly residency: Residency;
  /** bytes of private memory while one input is answered */
  readonly bytes: number;
  /** bytes of weights that are read from disk through the file cache */
  readonly mapped: number;
  /** bytes of private memory that each further input of a batch adds */
  readonly perInput: number;
  /** bytes that a training step keeps of one layer and one input until their gradient */
  readonly perTrained: number;
}

/** Node, the engine and this program. */
const BASE = 250e6;
/** A question and an edit open programs of the whole decoder: the prompt, one step, up to the insert layer and after it. */
const COPIES = 3;
/** Bytes of packed blocks: numbers, and per block of 32 a scale and what the product needs of it. */
const packed = ({ int4, int8 }: PartSize): number => int4 * (0.5 + 8 / 32) + int8 * (1 + 8 / 32);

/** Private bytes of one layer at work, and of what is kept of every layer, for one input. */
function workOf({ layers, hidden, mlp, heads, keyWidth, vocabulary, tokens }: ModelSize): number {
  const layer = 4 * tokens * (10 * hidden + 4 * mlp) + 3 * 4 * heads * tokens * tokens;
  // Keys and values of all layers: what went in, what comes out, and what is not yet collected.
  const past = 3 * 2 * 4 * layers * tokens * keyWidth;
  return layer + past + 4 * 4 * vocabulary;
}

/** What the gradient of one layer reads of one input: values between its modules, and the attention's probabilities with their sums. */
function trainedOf({ tokens, hidden, mlp, heads }: ModelSize): number {
  return 4 * tokens * (14 * hidden + 5 * mlp) + 2 * 4 * heads * tokens * tokens;
}

export function estimateMemory(size: ModelSize, residency: Residency): MemoryEstimate {
  const { vision, decoder } = size;
  const perInput = workOf(size);
  const perTrained = trainedOf(size);
  if (residency === 'whole') {
    const widened = (part: PartSize): number => 4 * part.floats + packed(part);
    return { residency, bytes: BASE + widened(vision) + COPIES * widened(decoder) + perInput, mapped: 0, perInput, perTrained };
  }
  const kept = residency === 'layered' ? packed(decoder) : 0;
  // One matrix at a time is widened, and one more while the former is given back.
  const bytes = BASE + kept + 2 * 4 * size.largest + perInput;
  const all = vision.bytes + decoder.bytes;
  const mapped = residency === 'mapped' || kept === 0 ? all : vision.bytes + 4 * decoder.floats;
  return { residency, bytes, mapped, perInput, perTrained };
}

/** Bytes that a model takes on a card, where all its programs hold the weights once, as they are stored. */
export const bytesOnCard = (size: ModelSize): number => BASE + size.vision.bytes + size.decoder.bytes + workOf(size) / 2;

/**
 * A model on a card.
 * @param budget bytes of the card's memory
 * @throws Error that says what would fit
 */
export function memoryOnCard(name: string, size: ModelSize, budget: number): MemoryEstimate {
  const { decoder } = size;
  const bytes = bytesOnCard(size);
  if (bytes > budget) {
    const shorter = decoder.floats > decoder.int4 + decoder.int8 ? '--dtype int4 takes less; or ' : '';
    throw new Error(
      `${name} needs about ${gigabytes(bytes)} of the card's memory, and ${gigabytes(budget)} may be used; ${shorter}run it on the processor: --device cpu`,
    );
  }
  return { residency: 'whole', bytes, mapped: 0, perInput: workOf(size) / 2, perTrained: trainedOf(size) / 2 };
}

/** Above this, programs of the whole decoder are no longer quick to open. */
const WHOLE = 3e9;

interface Way {
  /** the way that is asked for */
  given?: Residency | undefined;
  /** programs read many inputs at a time: packed whole numbers are not worth their memory */
  training?: boolean | undefined;
}

/** The fastest way to run a model within a budget, or the one that takes least where none fits. */
export function fastestWithin(size: ModelSize, budget: number, { given, training = false }: Way = {}): MemoryEstimate {
  const useful = residencies.filter((residency) => !(training && residency === 'layered'));
  const ways = (given === undefined ? useful : [given]).map((residency) => estimateMemory(size, residency));
  const fits = ways.find(
    ({ bytes, residency }) => bytes <= (given === undefined && residency === 'whole' ? Math.min(budget, WHOLE) : budget),
  );
  return fits ?? ways.reduce((least, way) => (way.bytes < least.bytes ? way : least));
}

/**
 * The fastest way to run a model within a budget.
 * @throws Error that says what would fit
 */
export function chooseResidency(name: string, size: ModelSize, budget: number, way: Way = {}): MemoryEstimate {
  const fastest = fastestWithin(size, budget, way);
  if (fastest.bytes <= budget) return fastest;
  const shorter = size.decoder.floats > size.decoder.int4 + size.decoder.int8 ? '; --dtype int4 takes less' : '';
  throw new Error(
    `${name} needs about ${gigabytes(fastest.bytes)} of memory, and ${gigabytes(budget)} may be used${shorter}. Close other programs, or raise --max-memory where it is lower than what the machine has`,
  );
}

/** What is smaller needs no look at what other programs leave free. */
const SMALL = 1e9;

/** @throws Error when a model needs more than is free now */
export function checkFree(name: string, { bytes }: MemoryEstimate, free: number): void {
  if (bytes <= Math.max(SMALL, free)) return;
  throw new Error(
    `${name} needs about ${gigabytes(bytes)} of memory, and ${gigabytes(free)} is free; close other programs, or give a lower --max-memory to have it run more slowly in less`,
  );
}

/** Of the inputs of one record, four, two share a picture. */
const INPUTS_OF_RECORD = 3.2;

/** Private bytes of a step that trains an editor through the layers above the one where it edits, for records whose gradients are computed at once. */
export const trainingBytes = ({ bytes, perTrained }: MemoryEstimate, layersAbove: number, records: number): number =>
  bytes + INPUTS_OF_RECORD * records * layersAbove * perTrained;

/** @throws Error when a training step needs more than may be used */
export function checkTraining(
  name: string,
  estimate: MemoryEstimate,
  { layersAbove, records, budget }: { layersAbove: number; records: number; budget: number },
): number {
  const bytes = trainingBytes(estimate, layersAbove, records);
  if (bytes <= Math.max(SMALL, budget)) return bytes;
  const one = trainingBytes(estimate, layersAbove, 1);
  const instead =
    records > 1 && one <= budget
      ? `--micro-batch ${Math.max(1, Math.floor((budget - estimate.bytes) / (one - estimate.bytes)))} takes less, with the same gradients`
      : 'insert at a later layer, or close other programs';
  throw new Error(
    `a training step of ${name} over ${records} ${records === 1 ? 'record' : 'records'} at once takes about ${gigabytes(bytes)} of memory, and ${gigabytes(budget)} may be used; ${instead}`,
  );
}

/** How many inputs a batch may have. */
export function batchWithin({ bytes, perInput }: MemoryEstimate, budget: number): number {
  return Math.max(1, 1 + Math.floor((budget - bytes) / perInput));
}

/** Weights of one kind as bytes in a file. */
export function storedBytes({ floats, int8, int4 }: Omit<PartSize, 'bytes'>, perFloat: number): number {
  return floats * perFloat + int8 * (1 + 5 / 32) + int4 * (0.5 + 4.5 / 32);
}

export const gigabytes = (bytes: number): string =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.ceil(bytes / 1e6)} MB`;

/** `8GB`, `500 MB`, `1.5g`: bytes. */
export function parseBytes(text: string): number {
  const found = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*$/i.exec(text);
  if (found === null) throw new Error('is not a size; give one such as 8GB or 500MB');
  const step = found[3] === '' ? 1000 : 1024;
  return Number(found[1]) * step ** ['', 'k', 'm', 'g', 't'].indexOf(found[2]!.toLowerCase());
}
