/**
 * Text of an answer as its tokens come: what each adds. Nothing is added before it is certain: characters that need a further token, white space
 * that may be the answer's end, and the beginning of what may become a stop word are held back. The pieces together are the whole text.
 */

export class TextStream {
  readonly #ids: number[] = [];
  #text = '';
  #sent = 0;
  #ended = false;

  constructor(
    readonly decode: (ids: readonly number[]) => string,
    readonly stop: readonly string[] = [],
  ) {}

  /** Whether a stop word came. */
  get ended(): boolean {
    return this.#ended;
  }

  /** @returns what the token adds */
  push(id: number): string {
    if (this.#ended) return '';
    this.#ids.push(id);
    this.#text = this.decode(this.#ids).trimStart();
    const places = this.stop.map((word) => this.#text.indexOf(word)).filter((at) => at >= 0);
    if (places.length > 0) {
      this.#ended = true;
      return this.#release(this.#text.slice(0, Math.min(...places)).trimEnd().length);
    }
    return this.#release(this.#certain());
  }

  /** @returns what was held back, at the end of the answer */
  finish(): string {
    if (this.#ended) return '';
    return this.#release(this.#text.trimEnd().length);
  }

  #certain(): number {
    let end = this.#text.length;
    for (const word of this.stop) {
      for (let length = Math.min(word.length - 1, this.#text.length); length > 0; length--) {
        if (!this.#text.endsWith(word.slice(0, length))) continue;
        end = Math.min(end, this.#text.length - length);
        break;
      }
    }
    return this.#text.slice(0, end).replace(/[\s\uFFFD]+$/, '').length;
  }

  /** Up to a place, but never less than what was sent. */
  #release(end: number): string {
    const piece = this.#text.slice(this.#sent, end);
    this.#sent = Math.max(this.#sent, end);
    return piece;
  }
}
