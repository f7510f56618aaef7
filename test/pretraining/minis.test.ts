/** The built-in minis: published layouts that open, lessons packed as the model lays out a prompt, a residual stream that can be rescaled. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decoderTrainer } from '../../lab/pretraining/decoder.ts';
import { rescaleResidual, writeMini } from '../../lab/pretraining/finish.ts';
import { cellsOf, homeCells, homeShares } from '../../lab/pretraining/homes.ts';
import { initialWeights } from '../../lab/pretraining/initial.ts';
import { minis } from '../../lab/pretraining/minis.ts';
import { type Prefix, pack } from '../../lab/pretraining/pack.ts';
import { scenePictures } from '../../lab/pretraining/pictures.ts';
import { miniNamed, miniPrefix } from '../../lab/pretraining/pretrain.ts';
import { decoderStage } from '../../lab/pretraining/stages.ts';
import { Atlas } from '../../lab/world/atlas.ts';
import { type LessonScene, lessonScene } from '../../lab/world/lessons.ts';
import { pairLessons } from '../../lab/world/pairs.ts';
import { eosId } from '../../lab/world/vocabulary.ts';
import { f32, type Tensor } from '../../src/graph/dtype.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import { loadModel, weightShapes } from '../../src/models/load.ts';
import { patchMap } from '../../src/models/patch-map.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Random } from '../../src/random.ts';

const MiB = 2 ** 20;
const folder = mkdtempSync(join(tmpdir(), 'visedit-minis-'));
afterAll(() => rmSync(folder, { recursive: true }));

let scenes: LessonScene[];
beforeAll(async () => {
  const atlas = await Atlas.load();
  scenes = Array.from({ length: 12 }, (_, i) => lessonScene(atlas, 'minis', i, { perScene: 6, drills: 2, facts: 2 }));
});

const picture = ({ image }: LessonScene): RgbImage => ({ width: 72, height: 72, data: image });

describe.each(Object.keys(minis))('%s', (name) => {
  const mini = miniNamed(name);
  let vlm: Vlm;
  // Biases and norms away from zero and one, so that nothing hides behind them.
  const weights = new Map(
    [...initialWeights(weightShapes(mini.architecture), 5, mini.mimetic)].map(([key, t]): [string, Tensor<'float32'>] => {
      const random = new Random(`shaken/${key}`);
      const shaken = t.shape.length === 1 ? random.normals(t.data.length, 0.1).map((x, i) => x + t.data[i]!) : t.data;
      return [key, f32(/embed_tokens|embed_positions/.test(key) ? shaken.map((x) => 8 * x) : shaken, t.shape)];
    }),
  );

  beforeAll(() => {
    writeMini(mini, weights, join(folder, name), { model: name });
    vlm = loadModel(join(folder, name), { threads: 1 });
  });
  afterAll(() => vlm?.release());

  test('is small, and opens in its published layout', async () => {
    expect(statSync(join(folder, name, 'model.safetensors')).size).toBeLessThan(12 * MiB);
    expect(vlm.eosIds).toEqual([eosId]);
    const scene = scenes[0]!;
    const prompt = scene.lessons[0]!.prompt;
    const batch = await vlm.batch([vlm.layout({ prompt, image: picture(scene) })]);
    const logits = await vlm.logits(batch);
    expect(logits.data.every(Number.isFinite)).toBe(true);
  });

  test('a lesson stands in the packed sequence as the model lays it out alone', () => {
    const prefix = miniPrefix(mini);
    for (const scene of scenes) {
      const text = (ids: readonly number[]): string => ids.join(' ');
      const alone = (part: Partial<LessonScene>): number[] => {
        const { feeds } = pack([{ ...scene, lessons: [], facts: [], ...part }], prefix);
        return Array.from(feeds.ids!.data as BigInt64Array, Number);
      };
      for (const lesson of scene.lessons) {
        const laid = vlm.layout({ prompt: lesson.prompt, image: vlm.anyPicture }, lesson.answer);
        expect(laid.spans).toEqual([[[prefix.before.length, prefix.before.length + prefix.visualTokens]]]);
        expect(text(alone({ lessons: [lesson] }))).toBe(text([...laid.ids.map((id) => Math.max(id, 0)), eosId]));
        expect(vlm.codec.decode(laid.targetIds).trim()).toBe(lesson.answer);
      }
      for (const fact of scene.facts) {
        const { ids } = vlm.layout({ prompt: fact.prompt }, fact.answer);
        const learned = alone({ facts: [fact] }).slice(
          mini.bareFacts ? prefix.before.length + prefix.visualTokens + prefix.after.length : -ids.length - 1,
        );
        expect(text(learned)).toBe(text([...ids.slice(mini.bareFacts ? 1 : 0), eosId]));
      }
    }
  });

  test('rescaling the residual stream keeps the function', async () => {
    const factor = 4;
    const batchOf = (model: Vlm) =>
      model.batch(scenes.slice(0, 3).map((s) => model.layout({ prompt: s.lessons[0]!.prompt, image: picture(s) })));
    const at = join(folder, `${name}-scaled`);
    writeMini(mini.withEpsilon(1 / factor ** 2), rescaleResidual(mini, weights, factor), at, {});
    const scaled = loadModel(at, { threads: 1 });
    const site = 'layers.2.out';
    const batch = await batchOf(vlm);
    const before = await vlm.run({ from: 0, to: vlm.decoder.layers, read: ['logits', site] }, batch);
    const after = await scaled.run({ from: 0, to: vlm.decoder.layers, read: ['logits', site] }, await batchOf(scaled));
    await scaled.release();
    const largest = (key: string): number =>
      (before[key]!.data as Float32Array).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    const worst = (key: string, by: number): number =>
      (before[key]!.data as Float32Array).reduce(
        (most, x, i) => Math.max(most, Math.abs(x - by * (after[key]!.data as Float32Array)[i]!)),
        0,
      );
    // A power of two loses nothing in half precision. OPT's one epsilon, which its configuration cannot change, is felt a little.
    expect(worst('logits', 1)).toBeLessThan(1e-4 * largest('logits'));
    expect(worst(site, factor)).toBeLessThan(1e-3);
  });

  test.runIf(mini.architecture.fixed === undefined)('pictures of several shapes are packed as they are laid out', async () => {
    const pictures = scenePictures(mini);
    const atlas = await Atlas.load();
    const shapes = new Map(Array.from({ length: 12 }, (_, i) => pictures.shapeOf(i + 1)).map((shape) => [shape.join(), shape]));
    expect(shapes.size).toBeGreaterThanOrEqual(3);
    for (const shape of shapes.values()) {
      const [height, width] = shape;
      const scene = lessonScene(atlas, 'shapes', 1, { perScene: 1, facts: 0, shape });
      const image = { height, width, data: scene.image };
      const grid = pictures.gridOf(shape);
      const { prompt, answer } = scene.lessons[0]!;
      const laid = vlm.layout({ prompt, image }, answer);
      const { feeds } = pack([scene], miniPrefix(mini, grid));
      const axes = laid.positions!.map((axis) => [...axis, axis.length + laid.positionDelta!]);
      expect(Array.from(feeds.positions!.data as BigInt64Array, Number)).toEqual(axes.flat());
      expect(feeds.ids!.shape[1]).toBe(laid.ids.length + 1);
      const prepared = vlm.processor(image);
      expect(prepared.grid).toEqual(grid);
      const own = prepared.pixels();
      for (const [name, { data }] of Object.entries(pictures.feeds([scene.image], shape))) expect(data).toEqual(own[name]!.data);
      // A visual token lies in one cell of the scene.
      cellsOf(grid).forEach((cell, token) => {
        const { left, top, width: w, height: h } = prepared.regionOf(token);
        for (const [x, y] of [
          [left, top],
          [left + w - 1, top + h - 1],
        ] as const)
          expect(2 * Number(y >= height / 2) + Number(x >= width / 2)).toBe(cell);
      });
    }
  });

  test.runIf(mini.architecture.fixed === undefined)('lessons about two pictures are learned as they are asked', async () => {
    const pictures = scenePictures(mini);
    const atlas = await Atlas.load();
    const none = { patchWord: 0, attributes: 0, lens: 0, reread: 0, early: 0 };
    const stage = {
      ...decoderStage,
      ...none,
      scenes: 2,
      lessons: 0,
      drills: 0,
      facts: 0,
      pairs: 2,
      rate: 0,
      muonRate: 0,
      decay: 0,
    };
    const prefixOf = (grid: readonly [number, number]): Prefix => miniPrefix(mini, grid, true);
    const learned = new Map([...weights].filter(([key]) => !mini.isVision(key)));
    // A step with a picture that is no square.
    const step = 2;
    const { trainer, feeds } = await decoderTrainer(mini, weights, learned, stage, prefixOf, atlas, 'two', 1);
    const { metrics } = await trainer.run(await feeds(step), 0);
    await trainer.release();
    const shape = pictures.shapeOf(step);
    const [height, width] = shape;
    const drawn = [0, 1].map((i) => lessonScene(atlas, 'two/decoder', 2 * (step - 1) + i, { perScene: 0, facts: 0, shape }));
    const losses: number[] = [];
    for (const [i, own] of drawn.entries()) {
      const both = [own, drawn[1 - i]!] as const;
      const random = new Random(`two/decoder/pairs/${2 * (step - 1) + i}`);
      for (const lesson of pairLessons(random, [both[0].scene, both[1].scene], 2)) {
        const shown = both.map(({ image }) => ({ picture: { height, width, data: image } }));
        const prompt = [...shown, { text: lesson.prompt }];
        const laid = vlm.layout({ prompt }, lesson.answer);
        const { feeds: packed } = pack([{ ...own, lessons: [lesson], facts: [] }], prefixOf(pictures.gridOf(shape)));
        const axes = laid.positions!.map((axis) => [...axis, axis.length + laid.positionDelta!]);
        expect(Array.from(packed.positions!.data as BigInt64Array, Number)).toEqual(axes.flat());
        expect(Array.from(packed.ids!.data as BigInt64Array, Number)).toEqual([...laid.ids.map((id) => Math.max(0, id)), eosId]);
        const { data, shape: of } = await vlm.logits(await vlm.batch([laid]));
        const classes = of.at(-1)!;
        [...laid.targetIds, eosId].forEach((id, t) => {
          const row = data.subarray((laid.promptEnd + t) * classes, (laid.promptEnd + t + 1) * classes);
          const most = Math.max(...row);
          losses.push(most + Math.log(row.reduce((sum, x) => sum + Math.exp(x - most), 0)) - row[id]!);
        });
      }
    }
    expect(losses.length).toBeGreaterThanOrEqual(4);
    const mean = losses.reduce((sum, x) => sum + x, 0) / losses.length;
    // The folder holds the weights in half precision.
    expect(Math.abs((metrics.answers!.data as Float32Array)[0]! - mean)).toBeLessThan(2e-3 * mean);
  });

  test.runIf(mini.architecture.fixed !== undefined)('every visual token has a home', async () => {
    const cells = homeCells(mini.architecture);
    const shares = homeShares(mini.architecture);
    expect(cells).toHaveLength(vlm.architecture.fixed!.count);
    for (const row of shares) expect(row.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 6);
    const [, columns] = mini.architecture.fixed!.grid;
    cells.forEach((cell, t) => {
      shares[t]!.forEach((share, p) => {
        if (share > 0) expect(2 * Math.floor(p / columns / 3) + Math.floor((p % columns) / 3)).toBe(cell);
      });
    });
    const map = await patchMap(vlm, vlm.processor(picture(scenes[0]!)));
    expect(map?.shape).toEqual(vlm.architecture.patchMap === undefined ? undefined : [cells.length, shares[0]!.length]);
  });
});
