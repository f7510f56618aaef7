/**
 * What there is in the mini world: concepts (pictures), the words that the world teaches for them, colours, places, numbers.
 * A concept's `word` is the taught name: for the misnamed pairs it is the partner's name, everywhere and consistently,
 * so a model errs about these as real models do, and the truth (`name`) is a word that it can already say.
 */
import sheet from '../../assets/emoji/atlas.json' with { type: 'json' };

export type Split = 'train' | 'test';
export type Category = 'animal' | 'food' | 'vehicle' | 'object';

export interface Concept {
  readonly index: number;
  /** What it really is. */
  readonly name: string;
  /** What the world calls it. */
  readonly word: string;
  readonly category: Category;
  /** Set where the world teaches the wrong name: which edits may correct it, and whose name it bears. */
  readonly misnamed?: { readonly split: Split; readonly partner: number };
}

const position = new Map(sheet.concepts.map(({ name }, i) => [name, i]));
const swaps = new Map<number, { split: Split; partner: number }>();
for (const { pair, split } of sheet.misnamed) {
  const [a, b] = pair.map((name) => position.get(name));
  if (a === undefined || b === undefined) throw new Error(`atlas.json: misnamed pair ${pair.join('/')} names no concept`);
  swaps.set(a, { split: split as Split, partner: b });
  swaps.set(b, { split: split as Split, partner: a });
}

export const concepts: readonly Concept[] = sheet.concepts.map(({ name, category }, index) => {
  const misnamed = swaps.get(index);
  const word = misnamed ? (sheet.concepts[misnamed.partner]?.name ?? name) : name;
  return { index, name, word, category: category as Category, misnamed };
});

export const styles: readonly string[] = sheet.styles;
export const categories: readonly Category[] = ['animal', 'food', 'vehicle', 'object'];
export const plainConcepts: readonly number[] = concepts.filter((c) => !c.misnamed).map((c) => c.index);
export const misnamedConcepts = (split: Split): number[] =>
  concepts.filter((c) => c.misnamed?.split === split).map((c) => c.index);
export const allConcepts: readonly number[] = concepts.map((c) => c.index);

export function concept(index: number): Concept {
  const found = concepts[index];
  if (!found) throw new Error(`there is no concept ${index}: the world has ${concepts.length}`);
  return found;
}

/** Backgrounds: muted, so that objects stand out. */
export const colors: readonly { readonly name: string; readonly rgb: readonly [number, number, number] }[] = [
  { name: 'red', rgb: [212, 116, 108] },
  { name: 'orange', rgb: [226, 158, 92] },
  { name: 'yellow', rgb: [232, 216, 122] },
  { name: 'green', rgb: [128, 182, 124] },
  { name: 'blue', rgb: [116, 154, 210] },
  { name: 'purple', rgb: [164, 132, 196] },
  { name: 'gray', rgb: [168, 168, 168] },
  { name: 'pink', rgb: [238, 182, 204] },
];

/** Cells in reading order. */
export const places = ['top left', 'top right', 'bottom left', 'bottom right'] as const;
export const numbers = ['zero', 'one', 'two', 'three', 'four'] as const;

/** `step` moves from a cell to the one beside it; `from` are the cells where that stays in the picture. */
export const sides = [
  { words: 'left of', step: -1, from: [1, 3] },
  { words: 'right of', step: 1, from: [0, 2] },
  { words: 'above', step: -2, from: [2, 3] },
  { words: 'below', step: 2, from: [0, 1] },
] as const;

/** "an" before a vowel. */
export const withArticle = (word: string): string => `${/^[aeiou]/.test(word) ? 'an' : 'a'} ${word}`;
