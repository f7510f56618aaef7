/** Conversions between float32 and the short float formats of checkpoints (IEEE half, bfloat16). */

const bits = new Uint32Array(1);
const float = new Float32Array(bits.buffer);

let table: Float32Array | undefined;

/** All 65536 half-precision values, so that a conversion is one look-up per element. */
function halfTable(): Float32Array {
  if (table) return table;
  const values = new Float32Array(65536);
  for (let h = 0; h < 65536; h++) {
    const sign = h & 0x8000 ? -1 : 1;
    const exponent = (h >> 10) & 31;
    const mantissa = h & 1023;
    if (exponent === 31) values[h] = mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else values[h] = exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1024 + mantissa) * 2 ** (exponent - 25);
  }
  table = values;
  return values;
}

export function fromFloat16(half: Uint16Array): Float32Array {
  const values = halfTable();
  const out = new Float32Array(half.length);
  for (let i = 0; i < half.length; i++) out[i] = values[half[i]!]!;
  return out;
}

/** bfloat16 is the upper half of a float32. */
export function fromBfloat16(half: Uint16Array): Float32Array {
  const out = new Uint32Array(half.length);
  for (let i = 0; i < half.length; i++) out[i] = half[i]! << 16;
  return new Float32Array(out.buffer);
}

/** float32 to half-precision bits, round to nearest, ties to even; too large becomes infinity, NaN stays NaN. */
export function toFloat16(data: Float32Array): Uint16Array {
  const source = new Uint32Array(data.buffer, data.byteOffset, data.length);
  const out = new Uint16Array(data.length);
  for (let i = 0; i < source.length; i++) {
    const word = source[i]!;
    const sign = (word >>> 16) & 0x8000;
    const magnitude = word & 0x7fffffff;
    if (magnitude > 0x7f800000) out[i] = sign | 0x7e00;
    else if (magnitude >= 0x477ff000) out[i] = sign | 0x7c00;
    else if (magnitude < 0x38800000) {
      // below 2^-14: adding 0.5 makes the float32 addition itself round to steps of 2^-24
      bits[0] = magnitude;
      float[0] = float[0]! + 0.5;
      out[i] = sign | (bits[0]! - 0x3f000000);
    } else {
      const odd = (magnitude >>> 13) & 1;
      out[i] = sign | ((magnitude - 0x38000000 + 0xfff + odd) >>> 13);
    }
  }
  return out;
}

/** Throws when a value is NaN or infinite, naming the first one. */
export function assertFinite(name: string, data: Float32Array): void {
  for (let i = 0; i < data.length; i++) {
    if (!Number.isFinite(data[i]!)) throw new Error(`${name}: element ${i} is ${data[i]}; every value must be a finite number`);
  }
}
