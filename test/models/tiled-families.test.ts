/**
 * Families whose pictures become tiles, from the folders of the fixtures: pictures of several shapes side by side, what their visual tokens show, both
 * attributions, and every kind of editor.
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { onPictures } from '../../src/attribution/on-pictures.ts';
import { visualAttribution } from '../../src/attribution/visual-attribution.ts';
import { editorNamed } from '../../src/editors/index.ts';
import { evaluateRecords } from '../../src/evaluation/asking.ts';
import { f32, sizeOf, type Tensor } from '../../src/graph/index.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { anyRes } from '../../src/input/image/grids.ts';
import { packed } from '../../src/input/image/packing.ts';
import { finestView, tokenPlaces } from '../../src/input/image/views.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import type { RgbImage, Segment } from '../../src/input/segments.ts';
import { type AnsweringModel, type Query, unedited } from '../../src/models/answer.ts';
import type { Architecture } from '../../src/models/architecture.ts';
import { llavaOneVisionConfig } from '../../src/models/configs/llava-onevision.ts';
import { smolVlmConfig } from '../../src/models/configs/smolvlm.ts';
import { llavaOneVision } from '../../src/models/llava-onevision.ts';
import { loadModel, weightShapes } from '../../src/models/load.ts';
import { smolVlm } from '../../src/models/smolvlm.ts';
import { readVision } from '../../src/models/vision.ts';
import { Vlm } from '../../src/models/vlm.ts';
import { Random } from '../../src/random.ts';
import { cpuEngine } from '../../src/runtime/node.ts';
import { sharedDir } from '../shared.ts';
import { temporaryFolder } from '../tiny-world.ts';

const modern = join(sharedDir, 'fixtures-modern');
const files = ['landscape.png', 'portrait.png', 'square.png', 'thin.png'];

const tiled = ['tiny-smolvlm', 'tiny-llava_onevision'];

/** Tiles of 768 pixels, of which one run reads one. */
const vision = {
  ...{ hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2, image_size: 768, patch_size: 128 },
  ...{ hidden_act: 'gelu_pytorch_tanh', layer_norm_eps: 1e-6 },
};
const text = {
  hidden_size: 16,
  intermediate_size: 16,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 32,
};
const large: Record<string, [Architecture, () => Record<string, Tensor>]> = {
  smolvlm: [smolVlm(smolVlmConfig.parse({ model_type: 'smolvlm', vision_config: vision, text_config: text })), () => ({})],
  'llava-onevision': [
    llavaOneVision(llavaOneVisionConfig.parse({ model_type: 'llava_onevision', vision_config: vision, text_config: text })),
    () => ({ ...packed(anyRes([700, 1500], { resolutions: [[768, 1536]], tile: 768, side: 6, most: 1 }), 6) }),
  ],
};

test.each(Object.entries(large))('%s: a picture of large tiles is looked at in several runs', async (_, [architecture, more]) => {
  const random = new Random('large tiles');
  const stored = new Map(
    [...weightShapes(architecture)].map(([name, shape]) => [name, f32(random.normals(sizeOf(shape), 0.2), shape)]),
  );
  const vlm = new Vlm({
    ...{ name: 'large', architecture, engine: cpuEngine, weights: (name) => stored.get(name), eosIds: [] },
    ...{ codec: { encode: () => [], decode: () => '' }, fingerprint: () => 'large', compileOptions: { threads: 1 } },
    processor: () => picture,
  });
  const pixels = f32(random.normals(3 * 3 * 768 * 768, 1), [3, 3, 768, 768]);
  const inputs = { pixels, ...more() };
  const picture = {
    count: 1,
    grid: [1, 1] as const,
    regionOf: () => ({ left: 0, top: 0, width: 1, height: 1 }),
    pixels: () => inputs,
  };
  const [seen] = await vlm.see([picture]);
  const { visual } = await readVision(vlm, picture, ['visual']);
  expect([1, ...seen!.shape]).toEqual(visual!.shape);
  expect(Math.max(...seen!.data.map((x, i) => Math.abs(x - Number(visual!.data[i]))))).toBeLessThan(1e-5);
  await vlm.release();
});

describe.skipIf(!existsSync(modern)).each([...tiled, 'tiny-qwen2_5_vl', 'tiny-qwen3_vl'])('%s', (name) => {
  const folder = temporaryFolder();
  let vlm: Vlm;
  let images: RgbImage[];
  let records: EditRecord[];
  let queries: Query[];
  let both: Segment[];

  beforeAll(async () => {
    vlm = loadModel(join(modern, name), { threads: 1 });
    images = await Promise.all(files.map((file) => decodeImage(join(modern, 'images', file))));
    const list = Array.from({ length: 8 }, (_, i) => ({
      ...{ src: 'what is it?', pred: 'a', rephrase: 'which is it?', alt: ['cat', 'dog'][i % 2] },
      ...{ loc: 'is a cat red', loc_ans: 'no', image: files[i % 4], image_rephrase: files[(i + 1) % 4] },
      ...{ m_loc: files[(i + 2) % 4], m_loc_q: 'is it red?', m_loc_a: 'yes' },
    }));
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'vqa.json'), JSON.stringify(list));
    records = loadRecords(join(folder, 'vqa.json'), join(modern, 'images'));
    both = [{ text: 'is ' }, { picture: images[0]! }, { text: ' or ' }, { picture: images[3]! }, { text: ' red?' }];
    queries = [
      { prompt: both, target: 'wide' },
      { prompt: 'what is it?', image: images[1], target: 'cat' },
      { prompt: 'what is it?', image: images[2], target: 'dog' },
      { prompt: 'is a cat red?', target: 'no' },
    ];
  });
  afterAll(async () => {
    await vlm.release();
    rmSync(folder, { recursive: true, force: true });
  });

  const logProbs = async (model: AnsweringModel, asked: readonly Query[]): Promise<number[][]> =>
    (await model.answerTargets(asked)).map((answer) => [...answer.logProbs]);
  const worst = (a: number[][], b: number[][]): number => Math.max(...a.flat().map((x, i) => Math.abs(x - b.flat()[i]!)));

  test('inputs of any kind asked together are answered as alone', async () => {
    const alone = (await Promise.all(queries.map((query) => logProbs(unedited(vlm), [query])))).flat();
    expect(worst(await logProbs(unedited(vlm), queries), alone)).toBeLessThan(1e-4);
    const options = { maxNewTokens: 5 };
    const said = (await Promise.all(queries.map((query) => unedited(vlm).generate([query], options)))).flat();
    expect(await unedited(vlm).generate(queries, options)).toEqual(said);
  });

  test.runIf(tiled.includes(name))('every visual token knows its view, its tile and its rectangle', () => {
    const { views, count } = vlm.layout({ prompt: 'x', image: images[0] }).pictures[0]!;
    const places = tokenPlaces(views!, count);
    const [tiles, whole] = ['tiles', 'whole'].map((of) => places.filter((place) => place?.view.of === of));
    const { width, height } = images[0]!;
    expect(whole![0]!.region).toMatchObject({ left: 0, top: 0 });
    expect(whole!.at(-1)!.region).toMatchObject({ left: expect.closeTo(width - whole![0]!.region.width) });
    const rows = finestView(views!).grid[0];
    expect(tiles!.length).toBe(rows * finestView(views!).grid[1]);
    // one after each row of LLaVA-OneVision's tiles, none of SmolVLM, whose rows end with a word
    expect(places.filter((place) => place === undefined)).toHaveLength(name === 'tiny-smolvlm' ? 0 : rows);
    if (name === 'tiny-smolvlm') {
      expect(places.slice(0, 8).map((place) => place!.tile)).toEqual([0, 0, 0, 0, 1, 1, 1, 1].map((column) => [0, column]));
      expect(places[4]!.region).toEqual({ left: width / 3, top: 0, width: width / 6, height: height / 4 });
    }
  });

  test('--max-pixels makes fewer visual tokens where pictures have no fixed size', async () => {
    const open = (): Vlm => loadModel(join(modern, name), { threads: 1, maxPixels: 2048 });
    if (vlm.architecture.fixed !== undefined) {
      expect(open).toThrow(/reads every picture as \d+ by \d+ pixels; leave --max-pixels and --min-pixels out/);
      return;
    }
    const limited = open();
    const query = { prompt: 'what is it?', image: images[0] };
    const count = (of: Vlm): number => of.layout(query).pictures[0]!.count;
    expect(count(limited)).toBeLessThan(count(vlm));
    expect((await unedited(limited).generate([query], { maxNewTokens: 2 }))[0]!.tokenIds).toHaveLength(2);
    await limited.release();
  });

  test('both pictures of a prompt have maps', async () => {
    const batch = await vlm.batch([vlm.layout({ prompt: both })]);
    const { values } = await visualAttribution(vlm, batch, { layer: 1, draws: 2, random: new Random(1) });
    const { pictures } = batch.sequences[0]!;
    expect(values).toHaveLength(pictures[0]!.count + pictures[1]!.count);
    const maps = (await onPictures(vlm, batch.sequences[0]!))(values);
    maps.forEach((map, i) => {
      const view = finestView(pictures[i]!.views!);
      expect(map.grid).toEqual(view.grid);
      expect(map.values).toEqual(view.tokens.map((token) => values[token + (i === 0 ? 0 : pictures[0]!.count)]));
    });
  });

  // SERAC's own parts are the same for all families and take half a minute; one of them is enough.
  const editors = [
    'vead',
    'live-edit',
    'm-ore',
    'mend',
    'ke',
    ...(name === 'tiny-smolvlm' ? ['serac'] : []),
    'lte',
    'tp',
    'ike',
    'ft-l',
    'ft-v',
  ];
  test.each(editors)('%s trains, edits and is evaluated', async (id) => {
    const editor = await editorNamed(id);
    const settings: Record<string, Record<string, number | boolean | number[]>> = {
      vead: { width: 16, heads: 2, influenceWidth: 16, sampled: 4, traced: [2] },
      'live-edit': { width: 16, heads: 2 },
      ke: { window: 6, lstm: 8, condition: 8 },
    };
    const options = { out: join(folder, id), seed: 1, steps: 2, batch: 2, settings: settings[id] ?? {} };
    const given = id === 'tp' || id === 'ike' ? { out: options.out, seed: 1, settings: {} } : options;
    const weights = editor.trained
      ? await editor.train!(vlm, records, id === 'vead' || id === 'live-edit' ? { ...options, layer: 1 } : given)
      : undefined;
    const requests = id === 'ft-v' || id === 'serac' ? [queries[1]!] : [queries[0]!, queries[1]!];
    const edits = await editor.edit(vlm, requests, weights);
    const asked = [requests[0]!, queries[2]!, queries[3]!];
    const under = editor.with(vlm, edits.slice(0, 1));
    const after = await logProbs(under, asked);
    expect(after.flat().every(Number.isFinite)).toBe(true);
    const alone = (await Promise.all(asked.map((query) => logProbs(under, [query])))).flat();
    expect(worst(after, alone)).toBeLessThan(1e-3);
    if (editor.promises.textUntouched) expect(after[2]).toEqual((await logProbs(unedited(vlm), [queries[3]!]))[0]);
    const { metrics } = await evaluateRecords(vlm, editor, weights, records.slice(0, 2));
    expect(metrics.average).toBeGreaterThanOrEqual(0);
  });
});
