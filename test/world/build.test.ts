import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Atlas } from '../../lab/world/atlas.ts';
import { buildWorld, type WorldManifest } from '../../lab/world/build.ts';
import { composeRecords, type RecordSet } from '../../lab/world/compose.ts';
import { colors, concept, concepts, type Split } from '../../lab/world/concepts.ts';
import { answerTo, countOf, phrase, templateKey } from '../../lab/world/questions.ts';
import { render, sceneKey } from '../../lab/world/scene.ts';
import { EditSplitter } from '../../lab/world/split.ts';
import { loadRecords } from '../../src/input/records.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-world-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const sizes = { vqaTrain: 12, vqaTest: 6, captionTrain: 5, captionTest: 4 };
const names = concepts.map((c) => c.name);
const namesIn = (text: string): string[] => text.split(/[^a-z]+/i).filter((word) => names.includes(word));

describe.each([1, 7, 2024])('the edits of seed %i', (seed) => {
  const splitter = new EditSplitter();
  const of = (what: 'vqa' | 'caption', split: Split, count: number): RecordSet =>
    composeRecords(splitter, seed, what, split, count);
  const train = [of('vqa', 'train', 600), of('caption', 'train', 200)];
  const tests = [of('vqa', 'test', 300), of('caption', 'test', 100)];
  const all = (sets: readonly RecordSet[]) =>
    sets.flatMap((set) => set.records.map((record, i) => ({ record, draft: set.drafts[i]! })));

  test('train and test share no scene', () => {
    const keys = (sets: readonly RecordSet[]) =>
      new Set(sets.flatMap((set) => set.pictures.map((picture) => sceneKey(picture.scene))));
    const trained = keys(train);
    expect([...keys(tests)].filter((key) => trained.has(key))).toEqual([]);
  });

  test('train and test share no pair of template and concept', () => {
    const pairs = (sets: readonly RecordSet[]) =>
      new Set(
        all(sets).flatMap(({ record, draft }) => {
          const named = namesIn(`${record.src} ${record.pred} ${record.alt}`);
          const words = named.length > 0 ? named : [record.pred, record.alt];
          return [draft.template, draft.rephrase].flatMap((t) =>
            words.map((word) => `${templateKey(draft.question)}/${t}/${word}`),
          );
        }),
      );
    const trained = pairs(train);
    expect([...pairs(tests)].filter((pair) => trained.has(pair))).toEqual([]);
  });

  test('corrections of train and test share no concept', () => {
    const named = (sets: readonly RecordSet[]) =>
      new Set(
        all(sets)
          .filter(({ record }) => record.edit === 'correction')
          .flatMap(({ record }) => namesIn(`${record.src} ${record.pred} ${record.alt}`)),
      );
    const trained = named(train);
    expect([...named(tests)].filter((name) => trained.has(name))).toEqual([]);
    expect(named(tests).size).toBeGreaterThanOrEqual(8);
  });

  test('records say what their pictures show', () => {
    for (const set of [...train, ...tests]) {
      const byFile = new Map(set.pictures.map((picture) => [picture.file, picture.scene]));
      expect(byFile.size).toBe(set.pictures.length);
      set.records.forEach((record, i) => {
        const { question, scene, template, rephrase, restyled } = set.drafts[i]!;
        expect(byFile.get(record.image)).toBe(scene);
        expect(byFile.get(record.image_rephrase)).toBe(restyled);
        expect([record.src, record.rephrase]).toEqual([phrase(question, template), phrase(question, rephrase)]);
        expect(record.src).not.toBe(record.rephrase);
        expect([answerTo(scene, question), answerTo(restyled, question)]).toEqual([record.pred, record.pred]);
        expect(record.alt).not.toBe(record.pred);
        const alike = byFile.get(record.q_loc)!;
        expect(answerTo(alike, question)).toBe(record.q_loc_a);
        expect(record.q_loc_a).not.toBe(record.alt);
        for (const other of [alike, byFile.get(record.m_loc)!]) expect(sceneKey(other)).not.toBe(sceneKey(scene));
        expect(record.loc).not.toMatch(/\?$/);
        expect(record.s_loc_q).not.toBe(record.src);
        const changed = namesIn(record.alt).filter((name) => !namesIn(record.pred).includes(name));
        for (const name of changed) expect(`${record.s_loc_q} ${record.s_loc_a}`.split(/[^a-z]+/i)).not.toContain(name);
        if (record.kind !== 'caption')
          for (const word of changed)
            expect(
              countOf(
                scene,
                concepts.findIndex((c) => c.word === word),
              ),
            ).toBe(0);
      });
    }
  });

  test('a correction gives the real name, a counterfactual does not', () => {
    for (const { record } of all([...train, ...tests])) {
      const said = namesIn(record.pred);
      const wanted = namesIn(record.alt);
      const at = said.findIndex((name, i) => name !== wanted[i]);
      if (at < 0) continue;
      const shown = concepts.find((c) => c.word === said[at])!;
      expect(wanted[at] === shown.name).toBe(record.edit === 'correction');
      expect(said.filter((name, i) => name !== wanted[i]).length).toBe(1);
    }
  });

  test('kinds and corrections have their shares', () => {
    const records = [...train[0]!.records, ...tests[0]!.records];
    const share = (accept: (record: (typeof records)[number]) => boolean) => records.filter(accept).length / records.length;
    expect(share((r) => r.edit === 'correction')).toBeCloseTo(0.27, 1);
    expect(share((r) => r.kind === 'place')).toBeCloseTo(0.4, 1);
    expect(share((r) => r.kind === 'relation')).toBeCloseTo(0.2, 1);
    expect(share((r) => r.kind === 'category')).toBeCloseTo(0.2, 1);
    expect(new Set(records.map((r) => r.kind))).toEqual(
      new Set(['place', 'relation', 'category', 'background', 'count', 'where', 'kind']),
    );
  });

  test('misnamed concepts are corrected in their split, and those of training are nowhere in the test', () => {
    for (const [sets, split] of [
      [train, 'train'],
      [tests, 'test'],
    ] as const) {
      const chosen = all(sets).filter(({ record }) => split === 'test' || record.edit === 'correction');
      const touched = chosen.flatMap(({ record }) => namesIn(`${record.src} ${record.pred} ${record.alt}`));
      const wrong = touched.map((name) => concept(names.indexOf(name)).misnamed?.split).filter((of) => of !== undefined);
      expect(new Set(wrong)).toEqual(new Set([split]));
    }
  });
});

describe('worlds of different seeds', () => {
  const splitter = new EditSplitter();
  const sets = (seed: number, split: Split, hard = false): RecordSet[] =>
    (['vqa', 'caption'] as const).map((what) => composeRecords(splitter, seed, what, split, 300, hard));
  const train = sets(1, 'train');
  const keysOf = (all: readonly RecordSet[]): Set<string> =>
    new Set(all.flatMap((set) => set.pictures.map(({ scene }) => sceneKey(scene))));
  const asked = (all: readonly RecordSet[]): Set<string> =>
    new Set(all.flatMap(({ records }) => records.flatMap(({ src, rephrase, alt }) => [`${src}/${alt}`, `${rephrase}/${alt}`])));

  test("what one world trains on is in no other world's test: scenes, and pairs of question and target", () => {
    for (const seed of [2, 77]) {
      for (const hard of [false, true]) {
        const tests = sets(seed, 'test', hard);
        for (const [trained, tested] of [
          [keysOf(train), keysOf(tests)],
          [asked(train), asked(tests)],
        ] as const)
          expect([...tested].filter((one) => trained.has(one))).toEqual([]);
        // Every test scene is on the side of the test, whether a world of finite size drew it for training or not.
        const scenes = tests.flatMap(({ pictures }) => pictures.map(({ scene }) => splitter.scene(scene)));
        expect(new Set(scenes)).toEqual(new Set(['test']));
      }
    }
  });

  test("with splits by seed, as in version 1, three quarters of another seed's test scenes are on the training side", () => {
    const other = composeRecords(new EditSplitter(77), 77, 'vqa', 'test', 600);
    const sides = other.drafts.map(({ scene }) => splitter.scene(scene));
    const share = sides.filter((side) => side === 'train').length / sides.length;
    expect(share).toBeGreaterThan(0.7);
    expect(share).toBeLessThan(0.8);
  });
});

describe('hard worlds', () => {
  const splitter = new EditSplitter();
  const of = (what: 'vqa' | 'caption', split: Split, count: number): RecordSet =>
    composeRecords(splitter, 5, what, split, count, true);
  const [train, tests] = [of('vqa', 'train', 3000), of('vqa', 'test', 300)];
  const words = new Set(concepts.map(({ word }) => word));
  const colorNames = new Set(colors.map(({ name }) => name));

  test('targets are a colour and a name; no pair of the test is trained on or taught, each of its words is', () => {
    const targets = (set: RecordSet): string[] => set.records.map(({ alt }) => alt);
    for (const target of [...targets(train), ...targets(tests)]) {
      const [color, word, ...more] = target.split(' ');
      expect([colorNames.has(color!), words.has(word!), more]).toEqual([true, true, []]);
    }
    const trained = new Set(targets(train));
    expect(targets(tests).filter((target) => trained.has(target))).toEqual([]);
    const seen = new Set([...trained].flatMap((target) => target.split(' ')));
    expect(targets(tests).flatMap((target) => target.split(' ').filter((word) => !seen.has(word)))).toEqual([]);
    // The world answers with colours and with names, never with both.
    for (const { pred, s_loc_a, q_loc_a, m_loc_a } of train.records)
      for (const answer of [pred, s_loc_a, q_loc_a, m_loc_a]) {
        const [first, second] = answer.split(' ');
        expect(colorNames.has(first!) && words.has(second ?? '')).toBe(false);
      }
  });

  test('text-only questions of the test are in no training record', () => {
    const asked = (sets: readonly RecordSet[]): string[] => sets.flatMap(({ records }) => records.map(({ loc }) => loc));
    const trained = new Set(asked([train, of('caption', 'train', 300)]));
    expect(asked([tests, of('caption', 'test', 100)]).filter((question) => trained.has(question))).toEqual([]);
  });

  test('captions share fewer than half of their words with what is taught', () => {
    const { records } = of('caption', 'test', 200);
    const shared = records.map(({ pred, alt }) => {
      const [said, wanted] = [pred.match(/\w+/g)!, alt.match(/\w+/g)!];
      return wanted.filter((word, i) => said[i] === word).length / wanted.length;
    });
    expect(shared.reduce((sum, one) => sum + one, 0) / shared.length).toBeLessThan(0.4);
    for (const { pred, alt } of records) expect(alt.split(' on ')[1]).not.toBe(pred.split(' on ')[1]);
  });

  test('noise and grey pictures are in the folder and in the records', async () => {
    const out = join(folder, 'hard');
    const manifest = await buildWorld({ seed: 5, out, sizes, hard: true });
    expect(manifest).toMatchObject({ hard: true, split: 'content' });
    expect(await buildWorld({ seed: 5, out: join(folder, 'hard-again'), sizes, hard: true })).toEqual(manifest);
    const [record] = loadRecords(join(out, 'vqa_test.json'), join(out, 'images'));
    const { noise, grey } = record!.hard!;
    expect([noise!.prompt, grey!.prompt]).toEqual([record!.request.prompt, record!.request.prompt]);
    const spread = async (file: string): Promise<number> => {
      const { channels } = await sharp(file).stats();
      return channels[0]!.stdev;
    };
    expect(await spread(noise!.image!)).toBeGreaterThan(60);
    expect(await spread(grey!.image!)).toBe(0);
  });
});

describe('building', () => {
  const out = join(folder, 'world');
  let manifest: WorldManifest;
  const progress: string[] = [];
  beforeAll(async () => {
    manifest = await buildWorld({ seed: 7, out, sizes, onProgress: (done, total) => progress.push(`${done}/${total}`) });
  });

  test('writes four record files that load, the pictures and a manifest', async () => {
    expect(readdirSync(out).sort()).toEqual([
      'caption_test.json',
      'caption_train.json',
      'images',
      'manifest.json',
      'vqa_test.json',
      'vqa_train.json',
    ]);
    const counts = ['vqa_train', 'vqa_test', 'caption_train', 'caption_test'].map(
      (name) => loadRecords(join(out, `${name}.json`), join(out, 'images')).length,
    );
    expect(counts).toEqual([12, 6, 5, 4]);
    expect(JSON.parse(readFileSync(join(out, 'manifest.json'), 'utf8'))).toEqual(manifest);
    expect(readdirSync(join(out, 'images')).length).toBe(manifest.images);
    expect(progress.at(-1)).toBe(`${manifest.images}/${manifest.images}`);
    const record = loadRecords(join(out, 'vqa_test.json'), join(out, 'images'))[2]!;
    expect(record.queries.reliability.prompt).toMatch(/\? The answer is:$/);
    const draft = composeRecords(new EditSplitter(), 7, 'vqa', 'test', 6).drafts[2]!;
    const pixels = await sharp(record.request.image).raw().toBuffer();
    expect(Buffer.compare(pixels, Buffer.from(render(await Atlas.load(), draft.scene)))).toBe(0);
  });

  test('the same seed gives the same world, another seed another', async () => {
    expect(await buildWorld({ seed: '7', out: join(folder, 'again'), sizes })).toEqual(manifest);
    const other = await buildWorld({ seed: 8, out: join(folder, 'other'), sizes });
    for (const name of Object.keys(manifest.hashes)) expect(other.hashes[name]).not.toBe(manifest.hashes[name]);
  });

  test('the same records as in version 1 with seed 1, and with another seed where the split is by seed', async () => {
    const small = { vqaTrain: 6, vqaTest: 6, captionTrain: 0, captionTest: 0 };
    const records = (of: WorldManifest): (string | undefined)[] =>
      ['vqa_train.json', 'vqa_test.json'].map((name) => of.hashes[name]);
    const one = await buildWorld({ seed: 1, out: join(folder, 'one'), sizes: small });
    const by = await buildWorld({ seed: 1, out: join(folder, 'one-by-seed'), sizes: small, split: 'seed' });
    expect(records(one)).toEqual(records(by));
    const seven = await buildWorld({ seed: 7, out: join(folder, 'seven'), sizes: small });
    const before = await buildWorld({ seed: 7, out: join(folder, 'seven-by-seed'), sizes: small, split: 'seed' });
    expect(records(seven)).not.toEqual(records(before));
    expect(before.split).toBe('seed');
  });

  test('never touches a folder with something in it, leaves nothing behind when it fails', async () => {
    await expect(buildWorld({ seed: 7, out, sizes })).rejects.toThrow(/is not empty/);
    const failing = join(folder, 'failing');
    const stop = () => {
      throw new Error('stopped');
    };
    await expect(buildWorld({ seed: 7, out: failing, sizes, onProgress: stop })).rejects.toThrow('stopped');
    expect(readdirSync(folder).filter((name) => name.startsWith('failing'))).toEqual([]);
  });

  test('clears what a killed build left, and builds into an empty folder', async () => {
    const target = join(folder, 'killed');
    mkdirSync(target);
    mkdirSync(`${target}.partial-999999999`);
    writeFileSync(join(`${target}.partial-999999999`, 'x'), '');
    await buildWorld({ seed: 7, out: target, sizes });
    expect(existsSync(`${target}.partial-999999999`)).toBe(false);
    expect(existsSync(join(target, 'manifest.json'))).toBe(true);
  });

  test('sizes are checked', async () => {
    await expect(buildWorld({ seed: 7, out: join(folder, 'bad'), sizes: { vqaTest: 1.5 } })).rejects.toThrow(
      /vqaTest must be a whole number/,
    );
  });
});
