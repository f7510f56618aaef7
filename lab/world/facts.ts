/**
 * Text-only facts of the mini world: no picture, eight families. They are what text locality asks about,
 * and why every concept's word also means something without a picture.
 */
import type { Random } from '../../src/random.ts';
import { allConcepts, type Category, categories, colors, concept, withArticle } from './concepts.ts';

export interface Fact {
  readonly family: string;
  /** Ends with a question mark. */
  readonly question: string;
  readonly answer: string;
}

const digits = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'] as const;
const opposites = [
  ['left', 'right'],
  ['top', 'bottom'],
  ['above', 'below'],
  ['yes', 'no'],
  ['more', 'less'],
] as const;

const yesNo = (truth: boolean): string => (truth ? 'yes' : 'no');
const wordOf = (random: Random): { word: string; category: Category } => concept(random.pick(allConcepts));

const families: Readonly<Record<string, (random: Random) => { question: string; answer: string }>> = {
  kind: (random) => {
    const { word, category } = wordOf(random);
    return { question: `What kind of thing is ${withArticle(word)}?`, answer: category };
  },
  member: (random) => {
    const { word, category } = wordOf(random);
    const asked = random.uniform() < 0.5 ? category : random.pick(categories.filter((c) => c !== category));
    return { question: `Is ${withArticle(word)} ${withArticle(asked)}?`, answer: yesNo(asked === category) };
  },
  same: (random) => {
    const first = wordOf(random);
    const alike = random.uniform() < 0.5;
    const fitting = allConcepts.filter(
      (i) => (concept(i).category === first.category) === alike && concept(i).word !== first.word,
    );
    const second = concept(random.pick(fitting));
    return { question: `Are ${withArticle(first.word)} and ${withArticle(second.word)} of one kind?`, answer: yesNo(alike) };
  },
  plus: (random) => {
    const sum = random.int(digits.length);
    const first = random.int(sum + 1);
    return { question: `What is ${digits[first]} plus ${digits[sum - first]}?`, answer: digits[sum]! };
  },
  after: (random) => {
    const n = random.int(digits.length - 1);
    return { question: `What comes after ${digits[n]}?`, answer: digits[n + 1]! };
  },
  before: (random) => {
    const n = random.int(digits.length - 1);
    return { question: `What comes before ${digits[n + 1]}?`, answer: digits[n]! };
  },
  opposite: (random) => {
    const pair = random.pick(opposites);
    const turned = random.int(2);
    return { question: `What is the opposite of ${pair[turned]}?`, answer: pair[1 - turned]! };
  },
  color: (random) => {
    const truth = random.uniform() < 0.5;
    const word = truth ? random.pick(colors).name : random.uniform() < 0.5 ? wordOf(random).word : random.pick(digits);
    return { question: `Is ${word} a color?`, answer: yesNo(truth) };
  },
};

export const factFamilies: readonly string[] = Object.keys(families);

/** Families about concepts have far more members than the small tables, and are drawn more often. */
const weighted = [
  'kind',
  'kind',
  'kind',
  'member',
  'member',
  'member',
  'same',
  'plus',
  'plus',
  'after',
  'before',
  'opposite',
  'color',
  'color',
];

export function sampleFact(random: Random): Fact {
  const family = random.pick(weighted);
  return { family, ...families[family]!(random) };
}

/** Words that facts use, one text per family and word, for the vocabulary. */
export function factTexts(): string[] {
  return [
    'What kind of thing is a cat? What kind of thing is an owl? Is a cat a food? Are a cat and an owl of one kind?',
    'What is one plus two? What comes after one? What comes before two? What is the opposite of left? Is red a color?',
    digits.join(' '),
    opposites.flat().join(' '),
  ];
}
