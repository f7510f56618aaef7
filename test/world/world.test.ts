import { Tokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { Atlas, objectSizes } from '../../lab/world/atlas.ts';
import { categories, colors, concept, concepts, numbers, places, styles, withArticle } from '../../lab/world/concepts.ts';
import { drillKinds, sampleDrill } from '../../lab/world/drills.ts';
import { examFacts, examMisnamed, examQuestions } from '../../lab/world/exam.ts';
import { factFamilies, sampleFact } from '../../lab/world/facts.ts';
import { encodeLesson, lessonScene, lessonStream } from '../../lab/world/lessons.ts';
import { answerTo, phrase, questionKinds, sampleQuestion, templateCount, templates } from '../../lab/world/questions.ts';
import { canvas, cellSize, render, restyle, type Scene, sampleScene, sceneKey } from '../../lab/world/scene.ts';
import { eosId, tokenizerFiles, unkId, vocabulary, WorldEncoder } from '../../lab/world/vocabulary.ts';
import { Random } from '../../src/random.ts';

let atlas: Atlas;
beforeAll(async () => {
  atlas = await Atlas.load();
});
const seeds = fc.integer({ min: 0, max: 1_000_000 });
const sceneOf = (seed: number): Scene => sampleScene(new Random(`test/${seed}`));

describe('concepts', () => {
  test('72 concepts in four categories, 12 misnamed pairs within a category that swap names', () => {
    expect(concepts.length).toBe(72);
    expect(new Set(concepts.map((c) => c.name)).size).toBe(72);
    expect(categories.map((category) => concepts.filter((c) => c.category === category).length)).toEqual([26, 20, 9, 17]);
    const misnamed = concepts.filter((c) => c.misnamed);
    expect(misnamed.length).toBe(24);
    expect(misnamed.filter((c) => c.misnamed?.split === 'test').length).toBe(8);
    for (const c of misnamed) {
      const partner = concept(c.misnamed!.partner);
      expect(partner.misnamed).toEqual({ split: c.misnamed!.split, partner: c.index });
      expect([partner.category, partner.word, c.word]).toEqual([c.category, c.name, partner.name]);
    }
    expect(concepts.filter((c) => !c.misnamed).every((c) => c.word === c.name)).toBe(true);
  });
});

describe('scenes', () => {
  test('objects stay inside their cells', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const scene = sceneOf(seed);
        const things = scene.cells.filter((thing) => thing !== null);
        expect(things.length).toBeGreaterThanOrEqual(1);
        for (const { x, y, size } of things) {
          expect(objectSizes).toContain(size);
          expect(Math.min(x, y)).toBeGreaterThanOrEqual(0);
          expect(Math.max(x, y) + size).toBeLessThanOrEqual(cellSize);
        }
        const pixels = render(atlas, scene);
        const [r, g, b] = colors[scene.background]!.rgb;
        scene.cells.forEach((thing, cell) => {
          let drawn = 0;
          for (let y = 0; y < cellSize; y++) {
            for (let x = 0; x < cellSize; x++) {
              const at = (((cell >> 1) * cellSize + y) * canvas + (cell % 2) * cellSize + x) * 3;
              if (pixels[at] !== r || pixels[at + 1] !== g || pixels[at + 2] !== b) drawn++;
            }
          }
          if (thing) expect(drawn).toBeGreaterThan(50);
          else expect(drawn).toBe(0);
        });
      }),
      { numRuns: 60 },
    );
  });

  test('the four styles of a concept differ, and every sprite is visible', () => {
    const size = 30;
    for (let c = 0; c < concepts.length; c++) {
      const looks = styles.map((_, style) => {
        const { pixels, offset } = atlas.sprite(style, c, size);
        return Buffer.from(pixels.subarray(offset, offset + size * size * 4)).toString('latin1');
      });
      expect(new Set(looks).size).toBe(styles.length);
    }
  });

  test('another style keeps the content', () => {
    const scene = sceneOf(5);
    const other = restyle(new Random(1), scene);
    expect(sceneKey(other)).toBe(sceneKey(scene));
    expect(other.style).not.toBe(scene.style);
  });

  test('duplicates, every count, colour and style occur', () => {
    const scenes = Array.from({ length: 400 }, (_, i) => sceneOf(i));
    const doubled = scenes.filter((s) => {
      const there = s.cells.flatMap((thing) => (thing ? [thing.concept] : []));
      return new Set(there).size < there.length;
    });
    expect(doubled.length).toBeGreaterThan(80);
    expect(new Set(scenes.map((s) => s.cells.filter(Boolean).length)).size).toBe(4);
    expect(new Set(scenes.map((s) => s.background)).size).toBe(colors.length);
    expect(new Set(scenes.map((s) => s.style)).size).toBe(styles.length);
  });
});

/** Answers a question from its words alone, reading cells as a table: written apart from `answerTo`. */
function solve(scene: Scene, text: string): string | undefined {
  const grid = scene.cells.map((thing) => (thing ? concept(thing.concept).word : ''));
  const kinds = scene.cells.map((thing) => (thing ? concept(thing.concept).category : ''));
  const has = (word: string): boolean => new RegExp(`\\b${word}\\b`).test(text);
  const name = concepts.map((c) => c.word).find(has);
  const place = places.findIndex(has);
  const side = ['left of', 'right of', 'above', 'below'].findIndex(has);
  const seen = (word: string): number => grid.filter((cell) => cell === word).length;
  if (/background|behind|On which color/.test(text)) return colors[scene.background]!.name;
  if (place >= 0) return (has('kind') ? kinds[place] : grid[place]) || undefined;
  if (name && side >= 0) {
    if (seen(name) !== 1) return undefined;
    const [row, column] = [Math.floor(grid.indexOf(name) / 2), grid.indexOf(name) % 2];
    const [r, c] = [row + [0, 0, -1, 1][side]!, column + [-1, 1, 0, 0][side]!];
    return r < 0 || r > 1 || c < 0 || c > 1 ? undefined : grid[r * 2 + c] || undefined;
  }
  if (name && /^(Where|In which|At which|Which corner|The .* which corner)/.test(text)) {
    return seen(name) === 1 ? places[grid.indexOf(name)] : undefined;
  }
  if (/How (many times|often)|number of times/.test(text)) return numbers[seen(name!)];
  if (/How many|number of things/.test(text)) return numbers[grid.filter(Boolean).length];
  if (name) return seen(name) > 0 ? 'yes' : 'no';
  const category = categories.find(has);
  const fitting = new Set(grid.filter((_, cell) => kinds[cell] === category));
  return category && fitting.size === 1 ? [...fitting][0] : undefined;
}

describe('questions', () => {
  test('every kind has eight different templates', () => {
    for (const list of Object.values(templates)) expect(new Set(list).size).toBe(templateCount);
    const all = Object.values(templates).flat();
    expect(new Set(all).size).toBe(all.length);
    for (const [kind, list] of Object.entries(templates))
      expect(list.every((t) => t.endsWith('?') === (kind !== 'caption'))).toBe(true);
  });

  test('answers agree with the cells', () => {
    fc.assert(
      fc.property(seeds, fc.constantFrom(...questionKinds), fc.integer({ min: 0, max: 7 }), (seed, kind, template) => {
        const scene = sceneOf(seed);
        const question = sampleQuestion(new Random(seed), scene, kind);
        if (!question) return;
        const text = phrase(question, template);
        expect(text).not.toMatch(/[{}]|undefined/);
        const answer = answerTo(scene, question);
        if (kind === 'caption') {
          const names = scene.cells.flatMap((thing) => (thing ? [withArticle(concept(thing.concept).word)] : []));
          expect(answer!.replace(' on ', ', ').replace(' and ', ', ').split(', ')).toEqual([
            ...names,
            colors[scene.background]!.name,
          ]);
        } else {
          expect(answer).toBeDefined();
          expect(`${text} ${answer}`).toBe(`${text} ${solve(scene, text)}`);
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('yes and no are balanced', () => {
    const answers = Array.from({ length: 1000 }, (_, i) =>
      answerTo(sceneOf(i), sampleQuestion(new Random(i), sceneOf(i), 'exists')!),
    );
    expect(answers.filter((answer) => answer === 'yes').length / 1000).toBeCloseTo(0.5, 1);
  });

  test('drills ask nothing twice and answer as questions do', () => {
    for (let i = 0; i < 200; i++) {
      const scene = sceneOf(i);
      for (const kind of drillKinds) {
        const { items } = sampleDrill(new Random(i), scene, kind);
        expect(new Set(items.map((item) => item.given)).size).toBe(items.length);
        if (kind === 'probe') for (const { given, answer } of items) expect(answer).toBe(solve(scene, `Is there a ${given}`));
      }
    }
  });

  test('facts are true', () => {
    const kindOf = new Map(concepts.map((c) => [c.word, c.category as string]));
    for (let i = 0; i < 500; i++) {
      const { family, question, answer } = sampleFact(new Random(i));
      expect(factFamilies).toContain(family);
      const named = [...question.matchAll(/\b[a-z]+\b/g)].map(([word]) => word).filter((word) => kindOf.has(word));
      if (family === 'kind') expect(answer).toBe(kindOf.get(named[0]!));
      if (family === 'same') expect(answer).toBe(kindOf.get(named[0]!) === kindOf.get(named[1]!) ? 'yes' : 'no');
      if (family === 'member') expect(answer).toBe(question.endsWith(` ${kindOf.get(named[0]!)}?`) ? 'yes' : 'no');
      if (family === 'color') expect(answer).toBe(colors.some((c) => question === `Is ${c.name} a color?`) ? 'yes' : 'no');
    }
  });
});

describe('lessons and exam', () => {
  test('scene i depends on the seed and i alone', () => {
    const stream = lessonStream(atlas, 7);
    const inOrder = Array.from({ length: 5 }, () => stream.next().value);
    expect(inOrder.map((s) => s.index)).toEqual([0, 1, 2, 3, 4]);
    expect(lessonScene(atlas, 7, 3)).toEqual(inOrder[3]);
    expect(lessonStream(atlas, '7', { start: 4 }).next().value).toEqual(inOrder[4]);
    expect(lessonScene(atlas, 8, 3)).not.toEqual(inOrder[3]);
  });

  test('options: how many, which kinds', () => {
    const weights = Object.fromEntries([...questionKinds, ...drillKinds].map((kind) => [kind, kind === 'probe' ? 1 : 0]));
    const { lessons, facts } = lessonScene(atlas, 7, 0, { perScene: 3, facts: 2, weights });
    expect(lessons.map((lesson) => lesson.kind)).toEqual(['probe', 'probe', 'probe']);
    expect(facts.length).toBe(2);
  });

  test('drills carry loss on their answers only, everything else on the whole answer and the end', () => {
    for (let i = 0; i < 100; i++) {
      for (const lesson of lessonScene(atlas, 7, i).lessons) {
        const { answer, loss } = encodeLesson(lesson, false);
        expect(answer.at(-1)).toBe(eosId);
        const learned = answer.filter((_, at) => loss[at] === 1);
        if (!lesson.spans) expect(learned).toEqual(answer);
        else {
          const said = new WorldEncoder().decode(learned);
          const items = lesson.kind === 'list' ? lesson.answer.split(', ') : lesson.answer.split('? ').slice(1);
          expect(learned.length).toBeLessThan(answer.length / 2 + 1);
          if (lesson.kind === 'probe') expect(said.split(' ')).toEqual(items.map((item) => item.split(' ')[0]));
          if (lesson.kind === 'list') expect(said.split(' ')).toEqual(items.map((item) => item.split(' ')[2]));
        }
      }
    }
  });

  test('the exam names no misnamed concept; `misnamed` asks for the truth', () => {
    const wrong = concepts.filter((c) => c.misnamed).map((c) => c.name);
    const exam = [...examQuestions(atlas, 3, 60)];
    expect(exam).toEqual([...examQuestions(atlas, 3, 60)]);
    expect(new Set(exam.flatMap((s) => s.questions.map((q) => q.kind)))).toEqual(new Set(questionKinds));
    for (const { questions } of exam) {
      for (const { prompt, answer } of questions) {
        expect(`${prompt} ${answer}`.split(/[^a-z]+/i).filter((word) => wrong.includes(word))).toEqual([]);
      }
    }
    for (const { scene, questions } of examMisnamed(atlas, 3, 20)) {
      const { prompt, answer, taught } = questions[0]!;
      expect(solve(scene, prompt)).toBe(taught);
      expect(concepts.find((c) => c.word === taught)?.name).toBe(answer);
    }
    expect([...examFacts(3, 4)].map((fact) => fact.prompt.endsWith('The answer is:'))).toEqual([true, false, true, false]);
  });
});

describe('tokenizer', () => {
  const files = tokenizerFiles();
  const tokenizer = new Tokenizer(files['tokenizer.json'] as object, files['tokenizer_config.json'] as object);
  const bare = (text: string): number[] => tokenizer.encode(text, { add_special_tokens: false }).ids;

  test('pieces are distinct; every answer word after the cue is one piece', () => {
    expect(new Set(vocabulary.map((v) => v.piece)).size).toBe(vocabulary.length);
    const words = [
      ...concepts.map((c) => c.name),
      ...categories,
      ...colors.map((c) => c.name),
      ...numbers,
      'yes',
      'no',
      'none',
      'top',
      'left',
    ];
    for (const word of words) {
      const cue = bare('What is it? The answer is:');
      const whole = bare(`What is it? The answer is: ${word}`);
      expect(whole.slice(0, cue.length)).toEqual(cue);
      expect(whole.length).toBe(cue.length + 1);
      expect(bare(` ${word}`)).toEqual(whole.slice(-1));
    }
  });

  test('any ASCII text survives; one leading space is the mark itself', () => {
    const ascii = fc.string({
      unit: fc.constantFrom(...Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)), '\n', '\t'),
      minLength: 1,
    });
    fc.assert(
      fc.property(ascii, (text) => {
        fc.pre(!/<(unk|s|\/s|image|pad)>/.test(text));
        const ids = bare(text);
        expect(ids).not.toContain(unkId);
        expect(tokenizer.decode(ids, { clean_up_tokenization_spaces: false })).toBe(text.replace(/^ /, ''));
      }),
      { numRuns: 500 },
    );
  });

  test('special tokens, and a line break that is one piece', () => {
    expect(tokenizer.encode('<image>\nWhat is at the top left?').ids.slice(0, 4)).toEqual([
      1,
      3,
      new WorldEncoder().id('\n'),
      new WorldEncoder().id('What'),
    ]);
    const opt = tokenizerFiles({ bos: '</s>' });
    expect(new Tokenizer(opt['tokenizer.json'] as object, opt['tokenizer_config.json'] as object).encode('cat').ids[0]).toBe(2);
  });

  test('the fast encoder agrees with the tokenizer on all texts of the world, and these need no characters', () => {
    const encoder = new WorldEncoder();
    const letters = new Set(vocabulary.flatMap(({ piece }, id) => (/^[A-Za-z▁]$/.test(piece) ? [id] : [])));
    for (let i = 0; i < 150; i++) {
      const scene = lessonScene(atlas, 11, i);
      for (const lesson of [...scene.lessons, ...scene.facts]) {
        const text = `${lesson.prompt} ${lesson.answer}`;
        const plain = encodeLesson(lesson, true);
        const after = encodeLesson(lesson, false);
        expect([...plain.prompt, ...plain.answer.slice(0, -1)]).toEqual(bare(text));
        expect([3, encoder.id('\n'), ...after.prompt, ...after.answer.slice(0, -1)]).toEqual(bare(`<image>\n${text}`));
        expect([...plain.prompt, ...plain.answer, ...after.prompt].filter((id) => letters.has(id) || id === unkId)).toEqual([]);
        expect(encoder.decode(plain.answer)).toBe(lesson.answer);
      }
    }
  });
});
