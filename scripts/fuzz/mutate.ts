/**
 * Inputs near others: bytes and pieces changed, moved, repeated, or taken from another input. Where an input holds JSON, half of the changes keep
 * it valid and change its values, so that what lies behind the parser is reached, too.
 */
import type { Random } from '../../src/random.ts';
import { changedJson } from './mutate-json.ts';

/** An input does not grow beyond this: what is wrong shows in small ones, and small ones are fast. */
const LONGEST = 16 * 1024;

const signs =
  '{ } [ ] " : , \\ \\u0000 \\ud800 null true - -0 1e400 0.5 1e9 18446744073709551615 9007199254740993 4294967296 2147483648 65536 1000000 -1 __proto__ constructor toString {"toString":1} length ../ /dev/zero {{ }} {% %}'
    .split(' ')
    .concat('\0', '\n', ' ', '\u202e', 'é', '&a ', '*a', '- ', '? ');

const bytes = [0, 1, 0x7f, 0x80, 0xff, 0x22, 0x2c, 0x5b, 0x5d, 0x7b, 0x7d, 0x30, 0x39, 0x2d];

export class Mutations {
  readonly #words: readonly Buffer[];

  /**
   * @param corpus may grow while this is used
   * @param known words of the code that reads
   */
  constructor(
    readonly corpus: readonly Uint8Array[],
    readonly known: readonly string[],
    readonly random: Random,
  ) {
    this.#words = [...signs, ...known].map((word) => Buffer.from(word));
  }

  next(): Uint8Array {
    let input: Buffer = this.#another();
    for (let n = 1 + this.random.int(4); n > 0; n--)
      input = (this.random.int(2) === 0 ? this.#changedJson(input) : undefined) ?? this.#changed(input);
    return input.subarray(0, LONGEST);
  }

  /** One of the corpus; half of the time one of its newest quarter. Of two the shorter, mostly: it takes less time. */
  #another(): Buffer {
    const { length } = this.corpus;
    const from = this.random.int(2) === 0 ? 0 : length - Math.ceil(length / 4);
    const [one, two] = [0, 1].map(() => this.corpus[from + this.random.int(length - from)]!) as [Uint8Array, Uint8Array];
    return Buffer.from(one.length <= two.length || this.random.int(8) === 0 ? one : two);
  }

  /** Half of them signs, which any reader may trip over; the others what the code knows. */
  #word(): Buffer {
    return this.#words[this.random.int(this.random.int(2) === 0 ? signs.length : this.#words.length)]!;
  }

  #changedJson(input: Buffer): Buffer | undefined {
    // A request's line comes before its JSON.
    const start = input.findIndex((byte) => byte === 0x7b || byte === 0x5b);
    if (start < 0) return undefined;
    const changed = changedJson(input.toString('utf8', start), this.#another().toString('utf8'), this.known, this.random);
    return changed === undefined ? undefined : Buffer.concat([input.subarray(0, start), Buffer.from(changed)]);
  }

  #changed(input: Buffer): Buffer {
    const { random } = this;
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
        return Buffer.concat([before, this.#word(), input.subarray(at)]);
      case 4:
        return Buffer.concat([before, this.#word(), after]);
      case 5:
        return Buffer.concat([
          before,
          ...Array<Buffer>(2 ** random.int(random.int(8) === 0 ? 12 : 5)).fill(piece.subarray(0, 8)),
          input.subarray(at),
        ]);
      case 6: {
        const other = this.#another();
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
}
