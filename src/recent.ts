/** Values kept up to a number of bytes: the ones used longest ago go first. */
export class Recent<V> {
  readonly #values = new Map<string, { value: V; bytes: number }>();
  #bytes = 0;

  constructor(
    readonly budget: number,
    readonly bytesOf: (value: V) => number,
  ) {}

  get(key: string): V | undefined {
    const found = this.#values.get(key);
    if (found === undefined) return undefined;
    this.#values.delete(key);
    this.#values.set(key, found);
    return found.value;
  }

  put(key: string, value: V): void {
    this.#drop(key);
    const bytes = this.bytesOf(value);
    this.#values.set(key, { value, bytes });
    this.#bytes += bytes;
    for (const oldest of this.#values.keys()) {
      if (this.#bytes <= this.budget || oldest === key) break;
      this.#drop(oldest);
    }
  }

  clear(): void {
    this.#values.clear();
    this.#bytes = 0;
  }

  #drop(key: string): void {
    const found = this.#values.get(key);
    if (found === undefined) return;
    this.#values.delete(key);
    this.#bytes -= found.bytes;
  }
}
