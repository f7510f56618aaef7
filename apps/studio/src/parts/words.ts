/** Numbers and tokens as words. */

export const percent = (p: number): string =>
  p > 0 && p < 0.01 ? '<1%' : p < 1 && p > 0.99 ? '>99%' : `${Math.round(100 * p)}%`;

/** Sure, leaning, unsure: told by shape and number too, not by colour alone. */
export const sureness = (p: number): 'sure' | 'leaning' | 'unsure' => (p >= 0.8 ? 'sure' : p >= 0.4 ? 'leaning' : 'unsure');

/** A token as a reader knows it: without the mark of a word's start, odd spaces visible. */
export function tokenText(text: string): string {
  const bare = text.replace(/^[▁Ġ ]+/, '').replace(/[▁Ġ]/g, ' ');
  if (bare.trim() !== '') return bare;
  return text.includes('\n') ? '⏎' : '␣';
}

export function shortNumber(value: number): string {
  if (value === 0) return '0';
  const size = Math.abs(value);
  return size < 0.001 || size >= 10_000 ? value.toExponential(1) : String(Number(value.toPrecision(2)));
}

export const kindTitles: Record<string, { title: string; wanted: string; what: string }> = {
  reliability: { title: 'The question itself', wanted: 'must become the target', what: 'reliability' },
  textGenerality: { title: 'Asked in other words', wanted: 'must become the target', what: 'text generality' },
  modalGenerality: { title: 'Another picture of the same', wanted: 'must become the target', what: 'modal generality' },
  textLocality: { title: 'A fact, without a picture', wanted: 'must stay', what: 'text locality' },
  sameImage: { title: 'Something else, this picture', wanted: 'must stay', what: 'same image' },
  sameQuestion: { title: 'The same question, another picture', wanted: 'must stay', what: 'same question' },
  noise: { title: 'The picture as noise', wanted: 'must stay', what: 'noise' },
  grey: { title: 'The picture as grey', wanted: 'must stay', what: 'grey' },
  modalLocality: { title: 'Something else, another picture', wanted: 'must stay', what: 'modal locality' },
};
