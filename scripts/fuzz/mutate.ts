/** Inputs near others: bytes and pieces changed, moved, repeated, or taken from another input. */
import type { Random } from '../../src/random.ts';

/** An input does not grow beyond this: what is wrong shows in small ones, and small ones are fast. */
const LONGEST = 16 * 1024;

const words = [
  ...[
    '{',
    '}',
    '[',
    ']',
    '"',
    ':',
    ',',
    '\\',
    '\\u0000',
    '\\ud800',
    'null',
    'true',
    '-',
    '-0',
    '1e400',
    '0.5',
    '1e9',
    '\0',
    '\n',
    ' ',
    '\u202e',
    'é',
  ],
  ...['18446744073709551615', '9007199254740993', '4294967296', '2147483648', '65536', '1000000', '-1'],
  ...[
    '__proto__',
    'constructor',
    'toString',
    '{"toString":1}',
    'length',
    '../',
    '/dev/zero',
    '{{',
    '}}',
    '{%',
    '%}',
    '&a ',
    '*a',
    '- ',
    '? ',
  ],
].map((word) => Buffer.from(word));

const bytes = [0, 1, 0x7f, 0x80, 0xff, 0x22, 0x2c, 0x5b, 0x5d, 0x7b, 0x7d, 0x30, 0x39, 0x2d];

export function mutated(corpus: readonly Uint8Array[], random: Random): Uint8Array {
  let input: Buffer = Buffer.from(corpus[random.int(corpus.length)]!);
  for (let n = 1 + random.int(4); n > 0; n--) input = once(input, corpus, random);
  return input.subarray(0, LONGEST);
}

function once(input: Buffer, corpus: readonly Uint8Array[], random: Random): Buffer {
  const at = random.int(input.length + 1);
  const length = random.int(random.int(4) === 0 ? input.length - at + 1 : Math.min(9, input.length - at + 1));
  const [before, piece, after] = [input.subarray(0, at), input.subarray(at, at + length), input.subarray(at + length)];
  switch (random.int(9)) {
    case 0: {
      const out = Buffer.from(input);
      if (at < out.length) out[at]! ^= 1 << random.int(8);
      return out;
    }
    case 1: {
      const out = Buffer.from(input);
      if (at < out.length) out[at] = bytes[random.int(bytes.length)]!;
      return out;
    }
    case 2:
      return Buffer.concat([before, after]);
    case 3:
      return Buffer.concat([before, words[random.int(words.length)]!, input.subarray(at)]);
    case 4:
      return Buffer.concat([before, words[random.int(words.length)]!, after]);
    case 5:
      return Buffer.concat([before, ...Array<Buffer>(2 ** random.int(12)).fill(piece.subarray(0, 8)), input.subarray(at)]);
    case 6: {
      const other = Buffer.from(corpus[random.int(corpus.length)]!);
      const from = random.int(other.length + 1);
      return Buffer.concat([before, other.subarray(from, from + 1 + random.int(64)), after]);
    }
    case 7:
      return Buffer.concat([before, after, piece]);
    default:
      // A number becomes another one.
      return Buffer.from(
        input.toString('latin1').replace(/\d+/g, (digits) => (random.int(3) > 0 ? digits : String(2 ** random.int(65)))),
        'latin1',
      );
  }
}
