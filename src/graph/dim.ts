/**
 * Symbolic dimensions: a number, or a polynomial over symbols written canonically ("b", "v+t", "b*l", "2*t-1").
 * Programs are compiled once and run at any batch and length, so shapes are arithmetic over names.
 */

/** One dimension of a shape: a number, or a polynomial over symbols. */
export type Dim = number | string;

/** monomial ("b*l", "" for the constant) -> integer coefficient */
type Polynomial = Map<string, number>;

function parse(dim: Dim): Polynomial {
  const out: Polynomial = new Map();
  if (typeof dim === 'number') {
    if (dim !== 0) out.set('', dim);
    return out;
  }
  for (const [, sign, term] of dim.matchAll(/([+-]?)([^+-]+)/g)) {
    let coefficient = sign === '-' ? -1 : 1;
    const symbols: string[] = [];
    for (const factor of (term as string).split('*')) {
      if (/^\d+$/.test(factor)) coefficient *= Number(factor);
      else symbols.push(factor);
    }
    const key = symbols.sort().join('*');
    out.set(key, (out.get(key) ?? 0) + coefficient);
  }
  return out;
}

function format(p: Polynomial): Dim {
  const terms = [...p].filter(([, c]) => c !== 0).sort(([a], [b]) => (a === '' ? 1 : b === '' ? -1 : a < b ? -1 : 1));
  if (terms.length === 0) return 0;
  if (terms.length === 1 && terms[0]![0] === '') return terms[0]![1];
  let text = '';
  for (const [monomial, c] of terms) {
    const magnitude = Math.abs(c);
    const body = monomial === '' ? String(magnitude) : magnitude === 1 ? monomial : `${magnitude}*${monomial}`;
    text += c < 0 ? `-${body}` : text === '' ? body : `+${body}`;
  }
  return text;
}

/** The sum of dimensions. */
export function addDim(...dims: Dim[]): Dim {
  if (dims.every((d) => typeof d === 'number')) return (dims as number[]).reduce((a, b) => a + b, 0);
  const out: Polynomial = new Map();
  for (const d of dims) for (const [k, c] of parse(d)) out.set(k, (out.get(k) ?? 0) + c);
  return format(out);
}

/** The product of dimensions. */
export function mulDim(...dims: Dim[]): Dim {
  if (dims.every((d) => typeof d === 'number')) return (dims as number[]).reduce((a, b) => a * b, 1);
  let out: Polynomial = new Map([['', 1]]);
  for (const d of dims) {
    const next: Polynomial = new Map();
    for (const [ka, ca] of out)
      for (const [kb, cb] of parse(d)) {
        const key = [...ka.split('*'), ...kb.split('*')].filter(Boolean).sort().join('*');
        next.set(key, (next.get(key) ?? 0) + ca * cb);
      }
    out = next;
  }
  return format(out);
}

/** The dimension a − b. */
export function subDim(a: Dim, b: Dim): Dim {
  return addDim(a, mulDim(-1, b));
}

/** The terms of a dimension: each a coefficient and the symbols it multiplies. */
export function dimTerms(dim: Dim): { coefficient: number; symbols: string[] }[] {
  return [...parse(dim)].map(([monomial, coefficient]) => ({ coefficient, symbols: monomial === '' ? [] : monomial.split('*') }));
}

/**
 * The number a dimension has once its symbols are bound.
 * @throws Error that names a symbol without a value
 */
export function bindDim(dim: Dim, symbols: ReadonlyMap<string, number>): number {
  if (typeof dim === 'number') return dim;
  let total = 0;
  for (const term of dimTerms(dim)) {
    let value = term.coefficient;
    for (const s of term.symbols) {
      const bound = symbols.get(s);
      if (bound === undefined) throw new Error(`dimension ${dim}: symbol ${s} has no value`);
      value *= bound;
    }
    total += value;
  }
  return total;
}

/** A shape as text: `[b, l, 64]`. */
export function showShape(shape: readonly Dim[]): string {
  return `[${shape.join(', ')}]`;
}
