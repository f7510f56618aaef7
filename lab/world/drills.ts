/**
 * Training-only drills: one text with many small questions and their answers, so that a sequence carries many supervised
 * matches between words and picture. Only the answers carry loss; everything between them is given.
 */
import type { Random } from '../../src/random.ts';
import { categories, concept, places, sides } from './concepts.ts';
import { absent, answerTo, cellOf, present, type Question } from './questions.ts';
import type { Scene } from './scene.ts';

export const drillKinds = ['list', 'probe', 'tally', 'find', 'sides', 'kinds', 'groups'] as const;
export type DrillKind = (typeof drillKinds)[number];

/** `given` is read, `answer` is to be said. */
export interface DrillItem {
  readonly given: string;
  readonly answer: string;
}

export interface Drill {
  readonly kind: DrillKind;
  readonly prompt: string;
  readonly items: readonly DrillItem[];
}

export const drillPrompts: Readonly<Record<DrillKind, string>> = {
  list: 'List all cells.',
  probe: 'Check:',
  tally: 'Count:',
  find: 'Find:',
  sides: 'Beside:',
  kinds: 'Kinds:',
  groups: 'Groups:',
};

export function sampleDrill(random: Random, scene: Scene, kind: DrillKind): Drill {
  return { kind, prompt: drillPrompts[kind], items: sampleItems(random, scene, kind) };
}

const answerOr = (scene: Scene, question: Question): string => answerTo(scene, question) ?? 'none';

function sampleItems(random: Random, scene: Scene, kind: DrillKind): DrillItem[] {
  const there = present(scene);
  // No question is asked twice in a drill: its answer could be copied instead of seen.
  const named = (names: readonly number[], question: (concept: number) => Question): DrillItem[] =>
    random.shuffle(names).map((index) => ({ given: `${concept(index).word}?`, answer: answerOr(scene, question(index)) }));
  const single = there.filter((index) => cellOf(scene, index) !== undefined);
  switch (kind) {
    case 'list':
      return places.map((place, cell) => ({
        given: cell === 0 ? place : `, ${place}`,
        answer: answerOr(scene, { kind: 'place', cell }),
      }));
    case 'probe':
      return named([...there, ...strangers(random, scene, there.length + 2)], (concept) => ({ kind: 'exists', concept }));
    case 'tally':
      return named([...there, ...strangers(random, scene, 2)], (concept) => ({ kind: 'count', concept }));
    case 'find':
      return named([...single, ...strangers(random, scene, 2)], (concept) => ({ kind: 'where', concept }));
    case 'sides': {
      const all = single.flatMap((concept) => sides.map((_, side) => ({ kind: 'relation', side, concept }) as const));
      const answered = all.filter((question) => answerTo(scene, question) !== undefined);
      if (answered.length === 0) return [];
      const empty = random.shuffle(all.filter((question) => !answered.includes(question))).slice(0, 1 + random.int(2));
      return random.shuffle([...answered, ...empty]).map((question) => ({
        given: `${sides[question.side]!.words} the ${concept(question.concept).word}?`,
        answer: answerOr(scene, question),
      }));
    }
    case 'kinds':
      return random.shuffle([0, 1, 2, 3]).map((cell) => ({
        given: `${places[cell]}?`,
        answer: answerOr(scene, { kind: 'kind', cell }),
      }));
    case 'groups':
      return random
        .shuffle(categories)
        .filter((category) => new Set(there.filter((index) => concept(index).category === category)).size < 2)
        .map((category) => ({ given: `${category}?`, answer: answerOr(scene, { kind: 'category', category }) }));
  }
}

/** Distinct concepts that the scene does not show. */
function strangers(random: Random, scene: Scene, count: number): number[] {
  const drawn = new Set<number>();
  while (drawn.size < count) drawn.add(absent(random, scene));
  return [...drawn];
}
