/** Hidden parts of pictures: what is outside stays, the picture itself stays, and what lies beyond it does not matter. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { hideCells } from '../../src/attribution/hide.ts';
import { randomPicture } from '../tiny-model.ts';

const place = fc.integer({ min: -4, max: 12 });

test('only the parts change, in a copy', () => {
  fc.assert(
    fc.property(
      place,
      place,
      fc.integer({ min: 0, max: 9 }),
      fc.integer({ min: 0, max: 9 }),
      fc.constantFrom('grey', 'blur'),
      (left, top, width, height, by) => {
        const image = randomPicture(1, 11, 7);
        // A decoded picture is a Buffer, whose slice is no copy.
        const given = { ...image, data: Buffer.from(image.data) };
        const hidden = hideCells(given, [{ left, top, width, height }], by as 'grey' | 'blur');
        expect([...given.data]).toEqual([...image.data]);
        for (let y = 0; y < 7; y++)
          for (let x = 0; x < 11; x++) {
            const inside = x >= left && x < left + width && y >= top && y < top + height;
            const at = 3 * (y * 11 + x);
            if (!inside) expect([...hidden.data.subarray(at, at + 3)]).toEqual([...image.data.subarray(at, at + 3)]);
            else if (by === 'grey') expect([...hidden.data.subarray(at, at + 3)]).toEqual([128, 128, 128]);
          }
      },
    ),
  );
});

test('a blurred even picture is itself', () => {
  const even = { width: 9, height: 6, data: new Uint8Array(9 * 6 * 3).fill(77) };
  expect(hideCells(even, [{ left: 0, top: 0, width: 9, height: 6 }], 'blur').data).toEqual(even.data);
});
