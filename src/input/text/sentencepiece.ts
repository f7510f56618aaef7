/**
 * SentencePiece models of the BPE kind (https://github.com/google/sentencepiece), as LLaMA and Vicuna publish them in
 * tokenizer.model: the file's pieces, text to ids, ids to text. No normalisation beyond the space symbol is done,
 * and models that ask for more are refused.
 */
import { PbfReader } from 'pbf';
import { MEBIBYTE, readWhole } from '../../files/text.ts';

export const SPACE = '▁';

/** sentencepiece_model.proto, SentencePiece.Type */
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;
const BYTE = 6;
/** sentencepiece_model.proto, TrainerSpec.ModelType */
const BPE = 2;

interface Piece {
  text: string;
  score: number;
  type: number;
}

interface ModelFile {
  pieces: Piece[];
  modelType: number;
  byteFallback: boolean;
  addDummyPrefix: boolean;
  removeExtraWhitespaces: boolean;
  escapeWhitespaces: boolean;
  charsMap: boolean;
}

export class SentencePiece {
  private readonly normal = new Map<string, number>();
  private readonly ids = new Map<string, number>();
  private readonly bytes: number[] = [];
  private readonly unknown: number;

  constructor(private readonly model: ModelFile) {
    model.pieces.forEach((piece, id) => {
      if (piece.type === NORMAL) this.normal.set(piece.text, id);
      if (piece.type === BYTE) this.bytes[Number.parseInt(piece.text.slice(3, 5), 16)] = id;
      this.ids.set(piece.text, id);
    });
    this.unknown = model.pieces.findIndex((piece) => piece.type === UNKNOWN);
  }

  get size(): number {
    return this.model.pieces.length;
  }

  idOf(piece: string): number | undefined {
    return this.ids.get(piece);
  }

  pieceOf(id: number): string | undefined {
    return this.model.pieces[id]?.text;
  }

  byteOf(id: number): number | undefined {
    const byte = this.bytes.indexOf(id);
    return byte < 0 ? undefined : byte;
  }

  /** `dummyPrefix: false` leaves out the space that the model puts before a text. */
  encode(text: string, { dummyPrefix = true } = {}): number[] {
    if (text === '') return [];
    const spaced = dummyPrefix && this.model.addDummyPrefix ? ` ${text}` : text;
    return this.merge([...spaced.replaceAll(' ', SPACE)]).flatMap((symbol) => this.idsOfSymbol(symbol));
  }

  /** Merges the neighbours that form the piece of the highest score, the leftmost on a tie, until none is left. */
  private merge(symbols: string[]): string[] {
    const scoreAt = (i: number): number => {
      const id = i + 1 < symbols.length ? this.normal.get(symbols[i]! + symbols[i + 1]!) : undefined;
      return id === undefined ? Number.NEGATIVE_INFINITY : this.model.pieces[id]!.score;
    };
    const scores = symbols.map((_, i) => scoreAt(i));
    for (;;) {
      let best = -1;
      let bestScore = Number.NEGATIVE_INFINITY;
      for (let i = 0; i < scores.length; i++) {
        if (scores[i]! > bestScore) {
          best = i;
          bestScore = scores[i]!;
        }
      }
      if (best < 0) return symbols;
      symbols.splice(best, 2, symbols[best]! + symbols[best + 1]!);
      scores.splice(best, 1);
      scores[best] = scoreAt(best);
      if (best > 0) scores[best - 1] = scoreAt(best - 1);
    }
  }

  private idsOfSymbol(symbol: string): number[] {
    const id = this.normal.get(symbol);
    if (id !== undefined) return [id];
    if (!this.model.byteFallback) return [this.unknown];
    return [...new TextEncoder().encode(symbol)].map((byte) => this.bytes[byte] ?? this.unknown);
  }

  /** The text of pieces; the space before the first one is dropped when the model adds it. */
  decode(pieces: readonly string[]): string {
    let text = '';
    let spaceSeen = false;
    let bytes: number[] = [];
    const flush = (): void => {
      text += bytesToText(bytes);
      bytes = [];
    };
    for (const piece of pieces) {
      const type = this.model.pieces[this.ids.get(piece) ?? this.unknown]?.type;
      if (type === BYTE) {
        bytes.push(Number.parseInt(piece.slice(3, 5), 16));
        continue;
      }
      flush();
      if (type === CONTROL) continue;
      const first = !spaceSeen && text === '' && this.model.addDummyPrefix;
      if (first && piece.startsWith(SPACE)) spaceSeen = true;
      if (type === UNKNOWN && this.ids.has(piece)) text += ' ⁇ ';
      else text += (first && piece.startsWith(SPACE) ? piece.slice(1) : piece).replaceAll(SPACE, ' ');
    }
    flush();
    return text;
  }
}

/** UTF-8 with one replacement character per byte that belongs to no character, as SentencePiece does. */
export function bytesToText(bytes: readonly number[]): string {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  let text = '';
  for (let i = 0; i < bytes.length; ) {
    const lead = bytes[i]!;
    const length = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    try {
      text += decoder.decode(Uint8Array.from(bytes.slice(i, i + length)));
      i += length;
    } catch {
      text += '\ufffd';
      i++;
    }
  }
  return text;
}

export function openSentencePiece(path: string): SentencePiece {
  const model: ModelFile = {
    pieces: [],
    modelType: 1,
    byteFallback: false,
    addDummyPrefix: true,
    removeExtraWhitespaces: true,
    escapeWhitespaces: true,
    charsMap: false,
  };
  try {
    new PbfReader(readWhole(path, 256 * MEBIBYTE)).readFields(readModel, model);
  } catch (error) {
    throw new Error(`${path} is not a SentencePiece model: ${(error as Error).message}`, { cause: error });
  }
  const refuse = (what: string): never => {
    throw new Error(`${path}: ${what}; provide tokenizer.json for this model`);
  };
  if (model.pieces.length === 0) throw new Error(`${path} is not a SentencePiece model: it has no pieces`);
  if (!model.pieces.some(({ type }) => type === UNKNOWN)) refuse('it has no piece for unknown text');
  if (model.modelType !== BPE) refuse('only SentencePiece models of the BPE kind can be read');
  if (model.charsMap || model.removeExtraWhitespaces || !model.escapeWhitespaces)
    refuse('its text normalisation is not supported');
  if (model.pieces.some(({ type }) => type === USER_DEFINED || type === UNUSED))
    refuse('user-defined or unused pieces are not supported');
  return new SentencePiece(model);
}

/** The fields of sentencepiece_model.proto that matter here. */
function readModel(tag: number, model: ModelFile, pbf: PbfReader): void {
  if (tag === 1) model.pieces.push(pbf.readMessage(readPiece, { text: '', score: 0, type: NORMAL }));
  else if (tag === 2) pbf.readMessage(readTrainer, model);
  else if (tag === 3) pbf.readMessage(readNormalizer, model);
}

function readPiece(tag: number, piece: Piece, pbf: PbfReader): void {
  if (tag === 1) piece.text = pbf.readString();
  else if (tag === 2) piece.score = pbf.readFloat();
  else if (tag === 3) piece.type = pbf.readVarint();
}

function readTrainer(tag: number, model: ModelFile, pbf: PbfReader): void {
  if (tag === 3) model.modelType = pbf.readVarint();
  else if (tag === 35) model.byteFallback = pbf.readBoolean();
}

function readNormalizer(tag: number, model: ModelFile, pbf: PbfReader): void {
  if (tag === 2) model.charsMap = pbf.readBytes().length > 0;
  else if (tag === 3) model.addDummyPrefix = pbf.readBoolean();
  else if (tag === 4) model.removeExtraWhitespaces = pbf.readBoolean();
  else if (tag === 5) model.escapeWhitespaces = pbf.readBoolean();
}
