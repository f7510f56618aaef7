/** Questions about two pictures: only one picture fits, the words are the minis', and an exam asks them in both orders. */
import { expect, test } from 'vitest';
import { exam } from '../../lab/pretraining/exam.ts';
import { Atlas } from '../../lab/world/atlas.ts';
import { colors, concept, plainConcepts, withArticle } from '../../lab/world/concepts.ts';
import { examPairs, pairKinds, pairLessons, pairTemplates } from '../../lab/world/pairs.ts';
import { sampleScene } from '../../lab/world/scene.ts';
import { unkId, vocabulary, WorldEncoder } from '../../lab/world/vocabulary.ts';
import { loadModel } from '../../src/models/load.ts';
import { Random } from '../../src/random.ts';

const encoder = new WorldEncoder();
const isWord = (id: number): boolean => id !== unkId && /^▁?[A-Za-z]{2,}$|^▁a$/.test(vocabulary[id]!.piece);

/** What a question asks for, as it is written in it. */
const shown = (scene: ReturnType<typeof sampleScene>): string[] => [
  ...scene.cells.flatMap((thing) => (thing ? [withArticle(concept(thing.concept).word)] : [])),
  withArticle(`${colors[scene.background]!.name} background`),
];

test('exactly the picture that is the answer shows what is asked for', async () => {
  const counts = new Map<string, number>();
  for (const { scenes, questions } of examPairs(await Atlas.load(), 'pairs', 200)) {
    for (const { kind, prompt, answer, other } of questions) {
      const fits = scenes.map((scene) => shown(scene).some((what) => prompt.includes(`${what} `) || prompt.includes(`${what}?`)));
      expect(fits).toEqual([answer === 'one', answer === 'two']);
      expect([answer, other].sort()).toEqual(['one', 'two']);
      counts.set(`${kind} ${answer}`, (counts.get(`${kind} ${answer}`) ?? 0) + 1);
    }
  }
  expect(counts.size).toBe(2 * pairKinds.length);
  for (const count of counts.values()) expect(count).toBeGreaterThan(60);
});

test('every word is one that the minis have', () => {
  const random = new Random('words');
  const asked = Array.from({ length: 60 }, () => pairLessons(random, [sampleScene(random), sampleScene(random)], 4)).flat();
  const texts = [
    ...pairTemplates.map((text) => text.replace('{what}', 'a pizza')),
    ...asked.flatMap((l) => [l.prompt, l.answer]),
  ];
  for (const text of texts) {
    const words = encoder.encode(text.replace(/[?:.]/g, ''), true);
    expect(words.every(isWord), text).toBe(true);
  }
  expect(new Set(asked.map(({ prompt }) => prompt)).size).toBeGreaterThan(100);
});

test('pairs are functions of the seed, and differ from scene to scene', async () => {
  const atlas = await Atlas.load();
  const drawn = [...examPairs(atlas, 1, 5)];
  expect([...examPairs(atlas, 1, 5)]).toEqual(drawn);
  expect([...examPairs(atlas, 2, 5)]).not.toEqual(drawn);
  const large = [...examPairs(atlas, 1, 1, [72, 108])][0]!;
  expect(large.questions).toEqual(drawn[0]!.questions);
  for (const image of large.images) expect(image).toHaveLength(72 * 108 * 3);
  for (const { scenes } of drawn)
    for (const scene of scenes) for (const thing of scene.cells) if (thing) expect(plainConcepts).toContain(thing.concept);
});

test('an exam asks about pairs of pictures in both orders', async () => {
  const vlm = loadModel('mini-llava', { threads: 1 });
  const { pairs } = await exam(vlm, { seed: 1, scenes: 1, pairs: 4 });
  await vlm.release();
  expect(pairs!.count).toBeGreaterThanOrEqual(6);
  expect(Object.keys(pairs!.inOrder.kinds).sort()).toEqual([...pairKinds].sort());
  expect(pairs!.swapped.overall).toBeLessThanOrEqual(1);
});
