/**
 * JSON (RFC 8259) as the reference library of safetensors reads headers (serde_json): whole numbers of 64 bits are exact and are told apart
 * from numbers with a point or an exponent; half surrogate pairs, numbers out of range and deep nesting are refused; and so is a key that
 * occurs twice, of which programs would see different ones.
 */

/** A whole number of 64 bits is a bigint; 1.0, 1e0 and -0 are numbers. */
export type StrictJson = null | boolean | number | bigint | string | StrictJson[] | Map<string, StrictJson>;

/** Lists and objects inside each other. */
export const MAX_DEPTH = 127;
const MOST = 2n ** 64n - 1n;
const LEAST = -(2n ** 63n);

/** all but quotation marks, backslashes and control characters */
const plain = /[ !#-[\]-\uffff]*/y;
const number = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const blank = /[ \t\r\n]*/y;
const escapes: Readonly<Record<string, string>> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
};

/** @throws Error that says what is wrong, and at which line and column */
export function strictJson(text: string): StrictJson {
  const reader = new Reader(text);
  const value = reader.value(0);
  reader.end();
  return value;
}

class Reader {
  #at = 0;

  constructor(readonly text: string) {}

  value(depth: number): StrictJson {
    this.#skip(blank);
    switch (this.text[this.#at]) {
      case '{':
        return this.#object(depth + 1);
      case '[':
        return this.#list(depth + 1);
      case '"':
        return this.#string();
      case 't':
        return this.#word('true', true);
      case 'f':
        return this.#word('false', false);
      case 'n':
        return this.#word('null', null);
      default:
        return this.#number();
    }
  }

  end(): void {
    this.#skip(blank);
    if (this.#at < this.text.length) this.#fail('something follows after the end');
  }

  #object(depth: number): Map<string, StrictJson> {
    const object = new Map<string, StrictJson>();
    if (this.#opens(depth, '}')) return object;
    do {
      this.#skip(blank);
      const start = this.#at;
      if (this.text[start] !== '"') this.#fail('a key in quotation marks is expected');
      const key = this.#string();
      if (object.has(key)) this.#fail(`the key ${JSON.stringify(key)} occurs twice`, start);
      this.#expect(':');
      object.set(key, this.value(depth));
    } while (this.#goesOn('}'));
    return object;
  }

  #list(depth: number): StrictJson[] {
    const list: StrictJson[] = [];
    if (this.#opens(depth, ']')) return list;
    do list.push(this.value(depth));
    while (this.#goesOn(']'));
    return list;
  }

  /** Goes past the opening bracket; true when the closing one follows at once. */
  #opens(depth: number, close: string): boolean {
    if (depth > MAX_DEPTH) this.#fail(`lists and objects are nested deeper than ${MAX_DEPTH}`);
    this.#at++;
    this.#skip(blank);
    if (this.text[this.#at] !== close) return false;
    this.#at++;
    return true;
  }

  /** True after a comma, false after the closing bracket. */
  #goesOn(close: string): boolean {
    this.#skip(blank);
    const c = this.text[this.#at];
    if (c !== ',' && c !== close) this.#fail(`"," or "${close}" is expected`);
    this.#at++;
    return c === ',';
  }

  #expect(c: string): void {
    this.#skip(blank);
    if (this.text[this.#at] !== c) this.#fail(`"${c}" is expected`);
    this.#at++;
  }

  #word<T>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.#at)) this.#fail('a value is expected');
    this.#at += word.length;
    return value;
  }

  #number(): number | bigint {
    number.lastIndex = this.#at;
    const found = number.exec(this.text);
    if (found === null) return this.#fail(this.#at < this.text.length ? 'a value is expected' : 'the text ends too early');
    const [digits, point, exponent] = found;
    if (point === undefined && exponent === undefined && digits !== '-0' && digits.length <= 20) {
      const whole = BigInt(digits);
      if (whole >= LEAST && whole <= MOST) {
        this.#at += digits.length;
        return whole;
      }
    }
    const value = Number(digits);
    if (!Number.isFinite(value)) this.#fail('a number is out of range');
    this.#at += digits.length;
    return value;
  }

  #string(): string {
    let out = '';
    this.#at++;
    while (true) {
      const start = this.#at;
      this.#skip(plain);
      out += this.text.slice(start, this.#at);
      const c = this.text[this.#at];
      if (c === '"') {
        this.#at++;
        return out;
      }
      if (c !== '\\') this.#fail(c === undefined ? 'a text does not end' : 'a control character inside a text must be escaped');
      out += this.#escape();
    }
  }

  #escape(): string {
    const c = this.text[this.#at + 1] ?? '';
    if (c !== 'u') {
      const meant = Object.hasOwn(escapes, c) ? escapes[c]! : this.#fail('"\\" must be followed by one of "\\/bfnrtu');
      this.#at += 2;
      return meant;
    }
    const first = this.#unit();
    if (first < 0xd800 || first > 0xdfff) return String.fromCharCode(first);
    const start = this.#at - 6;
    const second = first <= 0xdbff && this.text.startsWith('\\u', this.#at) ? this.#unit() : 0;
    if (second < 0xdc00 || second > 0xdfff) this.#fail('one half of a surrogate pair stands alone', start);
    return String.fromCharCode(first, second);
  }

  /** The UTF-16 unit of a \u escape. */
  #unit(): number {
    const digits = this.text.slice(this.#at + 2, this.#at + 6);
    if (!/^[0-9a-fA-F]{4}$/.test(digits)) this.#fail('"\\u" must be followed by four hexadecimal digits');
    this.#at += 6;
    return Number.parseInt(digits, 16);
  }

  #skip(what: RegExp): void {
    what.lastIndex = this.#at;
    what.test(this.text);
    this.#at = Math.max(this.#at, what.lastIndex);
  }

  #fail(what: string, at = this.#at): never {
    const before = this.text.slice(0, at);
    const line = before.split('\n').length;
    throw new Error(`line ${line}, column ${at - before.lastIndexOf('\n')}: ${what}`);
  }
}
