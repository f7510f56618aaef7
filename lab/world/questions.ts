/**
 * Questions about scenes. A question is content (`Question`: kind and what it asks about) apart from wording (a template number);
 * `answerTo` is the one place that says what is true, for lessons, exams and edits alike.
 */
import { answerCue } from '../../src/input/records.ts';
import type { Random } from '../../src/random.ts';
import { allConcepts, type Category, categories, colors, concept, numbers, places, sides, withArticle } from './concepts.ts';
import type { Scene } from './scene.ts';

export const questionKinds = [
  'place',
  'relation',
  'where',
  'count',
  'exists',
  'background',
  'category',
  'kind',
  'caption',
] as const;
export type QuestionKind = (typeof questionKinds)[number];

export type Question =
  | { readonly kind: 'place' | 'kind'; readonly cell: number }
  | { readonly kind: 'relation'; readonly side: number; readonly concept: number }
  | { readonly kind: 'where' | 'exists'; readonly concept: number }
  | { readonly kind: 'count'; readonly concept: number | 'things' }
  | { readonly kind: 'category'; readonly category: Category }
  | { readonly kind: 'background' | 'caption' };

export const templateCount = 8;
/** Key: kind, and `things` for the count of everything. Slots: {place} {side} {name} {a name} {category}. */
export const templates: Readonly<Record<QuestionKind | 'things', readonly string[]>> = {
  place: [
    'What is at the {place}?',
    'What is in the {place} cell?',
    'What do you see at the {place}?',
    'Which thing is at the {place}?',
    'What thing is in the {place} corner?',
    'What sits at the {place}?',
    'What can be seen at the {place}?',
    'At the {place} there is what?',
  ],
  relation: [
    'What is {side} the {name}?',
    'Which thing is {side} the {name}?',
    'What do you see {side} the {name}?',
    'What can be seen {side} the {name}?',
    'What sits {side} the {name}?',
    'What thing is just {side} the {name}?',
    'Just {side} the {name} there is what?',
    'Which thing can you see {side} the {name}?',
  ],
  where: [
    'Where is the {name}?',
    'Where do you see the {name}?',
    'In which cell is the {name}?',
    'Where can the {name} be seen?',
    'At which place is the {name}?',
    'Which corner has the {name}?',
    'Where does the {name} sit?',
    'The {name} is in which corner?',
  ],
  count: [
    'How many times do you see {a name}?',
    'How many times does {a name} appear?',
    'How often do you see {a name}?',
    'How often is {a name} in the picture?',
    'How many times is there {a name}?',
    'How many times can {a name} be seen?',
    'What number of times do you see {a name}?',
    'How often can you see {a name}?',
  ],
  things: [
    'How many things are there?',
    'How many things do you see?',
    'How many things are in the picture?',
    'What is the number of things?',
    'How many things can be seen?',
    'How many things does the picture show?',
    'What number of things do you see?',
    'How many cells have a thing?',
  ],
  exists: [
    'Is there {a name}?',
    'Do you see {a name}?',
    'Is {a name} in the picture?',
    'Can you see {a name}?',
    'Does the picture show {a name}?',
    'Can {a name} be seen?',
    'Does {a name} appear?',
    'Is there {a name} in the picture?',
  ],
  background: [
    'What color is the background?',
    'Which color is the background?',
    'What is the color of the background?',
    'What color is behind the things?',
    'Which color does the background have?',
    'What is the background color?',
    'On which color are the things?',
    'The background has which color?',
  ],
  category: [
    'Which {category} is there?',
    'Which {category} do you see?',
    'What {category} is in the picture?',
    'Which {category} can be seen?',
    'What {category} does the picture show?',
    'Which {category} is in the picture?',
    'What {category} do you see?',
    'The picture shows which {category}?',
  ],
  kind: [
    'What kind of thing is at the {place}?',
    'What kind of thing is in the {place} cell?',
    'Which kind of thing do you see at the {place}?',
    'What kind of thing sits at the {place}?',
    'Of which kind is the thing at the {place}?',
    'What kind of thing can be seen at the {place}?',
    'Which kind of thing is in the {place} corner?',
    'The thing at the {place} is of what kind?',
  ],
  caption: [
    'Describe the picture.',
    'Describe what you see.',
    'Write a caption.',
    'Caption the picture.',
    'Say what is in the picture.',
    'Tell what you see.',
    'Give a short caption.',
    'The picture shows:',
  ],
};

export const templateKey = (question: Question): keyof typeof templates =>
  question.kind === 'count' && question.concept === 'things' ? 'things' : question.kind;

/** The question in words, as a record stores it (without the cue for the answer). */
export function phrase(question: Question, template: number): string {
  const text = templates[templateKey(question)][template];
  if (text === undefined)
    throw new Error(`there is no template ${template} for "${question.kind}": templates are 0 to ${templateCount - 1}`);
  return text.replace(/\{(.+?)\}/g, (_, slot: string) => slotWords(question, slot));
}

function slotWords(question: Question, slot: string): string {
  if (slot === 'place' && 'cell' in question) return places[question.cell]!;
  if (slot === 'side' && 'side' in question) return sides[question.side]!.words;
  if (slot === 'category' && 'category' in question) return question.category;
  if ('concept' in question && question.concept !== 'things') {
    const { word } = concept(question.concept);
    return slot === 'a name' ? withArticle(word) : word;
  }
  throw new Error(`a question of kind "${question.kind}" has nothing for {${slot}}`);
}

/** The full prompt that a model sees: captions as they are, questions with the cue. */
export const prompt = (question: Question, template: number): string =>
  phrase(question, template) + (question.kind === 'caption' ? '' : answerCue);

/** The taught answer, or undefined where the question makes no sense in this scene. */
export function answerTo(scene: Scene, question: Question): string | undefined {
  switch (question.kind) {
    case 'place':
      return wordAt(scene, question.cell);
    case 'kind': {
      const thing = scene.cells[question.cell];
      return thing ? concept(thing.concept).category : undefined;
    }
    case 'relation': {
      const cell = cellOf(scene, question.concept);
      const side = sides[question.side]!;
      if (cell === undefined || !side.from.some((from) => from === cell)) return undefined;
      return wordAt(scene, cell + side.step);
    }
    case 'where': {
      const cell = cellOf(scene, question.concept);
      return cell === undefined ? undefined : places[cell];
    }
    case 'exists':
      return countOf(scene, question.concept) > 0 ? 'yes' : 'no';
    case 'count':
      return numbers[countOf(scene, question.concept)];
    case 'background':
      return colors[scene.background]!.name;
    case 'category': {
      const there = new Set(scene.cells.flatMap((thing) => (thing ? [thing.concept] : [])));
      const fitting = [...there].filter((index) => concept(index).category === question.category);
      return fitting.length === 1 ? concept(fitting[0]!).word : undefined;
    }
    case 'caption':
      return caption(scene);
  }
}

/** "a cat, a dog and an owl on blue": things in reading order. `words` gives cells other words, `color` the background another one. */
export function caption(
  scene: Scene,
  words: ReadonlyMap<number, string> = new Map(),
  color = colors[scene.background]!.name,
): string {
  const names = scene.cells.flatMap((thing, cell) =>
    thing ? [withArticle(words.get(cell) ?? concept(thing.concept).word)] : [],
  );
  const last = names.pop() ?? 'nothing';
  return `${names.length > 0 ? `${names.join(', ')} and ` : ''}${last} on ${color}`;
}

const wordAt = (scene: Scene, cell: number): string | undefined => {
  const thing = scene.cells[cell];
  return thing ? concept(thing.concept).word : undefined;
};

export const countOf = (scene: Scene, index: number | 'things'): number =>
  scene.cells.filter((thing) => thing && (index === 'things' || thing.concept === index)).length;

/** Where a concept is, if it is there exactly once. */
export function cellOf(scene: Scene, index: number): number | undefined {
  const at = scene.cells.flatMap((thing, cell) => (thing?.concept === index ? [cell] : []));
  return at.length === 1 ? at[0] : undefined;
}

export const present = (scene: Scene): number[] => [...new Set(scene.cells.flatMap((thing) => (thing ? [thing.concept] : [])))];

/** A random concept of the pool that the scene does not show. */
export function absent(random: Random, scene: Scene, pool: readonly number[] = allConcepts): number {
  for (;;) {
    const index = random.pick(pool);
    if (countOf(scene, index) === 0) return index;
  }
}

/** A random question of one kind that this scene answers, or undefined; names of absent things come from `pool`. */
export function sampleQuestion(
  random: Random,
  scene: Scene,
  kind: QuestionKind,
  pool: readonly number[] = allConcepts,
): Question | undefined {
  switch (kind) {
    case 'place':
    case 'kind':
      return { kind, cell: random.pick([0, 1, 2, 3].filter((cell) => scene.cells[cell])) };
    case 'exists': {
      const concept = random.uniform() < 0.5 ? random.pick(present(scene)) : absent(random, scene, pool);
      return { kind, concept };
    }
    case 'count': {
      const u = random.uniform();
      if (u < 0.25) return { kind, concept: 'things' };
      if (u < 0.45) return { kind, concept: absent(random, scene, pool) };
      // Weighted by cells: things that appear twice are asked for twice as often.
      return { kind, concept: random.pick(scene.cells.flatMap((thing) => (thing ? [thing.concept] : []))) };
    }
    case 'background':
    case 'caption':
      return { kind };
    case 'where':
      return pickAnswered(
        random,
        scene,
        present(scene).map((concept) => ({ kind, concept })),
      );
    case 'relation': {
      const all = present(scene).flatMap((concept) => sides.map((_, side) => ({ kind, side, concept })));
      return pickAnswered(random, scene, all);
    }
    case 'category':
      return pickAnswered(
        random,
        scene,
        categories.map((category) => ({ kind, category })),
      );
  }
}

function pickAnswered(random: Random, scene: Scene, questions: readonly Question[]): Question | undefined {
  const fitting = questions.filter((question) => answerTo(scene, question) !== undefined);
  return fitting.length > 0 ? random.pick(fitting) : undefined;
}
