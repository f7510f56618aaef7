/** On a model whose answer hangs on one patch, map, trace, patching and knock-out name that patch, whatever the shape of the picture. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cutEdges } from '../../src/attribution/cut.ts';
import { nextToken } from '../../src/attribution/next-token.ts';
import { onPictures } from '../../src/attribution/on-pictures.ts';
import { toolNamed } from '../../src/attribution/tools/index.ts';
import type { Subject } from '../../src/attribution/tools/tool.ts';
import { visualAttributions } from '../../src/attribution/visual-attribution.ts';
import { finestView } from '../../src/input/image/views.ts';
import { readInput } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import { visualPlaces } from '../../src/models/sequence.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Random } from '../../src/random.ts';
import { answers, marked, readingLayer, writePlanted, writePlantedTiles } from './planted.ts';

const dir = mkdtempSync(join(tmpdir(), 'visedit-planted-'));
const prompt = 'What is in the middle? The answer is:';
let vlm: Vlm;
let patches: Vlm;
let tiles: Vlm;
beforeAll(() => {
  patches = loadModel(writePlanted(join(dir, 'patches')), { threads: 1 });
  tiles = loadModel(writePlantedTiles(join(dir, 'tiles')), { threads: 1 });
});
afterAll(async () => {
  await Promise.all([patches, tiles].map((one) => one.release()));
  rmSync(dir, { recursive: true });
});

const subjectOf = async (image: ReturnType<typeof marked>): Promise<Subject> => {
  const asked = { prompt, image };
  return { vlm, asked, reading: await readInput(vlm, asked), read: (other) => readInput(vlm, other) };
};
const largest = (values: readonly number[]): number => values.indexOf(Math.max(...values));

describe.each([
  ['square', 32, 32, 6],
  ['wide', 64, 32, 4],
  ['tall', 32, 80, 15],
  ['tiled', 32, 32, 29],

  ['tall tiled', 32, 64, 15],
] as const)('%s picture', (shape, width, height, cell) => {
  /** the visual token of the patch */
  let token: number;
  beforeAll(() => {
    vlm = shape.includes('tiled') ? tiles : patches;
    const { views } = vlm.processor(marked(width, height));
    token = views === undefined ? cell : finestView(views).tokens[cell]!;
  });
  const markedCell = () => marked(width, height, vlm.processor(marked(width, height)).regionOf(cell));

  test('the answer hangs on the patch', async () => {
    const [white, none] = await Promise.all([markedCell(), marked(width, height)].map(subjectOf));
    expect((await nextToken(vlm, white!.reading.batch)).predicted).toBe(answers.white);
    expect((await nextToken(vlm, none!.reading.batch)).predicted).toBe(answers.none);
  });

  test('the map names it, in the one layer that reads the picture', async () => {
    const { reading } = await subjectOf(markedCell());
    const maps = await visualAttributions(vlm, reading.batch, [0, 1, 2, 3], { random: new Random(1) });
    expect(maps.map(({ carriesWeight }) => carriesWeight)).toEqual([0, 1, 2, 3].map((layer) => layer === readingLayer));
    const [{ values, regionOf }] = (await onPictures(vlm, reading.batch.sequences[0]!))(maps[readingLayer]!.values) as never as [
      { values: number[]; regionOf: (cell: number) => unknown },
    ];
    expect(largest(values)).toBe(cell);
    expect(values[cell]! / values.reduce((a, b) => a + b, 0)).toBeGreaterThan(0.99);
    expect(regionOf(cell)).toEqual(vlm.processor(marked(width, height)).regionOf(cell));
  });

  test('tracing and patching bring the answer back by it alone, before the layer that reads', async () => {
    const subject = await subjectOf(markedCell());
    const options = { modules: 'out', parts: 'patches' };
    const patched = await toolNamed('patch').run(subject, options, { against: { image: marked(width, height) } });
    const traced = await toolNamed('trace').run(subject, { ...options, noise: 100, draws: 3 }, {});
    patched.matrix!.values.forEach((row, patch) => {
      row.forEach((share, layer) => {
        expect(share).toBeCloseTo(patch === token && layer < readingLayer ? 1 : 0, 3);
      });
    });
    const before = traced.matrix!.values.map((row) => row[readingLayer - 1]!);
    expect(largest(before)).toBe(token);
  });

  test('cut edges to it take the answer away, in the layer that reads, and others do not', async () => {
    const { reading } = await subjectOf(markedCell());
    const [{ promptEnd: end }, places] = [reading.batch.sequences[0]!, visualPlaces(reading.batch.sequences[0]!)];
    for (const layer of [readingLayer, readingLayer + 1]) {
      for (const [i, place] of places.entries()) {
        const cut = cutEdges(vlm, reading, { queries: [end], keys: [place], layers: [layer] });
        const { predicted } = await nextToken(vlm, reading.batch, cut);
        expect(predicted).toBe(i === token && layer === readingLayer ? answers.none : answers.white);
      }
    }
    const found = await toolNamed('knockout').run(await subjectOf(markedCell()), { window: 1 }, {});
    const [row] = found.matrix!.values;
    row!.forEach((fall, layer) => {
      expect(fall).toBeCloseTo(layer === readingLayer ? found.key.probability : 0, 2);
    });
  });

  test('hiding the patches that the map names takes the answer away at once, and showing them is enough', async () => {
    const subject = await subjectOf(markedCell());
    const options = { methods: 'norm,attention', hide: 'grey,blur,states', steps: 4 };
    const found = await toolNamed('check').run(subject, options, { against: { image: marked(width, height) } });
    const areas = Object.fromEntries(found.matrix!.rows.map((row, i) => [row, found.matrix!.values[i]!]));
    for (const way of ['grey', 'states'])
      for (const method of ['norm', 'attention']) {
        const [deletion, insertion] = areas[`${way}: ${method}`]!;
        expect(deletion).toBeCloseTo(1 / 8, 2);
        expect(insertion).toBeCloseTo(7 / 8, 2);
      }
    expect(() => toolNamed('check').options.parse({ steps: 1 })).toThrow();
    await expect(toolNamed('check').run(subject, { ...options, methods: 'best' }, {})).rejects.toThrow(
      /'best' is not one of: norm, /,
    );
  });

  test('the head and the attention that read it are named', async () => {
    const subject = await subjectOf(markedCell());
    const looked = await toolNamed('attention').run(subject, { layers: 'all', each: false }, {});
    expect(looked.matrix!.values[readingLayer]![0]).toBeGreaterThan(0.999);
    const heads = await toolNamed('heads').run(subject, { layers: 'all' }, {});
    const falls = heads.matrix!.values.flat() as number[];
    expect(largest(falls)).toBe(readingLayer * 5);
    expect(falls.filter((fall) => Math.abs(fall) > 1e-3)).toHaveLength(1);
  });
});
