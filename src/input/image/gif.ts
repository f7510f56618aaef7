/**
 * The first frame of a GIF as PIL shows it in RGB (`Image.open(...).convert('RGB')`): transparent pixels have their palette colour, and so has
 * what the frame leaves free of the screen. libvips makes both black.
 */

const grey = Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3));

interface Frame {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  readonly interlaced: boolean;
  readonly palette: Uint8Array;
  /** index of what is transparent; it fills the screen before the frame */
  readonly transparent: number | undefined;
  /** where its data begin: the width of a code, then blocks */
  readonly data: number;
}

export interface Gif {
  readonly width: number;
  readonly height: number;
  /**
   * The colours [height, width, 3], and 0 where the picture is transparent, [height, width], where something is.
   * @throws Error when the data are damaged or cut off
   */
  pixels(): { data: Uint8Array; alpha?: Uint8Array };
}

export const isGif = (bytes: Uint8Array): boolean => /^GIF8[79]a$/.test(String.fromCharCode(...bytes.subarray(0, 6)));

/** @throws Error when there is no frame */
export function openGif(bytes: Uint8Array): Gif {
  const frame = firstFrame(bytes);
  const width = Math.max(u16(bytes, 6), frame.left + frame.width);
  const height = Math.max(u16(bytes, 8), frame.top + frame.height);
  return { width, height, pixels: () => draw(bytes, frame, width, height) };
}

const u16 = (bytes: Uint8Array, at: number): number => bytes[at]! | (bytes[at + 1]! << 8);

/** Of 2^(n+1) colours, where the flags say that there is one. */
function paletteAt(bytes: Uint8Array, at: number, flags: number): { palette: Uint8Array; length: number } | undefined {
  if ((flags & 0x80) === 0) return undefined;
  const length = 3 * 2 ** ((flags & 7) + 1);
  const palette = grey.slice();
  palette.set(bytes.subarray(at, at + length));
  return { palette, length };
}

function firstFrame(bytes: Uint8Array): Frame {
  const shared = paletteAt(bytes, 13, bytes[10] ?? 0);
  let transparent: number | undefined;
  let at = 13 + (shared?.length ?? 0);
  for (; at < bytes.length; at++) {
    if (bytes[at] === 0x21) {
      // Of a graphic control block: its size, flags, delay, and the transparent index.
      if (bytes[at + 1] === 0xf9 && (bytes[at + 3]! & 1) === 1) transparent = bytes[at + 6];
      for (at += 2; bytes[at]! > 0; at += bytes[at]! + 1);
    } else if (bytes[at] === 0x2c && at + 10 < bytes.length) {
      const [left, top, width, height] = [u16(bytes, at + 1), u16(bytes, at + 3), u16(bytes, at + 5), u16(bytes, at + 7)];
      const flags = bytes[at + 9]!;
      const own = paletteAt(bytes, at + 10, flags);
      const palette = own?.palette ?? shared?.palette ?? grey;
      const data = at + 10 + (own?.length ?? 0);
      return { left, top, width, height, interlaced: (flags & 0x40) !== 0, palette, transparent, data };
    } else if (bytes[at] === 0x3b) break;
  }
  throw new Error('it has no frame');
}

function draw(bytes: Uint8Array, frame: Frame, width: number, height: number): ReturnType<Gif['pixels']> {
  const { palette, transparent } = frame;
  const stored = new Uint8Array(frame.width * frame.height);
  decompress(bytes, frame.data, stored);
  const indices = new Uint8Array(width * height).fill(transparent ?? 0);
  rowsOf(frame).forEach((y, row) => {
    indices.set(stored.subarray(row * frame.width, (row + 1) * frame.width), (frame.top + y) * width + frame.left);
  });
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < indices.length; i++) data.set(palette.subarray(3 * indices[i]!, 3 * indices[i]! + 3), 3 * i);
  const alpha = transparent === undefined ? undefined : indices.map((index) => (index === transparent ? 0 : 255));
  return alpha?.includes(0) ? { data, alpha } : { data };
}

/** Rows in the order in which they are stored: interlaced ones in four passes. */
function rowsOf({ height, interlaced }: Frame): number[] {
  const all = Array.from({ length: height }, (_, y) => y);
  if (!interlaced) return all;
  const pass = (start: number, step: number): number[] => all.filter((y) => y % step === start);
  return [...pass(0, 8), ...pass(4, 8), ...pass(2, 4), ...pass(1, 2)];
}

const codes = 4096;

/** LZW with codes that grow to 12 bits, in blocks of up to 255 bytes. */
function decompress(bytes: Uint8Array, start: number, out: Uint8Array): void {
  const least = bytes[start]!;
  if (!(least >= 1 && least <= 8)) throw new Error(`its codes have ${least} bits`);
  const [clear, end] = [1 << least, (1 << least) + 1];
  // A string is another one and a byte behind it.
  const before = new Uint16Array(codes);
  const last = Uint8Array.from({ length: codes }, (_, code) => code);
  const first = last.slice();
  const lengths = new Uint16Array(codes).fill(1);
  let [next, size, previous] = [end + 1, least + 1, -1];
  let [word, bits, at, block] = [0, 0, start + 1, 0];
  const cutOff = new Error('its data end too early');
  for (let done = 0; done < out.length; ) {
    for (; bits < size; bits += 8) {
      if (block === 0) block = bytes[at++] ?? 0;
      if (block === 0 || at >= bytes.length) throw cutOff;
      word |= bytes[at++]! << bits;
      block--;
    }
    const code = word & ((1 << size) - 1);
    word >>>= size;
    bits -= size;
    if (code === end) throw cutOff;
    if (code === clear) {
      [next, size, previous] = [end + 1, least + 1, -1];
      continue;
    }
    if (code > next || (code === next && next === codes) || (previous < 0 && code > end))
      throw new Error(`it has no code ${code}`);
    if (previous >= 0 && next < codes) {
      before[next] = previous;
      first[next] = first[previous]!;
      last[next] = first[code === next ? previous : code]!;
      lengths[next] = lengths[previous]! + 1;
      next++;
      if (next === 1 << size && size < 12) size++;
    }
    let string = code;
    for (let to = done + lengths[code]! - 1; to >= done; to--) {
      if (to < out.length) out[to] = last[string]!;
      string = before[string]!;
    }
    done += lengths[code]!;
    previous = code;
  }
}
