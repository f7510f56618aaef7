/**
 * How sure a map is whose values are means over draws. The map is normalised by its sum: m_n = C_n / T, with T = Σ C_n. Draws that all tokens share
 * move C_n and T together, so the error is that of a ratio of means: se(m_n) = sd(c_n − m_n t) / (T √units).
 */

/** Mean values over draws, and how sure they are. */
export interface MapEstimate {
  /** mean of each token */
  readonly values: number[];
  /** standard error of the normalised map at each token, in the unit of `values` */
  readonly errors: number[];
  /** the largest of `errors`, as a share of the largest value */
  readonly error: number;
  /** how a map from other draws would correlate with this one, by its errors */
  readonly agreement: number;
  /** sum of the map, and its standard error: that of a map which a few draws make is large, whatever the errors of its shape */
  readonly total: number;
  readonly totalError: number;
}

/** Sums over draws from which a map and its errors follow. */
export class RunningMap {
  units = 0;
  readonly #sum: Float64Array;
  readonly #squares: Float64Array;
  readonly #withTotal: Float64Array;
  #totalSquares = 0;

  constructor(tokens: number) {
    this.#sum = new Float64Array(tokens);
    this.#squares = new Float64Array(tokens);
    this.#withTotal = new Float64Array(tokens);
  }

  /**
   * @param values [tokens, draws]
   * @param pairs draws of the second half are the opposites of those of the first: the mean of two is one unit
   */
  add(values: Float32Array, draws: number, pairs: boolean): void {
    const units = pairs ? draws / 2 : draws;
    const tokens = this.#sum.length;
    for (let u = 0; u < units; u++) {
      const at = (n: number): number => {
        const first = values[n * draws + u]!;
        return pairs ? (first + values[n * draws + u + units]!) / 2 : first;
      };
      let total = 0;
      for (let n = 0; n < tokens; n++) total += at(n);
      for (let n = 0; n < tokens; n++) {
        const value = at(n);
        this.#sum[n]! += value;
        this.#squares[n]! += value * value;
        this.#withTotal[n]! += value * total;
      }
      this.#totalSquares += total * total;
    }
    this.units += units;
  }

  estimate(): MapEstimate {
    const { units } = this;
    const values = Array.from(this.#sum, (sum) => sum / units);
    const total = values.reduce((a, b) => a + b, 0);
    const errors = values.map((value, n) => {
      if (!(total > 0)) return 0;
      if (units < 2) return Number.POSITIVE_INFINITY;
      const share = value / total;
      const squares = this.#squares[n]! - 2 * share * this.#withTotal[n]! + share * share * this.#totalSquares;
      return Math.sqrt(Math.max(0, squares) / (units - 1) / units);
    });
    const largest = Math.max(...values);
    const mean = total / values.length;
    const spread = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    const noise = errors.reduce((sum, error) => sum + error * error, 0);
    const totalSpread = Math.max(0, this.#totalSquares - units * total * total);
    return {
      values,
      errors,
      total,
      totalError: units < 2 ? Number.POSITIVE_INFINITY : Math.sqrt(totalSpread / (units - 1) / units),
      error: largest > 0 ? Math.max(...errors) / largest : 0,
      agreement: spread > 0 ? Math.max(0, 1 - noise / spread) : Number(noise === 0),
    };
  }
}
