import fc from 'fast-check';
import { expect, test } from 'vitest';
import { assertFinite, fromBfloat16, fromFloat16, toFloat16 } from '../../src/files/half.ts';

const all = Uint16Array.from({ length: 65536 }, (_, i) => i);

test('every half-precision number survives the way to float32 and back', () => {
  const back = toFloat16(fromFloat16(all));
  for (let h = 0; h < 65536; h++) {
    const notANumber = (h & 0x7c00) === 0x7c00 && (h & 0x3ff) !== 0;
    if (notANumber) expect((back[h]! & 0x7c00) === 0x7c00 && (back[h]! & 0x3ff) !== 0).toBe(true);
    else if (back[h] !== h) throw new Error(`${h} became ${back[h]}`);
  }
});

test('known values', () => {
  const given = Float32Array.of(
    1,
    -2,
    65504,
    65519,
    65520,
    2 ** -24,
    2 ** -25,
    2 ** -25 * 1.5,
    1 + 2 ** -11,
    1 + 3 * 2 ** -11,
    -0,
    Infinity,
  );
  expect([...toFloat16(given)]).toEqual([0x3c00, 0xc000, 0x7bff, 0x7bff, 0x7c00, 1, 0, 1, 0x3c00, 0x3c02, 0x8000, 0x7c00]);
  expect([...fromBfloat16(Uint16Array.of(0x3f80, 0xc000, 0x7f80))]).toEqual([1, -2, Infinity]);
});

test('rounding takes the nearest half, ties to the even one', () => {
  const values = fromFloat16(all.subarray(0, 0x7c00));
  fc.assert(
    fc.property(fc.float({ min: 0, max: 65504, noNaN: true }), (x) => {
      const h = toFloat16(Float32Array.of(x))[0]!;
      const error = Math.abs(values[h]! - x);
      for (const other of [h - 1, h + 1]) {
        if (other < 0 || other >= 0x7c00) continue;
        const distance = Math.abs(values[other]! - x);
        expect(error < distance || (error === distance && h % 2 === 0)).toBe(true);
      }
    }),
    { numRuns: 2000 },
  );
});

test('assertFinite names the tensor and the element', () => {
  assertFinite('w', Float32Array.of(1, 2));
  expect(() => assertFinite('w', Float32Array.of(1, Number.NaN))).toThrow('w: element 1 is NaN');
});
