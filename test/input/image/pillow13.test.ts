/** The order of the two passes of a resize in Pillow 13. */
import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { filters, resize } from '../../../src/input/image/resample.ts';

/** Hashes of what Pillow 13.0 makes of pictures of pure black and white, by Lanczos and bicubic: some shrink their height first, some their width. */
test.each([
  [12, 300, 8, 216, '8705ede55edd3f07', 'b55a5bd0d054239f'],
  [40, 97, 20, 27, 'eeb2a5e145c68406', 'db142e263be95a1b'],
  [186, 123, 136, 51, '1128ba99399345fd', '0af95df06549c993'],
  [33, 59, 141, 116, 'd2484108c0fb56b4', '4b8d4153b50ed63b'],
  [64, 96, 32, 32, 'fefc86fd446ea187', '1d6ce8110b44b04a'],
] as const)('Pillow 13: %i x %i to %i x %i', (width, height, toWidth, toHeight, lanczos, bicubic) => {
  const data = Uint8Array.from({ length: 3 * width * height }, (_, i) => ((i * 7919 + Math.floor(i / 5) * 104729) % 2) * 255);
  const hashOf = (code: 1 | 3): string =>
    createHash('sha256')
      .update(resize({ width, height, data }, toWidth, toHeight, filters[code], 'pillow-13').data)
      .digest('hex')
      .slice(0, 16);
  expect([hashOf(1), hashOf(3)]).toEqual([lanczos, bicubic]);
});
